"""Plans for a zygote's containers: made once for the same options, and named anew for each container."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from container_magic.deferred import dataclass
from container_magic.plan import Plan
from container_magic.planner import make_plan
from container_magic.process.handshake import dump_plan
from container_magic.runtime import client
from container_magic.runtime.pool import simple_key

if TYPE_CHECKING:
    from container_magic.runtime.client import Zygote
    from container_magic.spec import ContainerSpec, Resources

_MOST = 64


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A plan whose id is nobody's: a supervisor gives each container its own; and what ``dump_plan`` returns for it."""

    plan: Plan
    dumped: bytes


def planned(spec: ContainerSpec, zygote: Zygote) -> Planned:
    """Return a plan.

    One that was made before for an equal spec is made again only where it depends on what may have changed: on
    anything that the spec names on this host.

    Raises:
        ContainError: As ``make_plan``.
    """
    key = simple_key(spec)
    known = zygote.plans.get(key) if key is not None else None
    if known is not None:
        return known
    plan = make_plan(spec, zygote.features, zygote.tree.lowers, os.urandom(32).hex())
    made = Planned(plan=plan, dumped=dump_plan(plan))
    if key is not None and _names_nothing(spec):
        _keep(zygote.plans, key, made)
    return made


def plan_for(spec: ContainerSpec) -> Plan:
    """Return what would be done for ``spec`` on this host; starts nothing but the zygote.

    Raises:
        ContainError: As ``make_plan``.
    """
    return planned(spec, client.zygote(client.modules_of(spec.process))).plan


def _keep(plans: dict[int, Planned], key: int, made: Planned) -> None:
    while len(plans) >= _MOST:
        plans.pop(next(iter(plans)), None)
    plans[key] = made


def _names_nothing(spec: ContainerSpec) -> bool:
    return spec.process.kind == "python" and not spec.process.rlimits and not _devices(spec.resources)


def _devices(resources: Resources) -> bool:
    rates = (resources.device_read_bps, resources.device_write_bps)
    return any((*rates, resources.device_read_iops, resources.device_write_iops))
