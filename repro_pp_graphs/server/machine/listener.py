"""Who listens on a port of this machine: the server that was started, or somebody else?"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import re
import socket
import struct
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from repro_pp_graphs.server.machine import process

LOOPBACK = "127.0.0.1"
# --host of a server that listens at every address, and where to reach that server
EVERYWHERE = {"": LOOPBACK, "0.0.0.0": LOOPBACK, "::": "::1"}
OUSTED = "is not the one that answers"  # of a server: another one has its port
_LISTEN = "0A"  # a socket's state in /proc/net/tcp


class UnknownHostError(OSError):
    """A --host that is no address of this machine."""


class Owner(NamedTuple):
    """Who answers at an address. Neither where no process of it can be seen: another user's, or
    one in another network namespace."""

    ours: bool
    stranger: str  # pid 4242 (python3)


class Listener(NamedTuple):
    """A listening socket; `inode` is its number in /proc/PID/fd."""

    address: str
    port: int
    inode: str


def reach(host: str) -> str:
    """The address at which a server with that --host can be asked."""
    return EVERYWHERE.get(host.strip("[]"), host.strip("[]"))


def url(host: str, port: int) -> str:
    """`http://127.0.0.1:30000`, IPv6 addresses in brackets."""
    address = reach(host)
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def accepts(base_url: str) -> bool:
    """Does anything accept connections there?"""
    parts = urlsplit(base_url)
    try:
        default = 443 if parts.scheme == "https" else 80
        socket.create_connection((parts.hostname or "", parts.port or default), 0.5).close()
    except OSError:
        return False
    return True


def is_free(host: str, port: int) -> bool:
    """Does nobody listen there? Connections in TIME_WAIT do not count.

    Raises UnknownHostError for a host that is not an address of this machine.
    """
    failed = _bound(host, port)
    return not (_inodes(host, port) if failed == errno.EACCES else failed)


def is_forbidden(host: str, port: int) -> bool:
    """Is the port one of those at which this user may not listen, as those below 1024 are to all
    but root? Raises UnknownHostError."""
    return _bound(host, port) == errno.EACCES


def _bound(host: str, port: int) -> int:
    """Bind the port for a moment: 0, or EADDRINUSE or EACCES. Raises UnknownHostError."""
    for family, address in _resolved(host.strip("[]") or LOOPBACK, port):
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probe.bind(address)
            except OSError as error:
                if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    raise UnknownHostError(f"--host {host}: {error.strerror}") from None
                return error.errno
    return 0


def _resolved(host: str, port: int) -> list[tuple[int, tuple[str, int]]]:
    """(family, address) of a host. Raises UnknownHostError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise UnknownHostError(f"--host {host}: {error.strerror or error}") from None
    return list(dict.fromkeys((family, (str(to[0]), port)) for family, _, _, _, to in found))


def listeners(text: str) -> list[Listener]:
    """The listening sockets in the text of /proc/net/tcp or tcp6."""
    found = []
    for line in text.splitlines()[1:]:
        cells = line.split()
        if len(cells) > 9 and cells[3] == _LISTEN:
            address, _, port = cells[1].partition(":")
            found.append(Listener(_address(address), int(port, 16), cells[9]))
    return found


def _address(hexadecimal: str) -> str:
    """An address as the kernel prints it, in 32-bit words of this machine's byte order; IPv4 ones
    inside IPv6 as IPv4."""
    words = re.findall("." * 8, hexadecimal)
    packed = b"".join(struct.pack("=I", int(word, 16)) for word in words)
    address = ipaddress.ip_address(packed)
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def at(host: str, port: int, sockets: list[Listener]) -> list[Listener]:
    """Those of the sockets that a connection to host and port may reach."""
    wanted = {to[0] for _, to in _resolved(reach(host), port)}
    on_port = [each for each in sockets if each.port == port]
    exact = [each for each in on_port if each.address in wanted]
    return exact or [each for each in on_port if each.address in ("0.0.0.0", "::")]


def _inodes(host: str, port: int) -> set[str]:
    """The sockets that a connection to host and port may reach."""
    sockets = []
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            sockets += listeners(Path("/proc/net", name).read_text(encoding="ascii"))
    return {each.inode for each in at(host, port, sockets)}


def pid_of(host: str, port: int) -> int | None:
    """The process that a connection to host and port reaches; None where it cannot be seen.
    Raises UnknownHostError."""
    pids = (pid for inode in sorted(_inodes(host, port)) for pid in process.owners(inode))
    return next(pids, None)


def owner(host: str, port: int, pid: int) -> Owner:
    """Whose the sockets are that a connection to host and port may reach: `pid` is the server
    that was started there. Raises UnknownHostError."""
    found = _inodes(host, port)
    others = found - process.socket_inodes(process.family(pid))
    for inode in sorted(others):
        if pids := process.owners(inode):
            return Owner(False, f"pid {pids[0]} ({process.name(pids[0])})")
    return Owner(bool(found) and not others, "")
