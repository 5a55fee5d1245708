"""What a kernel has used, in the words of Jupyter."""

from __future__ import annotations

import dataclasses
import os
import socket
from typing import Any

from container_magic.events import Limit, Sampled, Usage
from container_magic.report import RunReport

METADATA_KEY = "container_magic"


def cell_metadata(report: RunReport) -> dict[str, Any]:
    """Return what stands in a reply's metadata: figures of the cell, and of the session; None is unknown."""
    usage = {item.name: getattr(report.usage, item.name) for item in dataclasses.fields(Usage)}
    session = dataclasses.asdict(report.session) if report.session is not None else {}
    for figures in (usage, session):
        figures.pop("io_devices", None)
    return {METADATA_KEY: {"usage": usage, "session": session, "container_id": report.container_id}}


class Meter:
    """Answers ``usage_request`` (jupyter_client: kernel usage) with the container's figures, not with the host's.

    What Jupyter calls the host is the container's limit: that is what the kernel can have.
    """

    def __init__(self, now_seconds: float) -> None:
        self._before = (now_seconds, 0.0)

    def content(self, sample: Sampled, limits: tuple[Limit, ...], pid: int, now_seconds: float) -> dict[str, Any]:
        """Return the content of a ``usage_reply``; CPU is percent of one CPU since the last."""
        seconds, cpu_seconds = self._before
        used = sample.cpu_seconds
        percent = None
        if used is not None:
            percent = round(100 * max(0.0, used - cpu_seconds) / max(now_seconds - seconds, 1e-3), 1)
            self._before = (now_seconds, used)
        cpus = _limit(limits, "cpus") or len(os.sched_getaffinity(0))
        content: dict[str, Any] = {"hostname": socket.gethostname(), "pid": pid, "cpu_count": cpus}
        content["kernel_cpu"] = percent
        content["host_cpu_percent"] = None if percent is None else round(min(100.0, percent / cpus), 1)
        used_bytes = sample.working_set_bytes
        content["kernel_memory"] = used_bytes
        total = _limit(limits, "memory")
        if total is not None and used_bytes is not None:
            free = max(0, int(total) - used_bytes)
            content["host_virtual_memory"] = {
                "total": int(total),
                "available": free,
                "free": free,
                "used": used_bytes,
                "percent": round(100 * used_bytes / total, 1),
            }
        return content


def _limit(limits: tuple[Limit, ...], name: str) -> float | None:
    value = next((limit.value for limit in limits if limit.name == name), None)
    return value if isinstance(value, (int, float)) else None
