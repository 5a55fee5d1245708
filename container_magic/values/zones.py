"""Time zones on the wire: nothing, seconds east of UTC, or a name of the time zone database."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from container_magic.values.wire import RefusedError

if TYPE_CHECKING:
    import datetime

_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]{0,31}(?:/[A-Za-z0-9][A-Za-z0-9_+-]{0,31}){0,3}")


def timezone_node(zone: Any) -> Any:
    """Return a time zone: None, seconds east of UTC, or its name.

    Raises:
        RefusedError: It is neither fixed nor has a name.
    """
    if zone is None:
        return None
    import datetime

    if type(zone) is datetime.timezone:
        return zone.utcoffset(None).total_seconds()
    name = getattr(zone, "key", None) or getattr(zone, "zone", None)
    if isinstance(name, str):
        return name
    raise RefusedError(f"the time zone {zone!r:.100} has no name", hint="convert the time to UTC")


def timezone(body: Any) -> datetime.tzinfo | None:
    """Return a time zone: None, seconds east of UTC, or a name of the time zone database.

    Raises:
        RefusedError: It is none of these.
    """
    if body is None:
        return None
    import datetime

    if type(body) in (int, float):
        return datetime.timezone(datetime.timedelta(seconds=body))
    if not isinstance(body, str) or not _ZONE.fullmatch(body):
        raise RefusedError("a time zone has no name of a time zone")
    import zoneinfo

    return zoneinfo.ZoneInfo(body)
