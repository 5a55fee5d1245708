"""Control groups: what a container may use, and what it has used."""

from __future__ import annotations

from collections.abc import Mapping

from container_magic.cgroups.manager import CgroupManager, Figures, Handover, MemoryUse, Sample
from container_magic.forks import importing

__all__ = ["CgroupManager", "Figures", "Handover", "MemoryUse", "Sample", "figures_of", "open_manager"]


def open_manager(setup: str, bases: Mapping[str, int], name: str, controllers: tuple[str, ...]) -> CgroupManager:
    """Return the manager for a container's cgroup ``name``; nothing is made yet.

    Args:
        setup: ``CgroupFacts.setup``.
        bases: Keys of ``CgroupFacts.bases`` -> directory descriptors, open as long as the manager is used.
        name: Name of the group to make.
        controllers: ``Assessment.controllers``.
    """
    if setup == "unified" and "unified" in bases:
        from container_magic.cgroups.v2 import V2Manager

        return V2Manager(bases["unified"], name)
    if setup in ("legacy", "hybrid") and any(controller in bases for controller in controllers):
        from container_magic.cgroups.v1 import V1Manager

        return V1Manager(bases, name, controllers)
    from container_magic.cgroups.none import NoCgroupManager

    return NoCgroupManager()


def figures_of(handover: Handover) -> Figures:
    """Return the figures that another process has handed over."""
    with importing:  # by the first run, of whichever thread
        if handover.version == 1:
            from container_magic.cgroups.v1_figures import V1Figures

            return V1Figures(handover)
        from container_magic.cgroups.v2_figures import V2Figures

        return V2Figures(handover)
