"""Sockets taken out of `requests` once it has sent, before a byte of the answer is read."""

from __future__ import annotations

import socket
import ssl
from collections import deque
from collections.abc import Sequence
from typing import Any, ClassVar

import requests
import urllib3

from .clock import ask_for_stamps, clock_ns


class HandOver(Exception):
    """Takes a socket out of `requests`: the request is written, no byte of the answer read."""

    def __init__(self, sock: socket.socket, sent_ns: int) -> None:
        self.sock, self.sent_ns = sock, sent_ns


class _HandsOver(urllib3.connection.HTTPConnection):
    """A connection that gives its socket away where it would wait for the answer's head.

    `requests` would return only with the head and with what else had come, buffered and unstamped.
    """

    opened: ClassVar[deque[socket.socket]] = deque()

    def connect(self) -> None:
        if self.opened:
            self.sock = self.opened.popleft()
        else:
            super().connect()

    def request(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        if self.sock is None:
            self.connect()
        if isinstance(self.sock, socket.socket):
            ask_for_stamps(self.sock)
        self._sent_ns = clock_ns()
        super().request(*args, **kwargs)

    def getresponse(self) -> Any:  # noqa: ANN401
        if not isinstance(self.sock, socket.socket):
            return super().getresponse()  # TLS inside TLS is no socket that can be waited for
        sock, self.sock = self.sock, None
        raise HandOver(sock, self._sent_ns)


class _HandsOverTls(_HandsOver, urllib3.connection.HTTPSConnection):
    pass


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HandsOver


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HandsOverTls


class HandOverAdapter(requests.adapters.HTTPAdapter):
    """Sends like `requests`, through proxies and TLS too, and raises HandOver once it has sent."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> urllib3.ProxyManager:  # noqa: ANN401
        manager: urllib3.ProxyManager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = self.poolmanager.pool_classes_by_scheme
        return manager


def receive_tls(
    sock: ssl.SSLSocket, buffers: Sequence[memoryview], _: int
) -> tuple[int, None, int, None]:
    """recvmsg_into for TLS: all that is decrypted. No stamp: which packet's would it be?"""
    size = sock.recv_into(buffers[0])
    while sock.pending():
        size += sock.recv_into(buffers[0][size:])
    return size, None, 0, None
