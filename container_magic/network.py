"""Networks of a container: ``none`` (loopback only) and ``host``."""

from __future__ import annotations

import fcntl
import os
import socket
import struct

from container_magic.linux import constants as c

_IFREQ = struct.Struct("16sH22x")


def open_low_ports() -> None:
    """Let every port of this network namespace be bound without a capability, as Docker does (ip-sysctl)."""
    fd = os.open("/proc/sys/net/ipv4/ip_unprivileged_port_start", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"0")
    finally:
        os.close(fd)


def bring_up_loopback() -> None:
    """Set ``lo`` of this network namespace up; the kernel gives it 127.0.0.1 and ::1 (netdevice(7)).

    One ioctl: a netlink library would take longer to import than a container to make.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        request = fcntl.ioctl(sock, c.SIOCGIFFLAGS, _IFREQ.pack(b"lo", 0))
        _, flags = _IFREQ.unpack(request)
        fcntl.ioctl(sock, c.SIOCSIFFLAGS, _IFREQ.pack(b"lo", flags | c.IFF_UP))
