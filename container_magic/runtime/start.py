"""Starts a zygote: boot in a process of its own, in a systemd scope where only that gives a cgroup."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import socket
import time
from collections.abc import Sequence
from typing import Any

from container_magic.cgroups.facts import CgroupFacts
from container_magic.cgroups.facts import probe as probe_cgroups
from container_magic.cgroups.prepare import open_bases, prepare
from container_magic.cgroups.scope import launcher_environment, scope_launcher, without_scope
from container_magic.deferred import dataclass
from container_magic.errors import HostError, OptionError
from container_magic.host import HostFeatures, with_cgroups, with_subordinate
from container_magic.planner import make_plan
from container_magic.process import launch, shells
from container_magic.process.boot import BootConfig
from container_magic.process.handshake import dump_plan, memory_file
from container_magic.rootfs.host import HostTree, host_tree, interpreter_prefixes, with_mounts
from container_magic.spec import ContainerSpec, Process

_START_SECONDS = 60.0
_DEATH_CHECK_SECONDS = 0.05
_MESSAGE_BYTES = 65536


@dataclass(frozen=True, kw_only=True)
class StartedZygote:
    """A zygote that answers: its process, its control socket, and the facts that plans for it are made with."""

    process: launch.Process
    control: socket.socket
    features: HostFeatures
    tree: HostTree


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a zygote is wanted for: where its containers keep their state, what it imports before.

    ``once``: it serves one request, and spends nothing on a second one.
    """

    directory: str
    preload: tuple[str, ...] = ()
    once: bool = False


def start_zygote(features: HostFeatures, wish: Wish, early: launch.Boot | None = None) -> StartedZygote:
    """Start a zygote.

    What can be done with less is tried with less: without a scope the limits are refused one by one, without
    subordinate ids ``--user`` is.

    Args:
        features: The facts of this host.
        wish: What it is for.
        early: A boot that this process has forked already; it is used, or ended where it is of no use.

    Raises:
        HostError: Containers cannot be made on this host; the message says why.
        OptionError: One of the modules cannot be imported.
    """
    launcher = scope_launcher(features.cgroups)
    if early is not None and launcher:
        early.abandon()
    elif early is not None:
        with contextlib.suppress(HostError):  # begun anew it says what is wrong, or does with less
            return _greeted(early, _prepared(features, ""), wish)
    no_scope = ""
    for ids in dict.fromkeys((features.subordinate, None)):
        # the helpers may be there and refuse (not set-user-ID, a map of their own): one id then
        attempt = with_subordinate(features, ids) if features.rootless else features
        for words in dict.fromkeys((launcher, ())):
            try:
                return _start(attempt if words else _prepared(attempt, no_scope), wish, words)
            except HostError as error:
                failure = error
                no_scope = error.message if words else no_scope
    raise failure


def _prepared(features: HostFeatures, no_scope: str) -> HostFeatures:
    """Return ``features`` with what groups this process can make ready itself; ``no_scope``: why not in a scope."""
    cgroups = prepare(features.cgroups)
    return with_cgroups(features, without_scope(cgroups, no_scope) if no_scope else cgroups)


def _start(features: HostFeatures, wish: Wish, launcher: Sequence[str]) -> StartedZygote:
    boot = launch.spawn(launcher, launcher_environment() if launcher else None)
    try:
        _receive(boot)
        if launcher:
            features = with_cgroups(features, _cgroups_of(boot.process.pid))
        _send_config(boot, features)
    except BaseException:
        boot.abandon()
        raise
    return _greeted(boot, features, wish)


def _greeted(boot: launch.Boot, features: HostFeatures, wish: Wish) -> StartedZygote:
    """Tell the zygote that ``boot`` becomes what it is for, and wait until it says that it is ready."""
    try:
        tree = host_tree(interpreter_prefixes())
        _send_order(boot, features, tree, wish)
        tree = with_mounts(tree, _checked(_receive(boot)))
    except BaseException:
        boot.abandon()
        raise
    boot.close_complaints()
    return StartedZygote(process=boot.process, control=boot.control, features=features, tree=tree)


def _cgroups_of(pid: int) -> CgroupFacts:
    return prepare(probe_cgroups(pid=pid, process=str(pid)), pid)


def _checked(answer: dict[str, Any]) -> list[str]:
    """Return the lowers that have mounts below them, unless the zygote could not import what it should."""
    if "failed" in answer:
        raise OptionError(
            f"cannot preload {answer['failed']}: {answer['reason']}",
            hint="it has to be importable in this environment",
        )
    has_mounts: list[str] = answer["has_mounts"]
    return has_mounts


def _send_config(boot: launch.Boot, features: HostFeatures) -> None:
    config = BootConfig(
        tree=host_tree(interpreter_prefixes()),
        rootless=features.rootless,
        id_mappings=features.id_mappings,
        subordinate=features.subordinate,
    )
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died: the wait for its answer says so
        boot.control.send(json.dumps(dataclasses.asdict(config)).encode())


def _likely_process(wish: Wish) -> Process:
    """Return what most requests ask for: what `run` and the cell magic do with nothing said but limits.

    Nothing of a request is ever in it: what a zygote knows, every container of it could read in its memory.
    """
    preload = tuple(name for name in wish.preload if name not in (shells.IPYTHON_SHELL, shells.KERNEL_SHELL))
    if shells.IPYTHON_SHELL in wish.preload:
        return Process(shell="ipython", preload=preload, print_traceback=False)
    return Process(shell="script" if wish.once else "plain", preload=preload)


def _send_order(boot: launch.Boot, features: HostFeatures, tree: HostTree, wish: Wish) -> None:
    """Tell the zygote what it is for, with descriptors of this process, the cgroups and the state's directory."""
    fds: dict[str, int] = {}
    bases = open_bases(features.cgroups.bases)
    try:
        fds.update({f"cg:{key}": fd for key, fd in bases.items()})
        fds["client"] = os.pidfd_open(os.getpid())
        fds["runtime"] = os.open(wish.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        pattern = make_plan(ContainerSpec(process=_likely_process(wish)), features, tree.lowers, "0" * 64)
        fds["pattern"] = memory_file("pattern", dump_plan(pattern))
        order = {"fds": list(fds), "preload": wish.preload, "once": wish.once}
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died: the wait for its answer says so
            socket.send_fds(boot.control, [json.dumps(order).encode()], list(fds.values()))
    finally:
        for fd in set(fds.values()) | set(bases.values()):
            os.close(fd)


def _receive(boot: launch.Boot) -> dict[str, Any]:
    """Return the next message; a spawned boot's first says nothing, the zygote's how far it has come.

    Raises:
        HostError: The process has died instead, or says nothing for a minute.
    """
    process, control = boot.process, boot.control
    deadline = time.monotonic() + _START_SECONDS
    # the end of the socket, or the death of a launcher that never knew of it
    while process.poll() is None and time.monotonic() < deadline:
        if select.select([control], [], [], _DEATH_CHECK_SECONDS)[0]:
            message = b""
            with contextlib.suppress(ConnectionResetError):  # it died with something of ours unread
                message = control.recv(_MESSAGE_BYTES)
            if message:
                answer: dict[str, Any] = json.loads(message)
                return answer
            process.wait(_START_SECONDS)
    if process.poll() is None:
        raise HostError(
            f"cannot start the zygote: no answer within {_START_SECONDS:g} s", hint="try again: the host is slow"
        )
    reason = boot.complaint() or f"exit status {process.returncode}"
    raise HostError(f"cannot start the zygote: {reason}", hint="`contain doctor` says what this host can do")
