"""Whose server answers: sockets of this machine and the processes that hold them."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from repro_pp_graphs.server.machine import listener, process
from repro_pp_graphs.server.machine.listener import (
    Listener,
    UnknownHostError,
    is_forbidden,
    is_free,
    listeners,
    owner,
)

LISTEN = """
import socket, sys
both = sys.argv[1] == "::"
server = socket.create_server((sys.argv[1], 0), family=int(sys.argv[2]), dualstack_ipv6=both)
print(server.getsockname()[1], flush=True)
sys.stdin.read()
"""
NOBODY = 2**22 + 1  # above the highest pid


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="needs IPv6")


@contextlib.contextmanager
def listening(
    host: str, family: int = socket.AF_INET, *wrapper: str
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process, started through `wrapper`, that listens at a host; it and its port."""
    command = [*wrapper, sys.executable, "-c", LISTEN, host, str(int(family))]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, start_new_session=True, **pipes) as started:
        yield started, int(started.stdout.readline())
        started.stdin.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost", ""])
def test_a_process_of_ours_and_one_that_is_not_are_told_apart(host):
    with listening("127.0.0.1" if host != "0.0.0.0" else host) as (server, port):
        assert owner(host, port, server.pid) == (True, "")
        ours, stranger = owner(host, port, NOBODY)
        assert not ours
        assert stranger == f"pid {server.pid} ({process.name(server.pid)})"


@pytest.mark.parametrize(
    "wrapper",
    [
        ("bash", "-c", '"$@" <&0 & wait', "child"),
        ("bash", "-c", 'setsid "$@" <&0 & wait', "another session"),
        ("bash", "-c", '(setsid "$@" <&0 & wait); true', "grandchild"),
    ],
)
def test_a_servers_child_is_the_server_too(wrapper):
    with listening("127.0.0.1", socket.AF_INET, *wrapper) as (leader, port):
        assert owner("127.0.0.1", port, leader.pid) == (True, "")


def test_nobody_at_all_is_neither():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        assert owner("127.0.0.1", bound.getsockname()[1], os.getpid()) == (False, "")


def test_a_socket_whose_process_may_not_be_looked_into_is_nobodys(monkeypatch):
    with listening("127.0.0.1") as (server, port):
        monkeypatch.setattr(process, "socket_inodes", lambda pids: set())
        assert owner("127.0.0.1", port, server.pid) == (False, "")


def test_two_that_share_a_port_are_not_taken_for_one():
    with socket.socket() as ours, socket.socket() as other:
        for each in (ours, other):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        ours.bind(("127.0.0.1", 0))
        port = ours.getsockname()[1]
        other.bind(("127.0.0.1", port))
        for each in (ours, other):
            each.listen()
        command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
        shared = (other.fileno(),)
        with subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=shared) as stranger:
            other.close()
            assert owner("127.0.0.1", port, NOBODY).stranger
            assert not owner("127.0.0.1", port, stranger.pid).ours
            stranger.stdin.close()


@needs_ipv6
def test_ipv6_addresses_are_found_too():
    with listening("::1", socket.AF_INET6) as (server, port):
        assert owner("::1", port, server.pid) == owner("[::1]", port, server.pid) == (True, "")
        assert owner("127.0.0.1", port, server.pid) == (False, "")
        assert not is_free("::1", port) and is_free("127.0.0.1", port)
    with listening("::", socket.AF_INET6) as (server, port):
        assert owner("::", port, server.pid) == owner("127.0.0.1", port, server.pid) == (True, "")
        assert not is_free("127.0.0.1", port)


def test_the_kernels_tables_are_read():
    head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"
    rest = "00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0"
    rows = [
        f"   0: 0100007F:7530 00000000:0000 0A {rest}",
        f"   1: 0100007F:7531 00000000:0000 01 {rest}",  # a connection
        f"   2: 00000000000000000000000001000000:0050 {'0' * 32}:0000 0A {rest}",
        f"   3: 0000000000000000FFFF00000100007F:0051 {'0' * 32}:0000 0A {rest}",
        "   4: broken",
    ]
    if sys.byteorder == "little":
        assert listeners(head + "\n".join(rows)) == [
            Listener("127.0.0.1", 30000, "4711"),
            Listener("::1", 80, "4711"),
            Listener("127.0.0.1", 81, "4711"),
        ]


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:30000"),
        ("0.0.0.0", "http://127.0.0.1:30000"),
        ("", "http://127.0.0.1:30000"),
        ("::", "http://[::1]:30000"),
        ("::1", "http://[::1]:30000"),
        ("[::1]", "http://[::1]:30000"),
        ("10.1.2.3", "http://10.1.2.3:30000"),
        ("gpu7", "http://gpu7:30000"),
    ],
)
def test_a_server_is_asked_where_it_listens(host, url):
    assert listener.url(host, 30000) == url


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_a_host_that_is_not_this_machine_is_told(host):
    with pytest.raises(UnknownHostError, match=f"--host {host}: "):
        is_free(host, 30000)


class Unprivileged(socket.socket):
    """A socket of a user who is not root, at a port below 1024."""

    def bind(self, address: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")


def test_a_port_that_only_root_may_take_is_told_from_one_in_use(monkeypatch):
    with listening("127.0.0.1") as (_, port):
        assert not is_forbidden("127.0.0.1", port)
        monkeypatch.setattr(listener.socket, "socket", Unprivileged)
        assert is_forbidden("127.0.0.1", port)
        assert not is_free("127.0.0.1", port)
        assert is_free("127.0.0.1", 1 if port != 1 else 2)


def test_a_family_is_the_process_its_descendants_and_its_session():
    command = ["bash", "-c", "sleep 600 & (sleep 600 & wait) & echo ready; wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as leader:
        try:
            leader.stdout.readline()
            found = process.family(leader.pid)
            assert leader.pid in found and os.getpid() not in found
            assert {process.name(pid) for pid in found} <= {"bash", "sleep"} and len(found) >= 3
        finally:
            os.killpg(leader.pid, 9)


def test_what_slurm_started_for_it_is_of_its_family(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as leader:
        env = {**os.environ, process.MARK: str(leader.pid)}
        command = ["bash", "-c", "echo ready; read"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(command, env=env, start_new_session=True, **pipes) as other:
            other.stdout.readline()
            found = process.family(leader.pid), process.session(leader.pid)
            other.kill()
        leader.kill()
    assert [sorted(pids) for pids in found] == [sorted({leader.pid, other.pid})] * 2


def test_a_recycled_pid_has_another_start():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as one:
        ticks = process.start_ticks(one.pid)
        stat = Path(f"/proc/{one.pid}/stat").read_text()
        assert ticks == stat.rpartition(")")[2].split()[19]
        one.kill()
    assert process.start_ticks(one.pid) == ""
