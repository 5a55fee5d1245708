"""The supervisor: one per container at a time, on the host's side (containerd-shim's job).

It owns the cgroup, the state directory, the clock and the exit status, makes the container (``create``), lets it run
(``start``), watches its limits, and removes everything. All that the report says of the run comes from here, or from
the same files of the cgroup (``parting``); nothing that the payload writes can change it. A client that is gone ends
the container.

A client that wants more of the same keeps its supervisor: as soon as a container is removed, the next one is made
after the same plan and waits in ``created``. Each is used once; nothing of one reaches the next.
"""

from __future__ import annotations

import contextlib
import os
import signal

from container_magic.errors import ContainError
from container_magic.events import Created, Deleted, Exited, Failed, Started, to_dict
from container_magic.linux.scheduling import yielding
from container_magic.plan import Plan
from container_magic.process import handshake
from container_magic.process.zygote import Seat
from container_magic.runtime.clone import HANDED_OVER, Child, clone_child
from container_magic.runtime.cloner import Cloner
from container_magic.runtime.connection import ClientGoneError, Connection, Wakeup
from container_magic.runtime.container import Container
from container_magic.runtime.ground import Ground, new_ground

_LINGER_SECONDS = 0.020
"""Between the news that a run is over and the making of the next container: who shows a result has the CPUs."""


def supervise(seat: Seat, *, pattern: Plan) -> None:
    """Make what can be made ahead, wait for the request, then run and remove its containers; never raises.

    ``pattern`` is a plan like that to come: id maps and lowers are the same in all of one zygote.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    wakeup = Wakeup(seat.zygote_pid)
    container_id = os.urandom(32).hex()
    pattern = pattern.renewed(container_id)
    ahead, ground = None, None
    if "cg:unified" not in seat.standing:  # else a child is born into its cgroup, which has to have its limits then
        ahead = _try_ahead(pattern)
        ground = _try_ground(pattern, seat.standing)
    if not seat.is_asked():
        _rehearse(pattern)
    request = seat.await_request(wakeup.fd)
    if request is None:  # the child ahead dies with this process
        if ground is not None:
            ground.remove()
        return
    connection = Connection(request.fds["client"], wakeup.fd)
    plan = handshake.load_plan(request.fds["plan"]).renewed(container_id)
    if ahead is not None and HANDED_OVER[0] in request.fds:
        ahead.end()
        ahead = None
    cloner: Cloner | None = None
    while True:
        container = Container(plan, request.fds, seat.standing, connection, pattern, cloner, ground)
        if not _live(container, connection, ahead, _LINGER_SECONDS if request.keep else 0.0):
            break
        if not request.keep:
            break
        if cloner is None:
            with contextlib.suppress(OSError):  # no process to be had: this one can clone, too
                cloner = Cloner(plan)
        plan, ahead, ground = plan.renewed(os.urandom(32).hex()), None, None
    connection.flush()
    if cloner is not None:
        cloner.close()


def _live(container: Container, connection: Connection, ahead: Child | None, linger_seconds: float) -> bool:
    """Take one container through its life; return whether it ended by itself, with a client that hears of it."""
    try:
        container.create(ahead)
        with yielding():  # its client and its payload run, with nobody's help
            container.start(container.await_start())
            container.watch()
            connection.linger(linger_seconds)
    except ClientGoneError:
        return False
    except ContainError as error:
        connection.send(Failed(message=error.message, hint=error.hint, kind=type(error).__name__))
        return False
    except BaseException as error:
        connection.send(Failed(message=f"the supervisor failed: {type(error).__name__}: {error}"))
        return False
    finally:
        container.delete()
    return True


def _rehearse(pattern: Plan) -> None:
    """Read a plan and say things, for the pages that this writes to, while nobody waits."""
    plan = handshake.read_plan(handshake.dump_plan(pattern))
    created = Created(container_id=plan.container_id, startup={"clone": 0.001})
    for event in (created, Started(), Exited(exit_code=0), Deleted()):
        handshake.frame(to_dict(event))


def _try_ahead(pattern: Plan) -> Child | None:
    try:
        return clone_child(pattern, "none")
    except OSError:
        return None  # the request will meet the same error, and have a client to tell it to


def _try_ground(plan: Plan, standing: dict[str, int]) -> Ground | None:
    try:
        return new_ground(plan, standing)
    except (ContainError, OSError):
        return None  # as above
