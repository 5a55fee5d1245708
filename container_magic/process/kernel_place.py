"""Where the companion kernel has its sockets inside, for who makes them and who looks for them."""

DIRECTORY = ("dev", "shm", ".jupyter")
"""Name by name; what is mounted there can be written to when the root is read-only."""
PORTS = {"shell": 1, "iopub": 2, "stdin": 3, "control": 4, "hb": 5}
"""What Jupyter calls the ports of unix sockets: the ends of their names."""


def socket_name(channel: str) -> str:
    """Return the name of a channel's socket in the directory."""
    return f"socket-{PORTS[channel]}"
