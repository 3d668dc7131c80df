"""The ports of a run: free or busy, and each busy one named once."""

from __future__ import annotations

import contextlib
import socket

import pytest
from gpu_plans import launch
from made_up_run import plan

from repro_pp_graphs.run.checks import preflight
from repro_pp_graphs.server.machine.listener import LOOPBACK, is_free


@contextlib.contextmanager
def listener(address: str = "127.0.0.1"):
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, 0))
        server.listen()
        yield server


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_port_is_free_once_nobody_listens(address):
    with listener(address) as server:
        port = server.getsockname()[1]
        assert not is_free(LOOPBACK, port)
    assert is_free(LOOPBACK, port)


def test_a_connection_in_time_wait_does_not_hold_a_port():
    with listener() as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            server.accept()[0].close()  # the side that closes first waits
    assert is_free(LOOPBACK, port)


def test_each_busy_port_is_named_once():
    with listener() as server:
        port = server.getsockname()[1]
        (problem,) = preflight.check_ports(plan(launch(port=port), launch(label="B", port=port)))
    assert str(port) in problem and "--port" in problem
