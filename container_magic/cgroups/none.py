"""No cgroup: nothing is limited and no figure is known."""

from __future__ import annotations

import dataclasses

from container_magic.cgroups.manager import Handover, MemoryUse, Sample
from container_magic.errors import HostError
from container_magic.events import Usage
from container_magic.spec import Resources


class NoCgroupManager:
    """Stands where no cgroup can be made; fails closed when a limit is asked of it."""

    def require(self, controllers: tuple[str, ...]) -> None:
        """Do nothing: there is no group."""

    def prepare(self) -> None:
        """Do nothing: there is no group."""

    def create(self, resources: Resources) -> None:
        """Do nothing when no limit is asked.

        Raises:
            HostError: A limit is asked.
        """
        for field in dataclasses.fields(resources):
            if (value := getattr(resources, field.name)) not in (None, ()):
                raise HostError(
                    f"cannot limit {field.name} to {value}: no cgroup can be made here",
                    hint="`contain doctor` says why and what would change it",
                )

    def entry_fds(self) -> tuple[int, ...]:
        """Return nothing: there is no group to enter."""
        return ()

    def clone_fd(self) -> int | None:
        """Return None: there is no group to enter."""
        return None

    def begin(self) -> None:
        """Do nothing: there are no counters."""

    def restart_peak(self) -> bool:
        """Return False: there is no figure."""
        return False

    def sample(self) -> Sample:
        """Return a sample without figures."""
        return Sample()

    def memory_use(self) -> MemoryUse | None:
        """Return None: there is no figure."""
        return None

    def memory_alarm(self, mark_bytes: int) -> tuple[int, int] | None:  # noqa: ARG002 - the protocol's
        """Return None: nobody tells."""
        return None

    def alarm_heard(self) -> None:
        """Do nothing: there is no alarm."""

    def tasks(self) -> int | None:
        """Return None: nothing counts."""
        return None

    def tasks_refused(self) -> int | None:
        """Return None: nothing counts."""
        return None

    def usage(self) -> Usage:
        """Return a usage without figures."""
        return Usage()

    def hand_over(self) -> Handover | None:
        """Return None: there are no figures."""
        return None

    def close(self) -> None:
        """Do nothing: nothing is open."""

    def delete(self) -> None:
        """Do nothing: nothing was made."""
