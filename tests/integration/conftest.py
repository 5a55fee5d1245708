"""Containers for tests; nothing of them may be left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command import contain  # noqa: F401 - a fixture
from defaults import DEFAULTS
from leftovers import adopt_orphans, nothing_left  # noqa: F401 - fixtures

import container_magic as cm
from container_magic.events import Created, Event, Started
from container_magic.options import from_keywords
from container_magic.verbs.run import dry_run


@pytest.fixture
def run() -> Callable[..., cm.RunReport]:
    """Return ``cm.run`` for indented source, with a memory limit and a time limit unless others are given."""

    def run(source: Any, **options: Any) -> cm.RunReport:
        return cm.run(_source(source), **{**DEFAULTS, **options})

    return run


@pytest.fixture
def inside(run: Callable[..., cm.RunReport]) -> Callable[..., Any]:
    """Return a function that runs code in a container and returns what it hands to ``answer(...)``, through JSON."""

    def inside(source: str, **options: Any) -> Any:
        report = run("import json as _json\n_answer = {}\n" + textwrap.dedent(_HELPERS) + _source(source), **options)
        assert report.ok, f"{report.verdict}: {report.stderr or report.error}"
        return json.loads(report.stdout.rsplit("\x1e", 1)[1])

    return inside


_HELPERS = '''
import errno as _errno
def answer(value):
    print("\\x1e" + _json.dumps(value))
def error_of(function, *args, **keywords):
    """Return the errno name of the OSError that the call raises, None when it succeeds."""
    try:
        function(*args, **keywords)
    except OSError as error:
        return _errno.errorcode.get(error.errno, str(error.errno))
    return None
'''


def _source(source: Any) -> Any:
    return textwrap.dedent(source) if isinstance(source, str) else source


@pytest.fixture
def needs() -> Callable[..., None]:
    """Return a function that skips the test when this host cannot enforce the given options."""

    def needs(**options: Any) -> None:
        try:
            dry_run(from_keywords(options).spec)
        except cm.HostError as error:
            pytest.skip(str(error))

    return needs


@dataclass
class Live:
    """A container that runs: its events so far and those to come."""

    iterator: Iterator[Event]
    created: Created
    seen: list[Event]

    def rest(self) -> list[Event]:
        """Return all events once it has ended."""
        self.seen += self.iterator
        return self.seen

    def until(self, wanted: Callable[[Event], bool]) -> Event:
        """Return the next event that is ``wanted``."""
        for event in self.iterator:
            self.seen.append(event)
            if wanted(event):
                return event
        raise AssertionError(f"never came: {self.seen}")


@pytest.fixture
def live() -> Iterator[Callable[..., Live]]:
    """Return a function that starts a container and returns once its code runs; it is ended after the test."""
    opened: list[Iterator[Event]] = []

    def live(source: Any, **options: Any) -> Live:
        iterator = cm.stream(_source(source), **{**DEFAULTS, **options})
        opened.append(iterator)
        seen: list[Event] = []
        for event in iterator:
            seen.append(event)
            if isinstance(event, Started):
                break
        created = next(event for event in seen if isinstance(event, Created))
        return Live(iterator=iterator, created=created, seen=seen)

    yield live
    for iterator in opened:
        iterator.close()  # type: ignore[attr-defined]


@pytest.fixture
def client_process(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return a function that starts a Python process of its own which uses the package; killed after the test."""
    started: list[subprocess.Popen[str]] = []

    def client_process(source: str, *args: str, **keywords: Any) -> subprocess.Popen[str]:
        path = tmp_path / f"client{len(started)}.py"
        path.write_text(textwrap.dedent(source))
        keywords = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **keywords}
        process = subprocess.Popen([sys.executable, "-u", path, *args], env=dict(os.environ), **keywords)
        started.append(process)
        return process

    yield client_process
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()


@pytest.fixture
def session(request):
    """Return a function that begins a session with the module's ``OPTIONS`` and others; every one is ended."""
    begun = []

    def begin(**options):
        begun.append(cm.Session(**{**request.module.OPTIONS, **options}))
        return begun[-1]

    yield begin
    for one in begun:
        one.stop()
