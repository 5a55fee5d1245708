"""A zygote's start, seen from the client."""

from types import SimpleNamespace

from container_magic.host import probe
from container_magic.process import handshake
from container_magic.runtime import start


def test_boot_that_died_with_words_unread_is_found_out_by_waiting_for_its_answer():
    """The kernel reports that death to the next sender as a reset (unix(7)); what was wrong only boot's words tell."""
    ours, theirs = handshake.pair()
    with ours:
        ours.send(b"never read")
        theirs.close()
        start._send_config(SimpleNamespace(control=ours), probe())
