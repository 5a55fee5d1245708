"""What a container stands on outside: its state directory and its cgroups, which can be made before it is asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from container_magic.cgroups import CgroupManager, open_manager
from container_magic.deferred import dataclass
from container_magic.errors import ContainError
from container_magic.plan import Plan
from container_magic.runtime.state import StateDirectory


@dataclass(frozen=True, kw_only=True)
class Ground:
    """The directory and the groups of the container ``container_id``; limits, and a state, are still to be written."""

    container_id: str
    setup: str
    state: StateDirectory
    cgroup: CgroupManager

    def fits(self, plan: Plan) -> bool:
        """Whether the groups are of the kind that ``plan`` wants."""
        return self.container_id == plan.container_id and self.setup == plan.cgroup_setup

    def remove(self) -> None:
        """Remove both; what cannot be removed is swept by the next zygote."""
        with contextlib.suppress(ContainError, OSError):
            self.cgroup.delete()
            self.state.remove()


def new_ground(plan: Plan, standing: Mapping[str, int]) -> Ground:
    """Make the state directory, note in it where the groups will be, and make them.

    Raises:
        ContainError: A group cannot be made; nothing is left.
        OSError: The directory cannot be made.
    """
    state = StateDirectory(standing["runtime"], plan.container_id)
    try:
        state.write_cgroups(plan.cgroup_paths)
        bases = {key[3:]: fd for key, fd in standing.items() if key.startswith("cg:")}
        cgroup = open_manager(plan.cgroup_setup, bases, plan.cgroup_name, plan.cgroup_controllers)
        cgroup.prepare()
    except BaseException:
        state.remove()
        raise
    return Ground(container_id=plan.container_id, setup=plan.cgroup_setup, state=state, cgroup=cgroup)
