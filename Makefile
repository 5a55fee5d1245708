# What `make` can do here; `make help` lists it. Needs Python 3.11 or newer, make, and for `test` and `demo` nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# the version in the name: another PYTHON makes another environment
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
INSTALLED := $(VENV)/.installed-$(VERSION)
LINTERS := $(VENV)/.linters-$(VERSION)
PAGE := $(VENV)/.page-$(VERSION)
CLIENTS := $(VENV)/.clients-$(VERSION)
PROXY := $(VENV)/proxy/node_modules/.bin/configurable-http-proxy

.DEFAULT_GOAL := help
.PHONY: help demo test test-page test-clients test-vm check bench docs clean

help: ## show these targets
	@sed -n 's/^\([a-z-]*\): .*## /  \1	/p' Makefile | expand -t 12

demo: $(INSTALLED) ## run the first notebook in a real Jupyter kernel and write it to build/
	$(BIN)/python notebooks/run_notebook.py notebooks/01_first_cell.ipynb build

# a browser's driver runs an event loop of its own, beside which others cannot begin
OWN_TARGETS := --ignore=tests/page --ignore=tests/clients

test: $(INSTALLED) ## run the test suite: in parallel, then what needs the machine alone
	@status=0; \
	$(BIN)/python -m pytest -q $(OWN_TARGETS) -n 2 --dist loadgroup -m "not alone" || status=1; \
	$(BIN)/python -m pytest -q $(OWN_TARGETS) -m alone || status=1; \
	exit $$status

test-page: $(PAGE) ## run the tests in JupyterLab's page; root gets Debian's chromium for it
	@command -v chromium >/dev/null || test "$$(id -u)" != 0 || ! command -v apt-get >/dev/null \
		|| { apt-get -q update && apt-get -q -y install --no-install-recommends chromium fonts-dejavu-core; }
	$(BIN)/python -m pytest -q tests/page

# where there is no npm, the tests that need the proxy are skipped
test-clients: $(CLIENTS) $(if $(shell command -v npm 2>/dev/null),$(PROXY)) ## run the tests with nbgrader, otter and JupyterHub around a kernel
	$(BIN)/python -m pytest -q tests/clients

test-vm: $(INSTALLED) ## run integration tests on a stock Debian kernel with cgroup v2, under emulation
	tests/vm/run

check: $(INSTALLED) $(LINTERS) ## formatter, linter and type checker; changes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(INSTALLED) ## measure against whichever of bwrap, runc, podman and docker are installed
	$(BIN)/python -m benchmarks

docs: $(INSTALLED) ## write docs/options.md from the option table
	$(BIN)/python docs/make_options.py

clean: ## remove everything that these targets made
	rm -rf build dist $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Debian has venv without ensurepip unless python3-venv is installed; its own pip can fill such an environment.
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python $(VERSION) is too old: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	@test "$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$(VERSION)" \
		&& $(BIN)/python -m pip --version >/dev/null 2>&1 \
		|| $(PYTHON) -m venv --clear $(VENV) 2>/dev/null \
		|| { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install -q pip; }
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -e . --group test
	@touch $@

$(LINTERS): pyproject.toml | $(INSTALLED)
	$(BIN)/python -m pip install -q --group lint
	@touch $@

$(PAGE): pyproject.toml | $(INSTALLED)
	$(BIN)/python -m pip install -q --group page
	@touch $@

$(CLIENTS): pyproject.toml | $(INSTALLED)
	$(BIN)/python -m pip install -q --group clients
	@touch $@

$(PROXY): | $(INSTALLED)
	@mkdir -p $(VENV)/proxy
	npm install --no-fund --no-audit --loglevel=error --prefix $(VENV)/proxy configurable-http-proxy@5
