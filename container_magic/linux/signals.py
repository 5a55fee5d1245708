"""Signal dispositions and masks that a process inherits (signal(7))."""

from __future__ import annotations

import signal

from container_magic.linux.syscalls import default_action

_LAST = 64


def reset_signals() -> None:
    """Give every signal its default action and unblock all.

    What the caller ignores (``nohup`` does so with SIGHUP) stays ignored through fork and exec. The two lowest
    real-time signals are the C library's own, which its functions refuse to touch.
    """
    for number in range(1, _LAST + 1):
        if number not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ):
            default_action(number)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
