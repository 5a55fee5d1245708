"""The pool between threads: a worker that one takes is not closed by another that ends the pool."""

from __future__ import annotations

import threading
from typing import Any, cast

from container_magic.runtime.pool import Pool
from container_magic.runtime.worker import Worker


class Waiting:
    """What the pool asks of a worker; ``settle`` lets a test stop in the middle of ``take``."""

    keep = True
    broken = False
    failure = ""
    created = None

    def __init__(self) -> None:
        self.lost = False
        self.at_settle = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def leave(self) -> None:
        """Have nothing to spare anybody."""

    def settle(self) -> None:
        """Take note of nothing."""
        self.at_settle.set()
        assert self.go_on.wait(10)

    def close(self) -> None:
        """Be lost."""
        self.lost = True


def test_worker_taken_while_the_pool_is_closed_is_not_closed() -> None:
    """Whoever takes it first has it, and whoever ends the pool waits until it is taken."""
    pool, worker = Pool(), Waiting()
    pool.put("key", cast(Worker, worker), 1)
    worker.go_on.clear()
    taken: list[Any] = []
    taker = threading.Thread(target=lambda: taken.append(pool.take("key")))
    taker.start()
    assert worker.at_settle.wait(10)
    closer = threading.Thread(target=pool.close)
    closer.start()
    closer.join(0.2)
    worker.go_on.set()
    taker.join(10)
    closer.join(10)
    assert taken == [worker]
    assert not worker.lost


def test_worker_put_into_a_closed_pool_is_closed() -> None:
    """A run that outlives its zygote's pool leaves no supervisor behind."""
    pool, worker = Pool(), Waiting()
    pool.close()
    assert pool.put("key", cast(Worker, worker), 1) == 0
    assert worker.lost
    assert pool.take("key") is None
