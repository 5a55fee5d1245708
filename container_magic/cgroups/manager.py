"""What a cgroup manager does for one container, whichever cgroup version is under it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

from container_magic.deferred import dataclass
from container_magic.events import Usage
from container_magic.spec import Resources

DELETE_SECONDS = 5.0
"""How long `CgroupManager.delete` waits for tasks that are still exiting."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Figures of this moment, cheap to read; None where the host cannot give one.

    ``cpu_seconds`` counts from ``begin``; ``oom_kills`` counts the processes of the container that the kernel killed
    because memory ran out.
    """

    cpu_seconds: float | None = None
    memory_bytes: int | None = None
    oom_kills: int | None = None


@dataclass(frozen=True, kw_only=True)
class MemoryUse:
    """What the memory of this moment consists of."""

    usage_bytes: int
    """All that is charged, cached files included."""
    working_set_bytes: int
    """Without files that were cached and not looked at again: what Docker's ``stats`` shows."""
    held_bytes: int
    """Without any cached file, with what is swapped out: what the kernel cannot take back."""


@dataclass(frozen=True, kw_only=True)
class Handover:
    """What lets another process read the figures of a container: open files by name, and what they count from.

    ``version`` is that of cgroups; ``start`` is plain JSON.
    """

    version: int
    fds: dict[str, int]
    start: dict[str, Any]


class Figures(Protocol):
    """What a container's cgroup says."""

    def sample(self) -> Sample:
        """Return the figures of this moment."""

    def tasks(self) -> int | None:
        """Return how many tasks there are now; None where the host does not say."""

    def usage(self) -> Usage:
        """Return what was used since ``begin``; ``wall_seconds`` is not known here."""

    def hand_over(self) -> Handover | None:
        """Return what lets another process read the same figures; None where they do not tell when a run is over."""


@contextlib.contextmanager
def nothing_half_made(manager: CgroupManager) -> Iterator[None]:
    """Delete what ``manager`` has made when what is done here fails."""
    try:
        yield
    except BaseException:
        manager.delete()
        raise


class CgroupManager(Figures, Protocol):
    """The fresh cgroup of one container: made, joined by the container itself, measured, removed."""

    def require(self, controllers: tuple[str, ...]) -> None:
        """Be in the groups of these controllers, too, from the next ``prepare`` or ``create`` on."""

    def prepare(self) -> None:
        """Make the group, without any limit; nothing half-made stays behind when it raises.

        Raises:
            HostError: The group cannot be made.
        """

    def create(self, resources: Resources) -> None:
        """Make what of the group was not prepared, and set all limits but the code's own.

        Nothing stays behind when it raises.

        Raises:
            HostError: The group cannot be made, or the kernel refuses a limit.
        """

    def entry_fds(self) -> tuple[int, ...]:
        """Return write descriptors; a single-threaded process that writes ``b"0"`` into each moves itself in."""

    def clone_fd(self) -> int | None:
        """Return the directory descriptor for ``clone3(CLONE_INTO_CGROUP)``; None where the kernel has no such way."""

    def begin(self) -> None:
        """Set the code's own limits, and take the baseline: figures count from here, as far as the kernel lets them.

        Raises:
            HostError: The kernel refuses a limit; the group stays, for there are tasks in it.
        """

    def restart_peak(self) -> bool:
        """Let the memory peak count from here; False where the kernel cannot."""

    def memory_use(self) -> MemoryUse | None:
        """Return what the memory of this moment consists of; None where the host does not say."""

    def memory_alarm(self, mark_bytes: int) -> tuple[int, int] | None:
        """Have the kernel tell when the memory in use, cached files included, passes ``mark_bytes``.

        Returns:
            A descriptor and the poll event that tells it; None where only looking helps. Called again it moves the
            mark of cgroup v2, and is for nothing with v1, whose first mark stays.
        """

    def alarm_heard(self) -> None:
        """Let the descriptor of ``memory_alarm`` wait for the next time."""

    def tasks_refused(self) -> int | None:
        """Return how often the limit of tasks has refused one; None where the kernel does not say."""

    def close(self) -> None:
        """Close all descriptors that the manager opened; the group stays."""

    def delete(self) -> None:
        """Remove the group, then close; waits a few seconds for tasks that are exiting.

        Raises:
            InternalError: The group is still in use after that.
        """
