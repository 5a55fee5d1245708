"""The repository around the code: public names, targets, links, and nothing that belongs to one machine."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import container_magic as cm

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
MADE = {".git", ".venv", "build", "dist", "__pycache__"}
PUBLIC = {
    "run", "stream", "map",
        "Session", "RunReport", "ContainError", "OptionError", "HostError", "NotFoundError", "StateError",
    "ImageError", "InternalError", "load_ipython_extension", "unload_ipython_extension", "__version__",
}  # fmt: skip
TARGETS = {"demo", "test", "check", "bench", "docs", "clean", "help"}
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
# where this checkout and its interpreter lie; what any machine has below /usr is nobody's secret
MACHINE_PATHS = {path for path in (str(ROOT), sys.prefix, sys.base_prefix) if not path.startswith("/usr")}


def text_files():
    """Return the repository's own text files: what git would keep, without needing git."""
    found = []
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        hidden = parts[0].startswith(".") and parts[0] not in (".ci", ".gitignore")
        if path.is_file() and not hidden and not MADE & set(parts) and path.suffix not in (".png", ".pyc"):
            found.append(path)
    return found


def make(*arguments):
    """Run make here and return what it prints."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    command = ["make", "--no-print-directory", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def makefile_targets():
    """Return the targets of the Makefile that a user may call."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][a-z-]*):", text, re.MULTILINE))


def anchors(page):
    """Return the anchors of a Markdown page as its headings give them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_public_names_are_those_of_the_interface():
    """Exactly the documented names are exported, and each of them resolves."""
    assert set(cm.__all__) == PUBLIC
    assert all(getattr(cm, name) is not None for name in PUBLIC)


def test_unknown_name_is_an_attribute_error():
    """A name that is not exported fails as it does for any module."""
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = cm.nothing


def test_every_error_derives_from_the_base():
    """One except clause catches all of them."""
    errors = [getattr(cm, name) for name in PUBLIC if name.endswith("Error")]
    assert all(issubclass(error, cm.ContainError) for error in errors)


def test_help_lists_every_target_of_the_makefile():
    """``make help`` and ``make`` alone show the same list: every target, each with a line."""
    listed = re.findall(r"^ +([a-z-]+) +\S", make("help"), re.MULTILINE)
    assert set(listed) == makefile_targets() >= TARGETS
    assert len(listed) < 12
    assert make() == make("help")


def test_every_target_is_phony():
    """A file of the same name does not stop a target."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.+)$", text, re.MULTILINE)
    assert set(phony.split()) == makefile_targets()


def test_continuous_integration_calls_the_same_targets():
    """``.ci/run`` is executable and runs what a developer runs."""
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert {"make check", "make test"} <= set(script.read_text(encoding="utf-8").splitlines())


def test_version_has_an_entry_in_the_changelog():
    """What is released is described."""
    assert f"\n## [{cm.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_resolve(page):
    """Every relative link leads to a file, and every anchor to a heading."""
    broken = []
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        if not linked.exists() or (anchor and anchor not in anchors(linked)):
            broken.append(target)
    assert not broken


def test_every_page_is_in_the_index():
    """``docs/README.md`` links all pages of its folder."""
    index = set(LINK.findall((ROOT / "docs" / "README.md").read_text(encoding="utf-8")))
    assert {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"} <= index


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_named_in_a_page_exist(page):
    """An option of ``contain`` that a page names is in the option table."""
    from container_magic.kernel.command import INSTALL_WORDS
    from container_magic.options import OPTIONS

    verbs = {"--format", "--help", "--self-test", "--raw", "--completion", *INSTALL_WORDS}
    known = {name for option in OPTIONS for name in option.names} | verbs
    foreign = {"--no-index", "--find-links", "--quiet", "--scope"}  # pip's and systemd-run's
    foreign |= {"--kernel", "--execute", "--to"}  # of jupyter execute and jupyter nbconvert
    written = re.sub(r"(--[a-z-]+)\{([a-z,]+)\}(-\{[a-z,]+\})?", "", page.read_text(encoding="utf-8"))
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", written))
    assert named <= known | foreign


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tests_named_in_a_page_exist(page):
    """A test file that a page names is there."""
    named = set(re.findall(r"`((?:tests/\w+/)?test_[\w*]+\.py)`", page.read_text(encoding="utf-8")))
    missing = {name for name in named if not any(ROOT.glob(name if "/" in name else f"tests/integration/{name}"))}
    assert not missing


def test_picture_has_no_script_and_no_foreign_part():
    """The SVG of the README is well-formed and loads nothing."""
    import xml.etree.ElementTree as Tree

    text = (ROOT / "docs" / "around-a-cell.svg").read_text(encoding="utf-8")
    Tree.fromstring(text)
    assert "<script" not in text
    assert "href" not in text


def test_no_path_of_a_machine_is_in_the_repository():
    """Nothing refers to directories of the machine on which it was written."""
    found = [
        f"{path.relative_to(ROOT)}: {machine_path}"
        for path in text_files()
        for machine_path in MACHINE_PATHS
        if machine_path in path.read_text(encoding="utf-8", errors="replace")
    ]
    assert not found


def imported_names(node):
    """Return the modules that one syntax node imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


def test_dependencies_of_the_package_are_only_what_it_imports():
    """``pip install`` brings no package that no module of ours names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {re.match(r"[\w-]+", dependency)[0].lower() for dependency in project["dependencies"]}
    distributions = {"pil": "pillow", "markdown_it": "markdown-it-py", "mdit_py_plugins": "mdit-py-plugins"}
    modules = {
        name.partition(".")[0].lower()
        for path in (ROOT / "container_magic").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in imported_names(node)
    }
    imported = {distributions.get(name, name) for name in modules}
    assert names - {"ipykernel"} <= imported  # the kernel is what notebooks run in; nothing imports it
