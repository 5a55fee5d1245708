"""The rings of the package: who may import whom, and what importing costs, read from the source by ``ast``."""

import ast
import functools
import graphlib
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "container_magic"
NAME = PACKAGE.name
MAX_LINES = 450
MODULE_NAME = re.compile(rf"{NAME}(\.\w+)+")

# From the inside out. A unit (a module or a folder) imports units of earlier lines and itself, never its neighbours.
RINGS = (
    ("forks",),
    ("deferred", "remembered"),
    ("errors",),
    ("units",),
    ("values",),
    ("spec",),
    ("events",),
    ("languages",),
    ("options", "report"),
    ("folding", "sanitize"),
    ("linux",),
    ("cgroups", "rootfs", "network"),
    ("host",),
    ("plan",),
    ("programs", "workdir"),
    ("planner",),
    ("process",),
    ("runtime",),
    ("verbs",),
    ("display",),
    ("shell_completion", "standard_streams"),
    ("kernel",),
    ("line_verbs",),
    ("magics", "cli"),
    ("entry",),
    ("__main__",),
)
RING_OF = {unit: number for number, units in enumerate(RINGS) for unit in units}
# A report shows itself: display is named there as a string and loaded only then.
UPWARD_BY_NAME = {("report", "display")}
NOTEBOOK_PACKAGES = {"IPython", "ipykernel", "traitlets"}
# IPython's shells inside, loaded by the zygote of their cells or by the notebook, beside the environment's own modules:
# named, never imported by another module.
IPYTHON_SHELLS = tuple(f"{NAME}.process.{name}_shell" for name in ("ipython", "contained", "live", "kernel"))
# What runs where no site-packages are: boot, zygote, supervisor, init and payload.
ISOLATED_ENTRIES = (f"{NAME}.process.boot", f"{NAME}.process.child", f"{NAME}.runtime.server")


@dataclass(frozen=True, kw_only=True)
class Import:
    """One import: the module that imports, what it imports, and when that happens: at import time, in a call, never."""

    importer: str
    target: str
    when: str
    by_name: bool = False


def module_name(path):
    """Return the dotted name of the module in ``path``."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def unit_of(module):
    """Return the part of the package that the rings name: ``cgroups`` for ``container_magic.cgroups.v1``."""
    return module.split(".")[1] if "." in module else ""


def targets(node):
    """Return what one syntax node imports, and whether it only names it."""
    if isinstance(node, ast.Import):
        return [(alias.name, False) for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"relative import in line {node.lineno}"
        below = [f"{node.module}.{alias.name}" for alias in node.names]
        return [(name if name in PATHS else node.module, False) for name in below]
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and MODULE_NAME.fullmatch(node.value):
        return [(node.value, True)] if node.value in PATHS else []
    return []


def walk(node, when="import"):
    """Yield every node below ``node`` with when it runs: at ``import``, in a ``call``, ``never`` (type checking)."""
    yield node, when
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        when = "call"
    guarded = node.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) else []
    for child in ast.iter_child_nodes(node):
        yield from walk(child, "never" if child in guarded or when == "never" else when)


@functools.cache
def imports_of(module):
    """Return every import of ``module``, wherever it stands in the file."""
    tree = ast.parse(PATHS[module].read_text(encoding="utf-8"))
    return [
        Import(importer=module, target=target, when=when, by_name=by_name)
        for node, when in walk(tree)
        for target, by_name in targets(node)
    ]


def own_imports():
    """Return the imports of modules of this package by modules of this package; ``__init__`` stands outside."""
    return [
        found
        for module in PATHS
        for found in imports_of(module)
        if module != NAME and found.target.startswith(f"{NAME}.")
    ]


def closure(entry):
    """Return every import that ``entry`` can lead to, those in functions included, those for type checking not."""
    seen, pending, found = set(), [entry], []
    while pending:
        module = pending.pop()
        if module in seen:
            continue
        seen.add(module)
        if module in IPYTHON_SHELLS:
            continue
        made = [item for item in imports_of(module) if item.when != "never"]
        found += made
        pending += [item.target for item in made if item.target in PATHS and item.target != NAME]
    return found


def python(*arguments):
    """Run a fresh interpreter on the package and return what it prints."""
    done = subprocess.run([sys.executable, *arguments], cwd=PACKAGE.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded_by(statement):
    """Return the names of the modules that a fresh interpreter holds after ``statement``."""
    return set(python("-c", f"{statement}\nimport sys; print(*sys.modules)").split())


def test_every_unit_has_a_ring():
    """A new module or folder at the top of the package is given its place in RINGS."""
    assert {unit_of(module) for module in PATHS} - {""} == set(RING_OF)


def test_imports_point_inwards():
    """A file imports lower rings and its own folder only, also inside functions and for type checking."""
    violations = [
        f"{found.importer} (ring line {RING_OF[mine]}) imports {found.target} ({RING_OF[theirs]})"
        for found in own_imports()
        for mine, theirs in [(unit_of(found.importer), unit_of(found.target))]
        if mine != theirs and RING_OF[theirs] >= RING_OF[mine]
        if not (found.by_name and (mine, theirs) in UPWARD_BY_NAME)
    ]
    assert not violations, "\n".join(violations)


def test_cgroup_versions_do_not_know_each_other():
    """v1 and v2 share what is below them and never import one another."""
    versions = {f"{NAME}.cgroups.v1", f"{NAME}.cgroups.v2"}
    assert not [found for found in own_imports() if {found.importer, found.target} == versions]


def test_package_root_is_imported_for_its_version_only():
    """Nothing but the version is taken from ``container_magic`` itself: that would load everything through it."""
    taken = {
        alias.name
        for path in PATHS.values()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == NAME
        for alias in node.names
        if f"{NAME}.{alias.name}" not in PATHS
    }
    assert taken <= {"__version__"}


def test_import_time_graph_has_no_cycle():
    """What modules import while they are imported forms no cycle."""
    graph = {
        module: {found.target for found in imports_of(module) if found.when == "import" and found.target in PATHS}
        - {module, NAME}
        for module in PATHS
    }
    graphlib.TopologicalSorter(graph).prepare()


def test_notebook_packages_stay_in_the_front():
    """IPython, ipykernel and traitlets are imported by the front ends only, and by the shell inside."""
    users = {
        found.importer
        for module in PATHS
        for found in imports_of(module)
        if found.target.partition(".")[0] in NOTEBOOK_PACKAGES and module not in IPYTHON_SHELLS
    }
    assert {unit_of(user) for user in users} - {""} <= {"magics", "display", "kernel"}


@pytest.mark.parametrize("module", sorted(PATHS))
def test_module_is_not_longer_than_a_reader_can_hold(module):
    """No module has more than MAX_LINES lines."""
    assert len(PATHS[module].read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("entry", ISOLATED_ENTRIES)
def test_isolated_processes_import_standard_library_and_lower_rings(entry):
    """Zygote, supervisor and child reach nothing that pip installed, and no ring above runtime."""
    foreign = {
        f"{found.importer} imports {found.target}"
        for found in closure(entry)
        if found.target.partition(".")[0] not in sys.stdlib_module_names | {NAME}
    }
    above = {
        f"{found.importer} imports {found.target}"
        for found in closure(entry)
        if found.target.startswith(f"{NAME}.") and RING_OF[unit_of(found.target)] > RING_OF["runtime"]
    }
    assert not foreign | above


def test_child_knows_no_option_no_planner_and_no_runtime():
    """What runs between clone and the user's code makes mounts and system calls, and decides nothing."""
    units = {unit_of(found.target) for found in closure(f"{NAME}.process.child") if found.target.startswith(f"{NAME}.")}
    assert units <= {"forks", "deferred", "errors", "values", "spec", "events", "linux", "network", "rootfs", "process"}


@pytest.mark.parametrize("entry", ISOLATED_ENTRIES)
def test_isolated_processes_start_without_site_packages(entry):
    """The modules load in an interpreter that has the standard library alone."""
    source = f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); import {entry}; print(*sys.modules)"
    assert entry in python("-I", "-S", "-c", source).split()


def test_importing_the_package_loads_nothing_of_it_but_a_lock():
    """``import container_magic`` loads nothing of the notebook, and what a fork has to find before threads import."""
    loaded = loaded_by("import container_magic")
    assert {name for name in loaded if name.startswith(NAME)} == {NAME, f"{NAME}.forks"}
    assert not {name.partition(".")[0] for name in loaded} & NOTEBOOK_PACKAGES


def test_importing_the_package_does_nothing():
    """``import container_magic`` starts no process, opens no file for writing and leaves no thread behind."""
    source = """
import sys, threading
seen = []
def hook(event, arguments):
    if event == "open":
        found = arguments[1] not in (None, "r", "rb")
    else:
        found = event.startswith(("subprocess.", "socket.", "os.")) and event != "os.listdir"
    if found:
        seen.append(event)
sys.addaudithook(hook)
import container_magic
print(seen, threading.active_count())
"""
    assert python("-B", "-c", source).strip() == "[] 1"


def test_command_line_never_loads_the_notebook():
    """Neither importing ``cli`` nor showing help or running code loads IPython, ipykernel or traitlets."""
    statement = (
        "import contextlib, io\n"
        "from container_magic.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        "    main(['run', '--help'])\n"
        "import container_magic.verbs.run, container_magic.verbs.doctor, container_magic.display.text"
    )
    done = python("-c", f"{statement}\nimport sys; print('loaded', *sys.modules)")
    loaded = {name.partition(".")[0] for name in done.rpartition("loaded ")[2].split()}
    assert not loaded & NOTEBOOK_PACKAGES
