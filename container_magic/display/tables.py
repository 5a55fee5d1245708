"""What verbs return, as text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from container_magic.verbs.doctor import Check


def checks_text(checks: Sequence[Check]) -> str:
    """Return the checks of ``contain doctor``, a line each, with the remedy for what this host cannot do."""
    marks = {True: "yes", False: "no", None: "-"}
    width = max((len(check.name) for check in checks), default=0)
    lines = []
    for check in checks:
        remedy = f"; remedy: {check.remedy}" if check.remedy else ""
        lines.append(f"{marks[check.ok]:<4}{check.name:<{width}}  {check.detail}{remedy}")
    return "\n".join(lines)


def checks_json(checks: Sequence[Check]) -> str:
    """Return the checks of ``contain doctor`` as a JSON list of objects."""
    fields = ("name", "ok", "detail", "remedy")
    return json.dumps([{field: getattr(check, field) for field in fields} for check in checks], indent=2)
