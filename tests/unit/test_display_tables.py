"""What verbs return, as text."""

import json
from types import SimpleNamespace

from container_magic.display.tables import checks_json, checks_text

CHECKS = [
    SimpleNamespace(name="memory", ok=True, detail="memory.max", remedy=""),
    SimpleNamespace(name="io", ok=False, detail="no io controller", remedy="enable it"),
    SimpleNamespace(name="swap", ok=None, detail="none here", remedy=""),
]


def test_checks_are_a_line_each_with_remedy():
    """Whether, what, and what would help; columns are aligned."""
    assert checks_text(CHECKS).splitlines() == [
        "yes memory  memory.max",
        "no  io      no io controller; remedy: enable it",
        "-   swap    none here",
    ]
    assert checks_text([]) == ""


def test_checks_are_json_objects():
    """The same for programs."""
    assert json.loads(checks_json(CHECKS))[1] == {
        "name": "io",
        "ok": False,
        "detail": "no io controller",
        "remedy": "enable it",
    }
