"""The command line as a user calls it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def contain() -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Return a function that runs ``contain`` with words and returns the finished process, output as bytes."""

    def contain(*words: Any, **keywords: Any) -> subprocess.CompletedProcess[bytes]:
        keywords = {"stdin": subprocess.DEVNULL} | keywords if "input" not in keywords else keywords
        command = [sys.executable, "-m", "container_magic", *map(os.fspath, words)]
        return subprocess.run(command, capture_output=True, timeout=100, check=False, **keywords)

    return contain
