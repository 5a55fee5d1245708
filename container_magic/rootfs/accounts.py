"""The accounts inside: they name nobody of the host."""

from __future__ import annotations

PASSWD = (
    "root:x:0:0:root:{home}:{shell}\ndaemon:x:1:1:daemon:/:/usr/sbin/nologin\n"
    "user:x:1000:1000:user:/home/user:{shell}\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
)
GROUP = "root:x:0:\ndaemon:x:1:\ntty:x:5:\nuser:x:1000:\nnogroup:x:65534:\n"


def look_up(user: str, passwd: str = PASSWD, group: str = GROUP) -> tuple[int, int]:
    """Return (uid, gid) for Docker's ``UID[:GID]`` or ``NAME[:GROUP]``, names looked up in these texts.

    Raises:
        LookupError: A name is not there.
    """
    if not user:
        return 0, 0
    name, _, group_name = user.partition(":")
    uid, default_gid = _entry(passwd, name, "/etc/passwd")
    return uid, _entry(group, group_name, "/etc/group")[0] if group_name else default_gid


def _entry(text: str, name: str, database: str) -> tuple[int, int]:
    for line in text.splitlines():
        fields = line.split(":")
        if name in (fields[0], fields[2]):
            return int(fields[2]), int(fields[3]) if database.endswith("passwd") else 0
    if name.isdecimal():
        return int(name), 0
    raise LookupError(f"no user or group {name!r} in {database}")
