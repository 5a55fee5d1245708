"""The host tree as root file system: which directories of the host a container sees.

An allow-list: the system's program directories and the interpreter with its environment. Home directories, /root,
/run, /var, /tmp, /opt and everything else are fresh and empty inside.
"""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Iterable
from dataclasses import replace

from container_magic.deferred import dataclass

SYSTEM_DIRECTORIES = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
# package stores whose interpreters need more than their own prefix
STORES = ("/nix/store", "/gnu/store")
VIEW = "/.container_magic"
"""Directory of the runtime's own things in the zygote's view of the host; never inside a container."""
TEMPLATE = f"{VIEW}/template"
"""Where the lowest layer of the containers' ``/`` is there."""


@dataclass(frozen=True, kw_only=True)
class Lower:
    """One directory of the host tree: ``path`` on the host and inside, ``view`` where the zygote sees it.

    ``environment`` marks the interpreter's own directories: their owner becomes the container's root, so that
    ``pip install`` works inside (under root by an idmapped mount, Linux 5.19).
    """

    path: str
    view: str
    environment: bool = False
    has_mounts: bool = False
    """Something is mounted below it that cannot be left out: overlayfs refuses such a lowerdir (CVE-2021-3732)."""


@dataclass(frozen=True, kw_only=True)
class HostTree:
    """The directories and the symbolic links of the top level (``/bin -> usr/bin``) that make up the host tree."""

    lowers: tuple[Lower, ...]
    links: tuple[tuple[str, str], ...] = ()


def host_tree(prefixes: Iterable[str]) -> HostTree:
    """Return the host tree for an interpreter with these ``prefixes`` (absolute paths).

    A directory that lies in another one of the list is left out, unless it is an environment: that gets an overlay
    of its own over the outer one.
    """
    links = tuple((path, os.readlink(path)) for path in SYSTEM_DIRECTORIES if os.path.islink(path))
    environments = _unnested(os.path.realpath(prefix) for prefix in prefixes)
    stores = [store for store in STORES if any(is_inside(path, store) for path in environments)]
    system = [path for path in SYSTEM_DIRECTORIES if os.path.isdir(path) and not os.path.islink(path)]
    plain = [path for path in (*system, *stores) if path not in environments]
    paths = sorted({*plain, *(path for path in environments if path != "/")})
    nested = {path for path in paths if any(is_inside(other, path) for other in paths)}
    lowers = tuple(
        Lower(
            path=path,
            view=f"{VIEW}/lower/{number}" if path in nested else path,
            environment=path in environments and path not in stores,
        )
        for number, path in enumerate(paths)
    )
    return HostTree(lowers=lowers, links=links)


def with_mounts(tree: HostTree, paths: Iterable[str]) -> HostTree:
    """Return ``tree`` with the lowers at ``paths`` marked as having mounts below them."""
    marked = set(paths)
    lowers = tuple(replace(lower, has_mounts=True) if lower.path in marked else lower for lower in tree.lowers)
    return replace(tree, lowers=lowers)


def interpreter_prefixes() -> tuple[str, ...]:
    """Return the directories of this interpreter and its environment, user site-packages included when in use."""
    prefixes = [sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix]
    user_site = site.getusersitepackages()
    if user_site in sys.path and os.path.isdir(user_site):
        prefixes.append(user_site)
    return tuple(dict.fromkeys(prefixes))


def is_inside(path: str, directory: str) -> bool:
    """Whether ``path`` lies below ``directory``, both absolute and in their shortest spelling."""
    return path != directory and path.startswith(directory.rstrip("/") + "/")


def _unnested(paths: Iterable[str]) -> list[str]:
    ordered = sorted(set(paths))
    return [path for path in ordered if not any(is_inside(path, other) for other in ordered)]
