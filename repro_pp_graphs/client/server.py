"""Where requests go, and how; what a connection that fails is called."""

from __future__ import annotations

import re
import socket
from typing import Any
from urllib.parse import urlsplit

import requests

from .clock import ask_for_stamps
from .handover import HandOverAdapter
from .key import authorization
from .options import PATHS, Options

NO_SERVER = ("refused:", "connection:")  # kinds of errors, as describe_io_error has them
NO_HTTP = re.compile(r"(?:BadStatusLine|InvalidChunkLength)\((?:got length )?b?'([^']+)'")
OWNER = re.compile(r"^(<[^>]*>|\w+\([^)]*\)): ")  # urllib3 begins with the connection it concerns


class Server:
    """Where requests go, and how: headers, proxies and certificates as `requests` sees them."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.url = options.base_url + PATHS[options.backend]
        self.parts = urlsplit(self.url)
        self.session = requests.Session()
        self._prepared: requests.PreparedRequest | None = None
        self.adapter = HandOverAdapter()
        self._keeps_stamping = socket.socket(type=socket.SOCK_DGRAM)
        ask_for_stamps(self._keeps_stamping)  # the first socket that asks waits for its stamps
        loopback = self.parts.hostname in ("localhost", "127.0.0.1", "::1")
        if loopback and self.parts.scheme == "http":
            self.session.trust_env = False  # a proxy from the environment cannot reach it
        self.headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream",
            "Accept-Encoding": "identity",
            **authorization(),
        }
        self.settings: dict[str, Any] = {
            **self.session.merge_environment_settings(self.url, {}, True, None, None)
        }

    def plain(self) -> bool:
        """Whether a bare socket reaches the server: http, and no proxy in between."""
        proxy = requests.utils.select_proxy(self.url, self.settings["proxies"])
        return self.parts.scheme == "http" and proxy is None

    def prepare(self, body: bytes) -> requests.PreparedRequest:
        """The request as `requests` makes it; all but the body is made once."""
        if self._prepared is None:
            request = requests.Request("POST", self.url, headers=self.headers)
            self._prepared = self.session.prepare_request(request)
        prepared = self._prepared.copy()
        prepared.prepare_body(body, None)
        return prepared

    def model(self) -> str:
        """The served model's name, or "default" where the server does not say."""
        if self.options.model:
            return self.options.model
        try:
            reply = self.session.get(
                f"{self.options.base_url}/v1/models", headers=self.headers, timeout=5
            )
            return str(reply.json()["data"][0]["id"])
        except (requests.RequestException, ValueError, LookupError, TypeError, RecursionError):
            return "default"


def describe_io_error(exc: OSError, what: str, url: str) -> str:
    """`kind: detail` for a connection that failed while `what`; `requests` hides causes in text."""
    cause = getattr(exc.args[0] if exc.args else None, "reason", None) or exc
    text = OWNER.sub("", str(cause))
    if "Connection refused" in text:
        return f"refused: nothing listens at {url}; is the server up?"
    if isinstance(exc, TimeoutError) or "timed out" in text:
        return f"stalled: timed out while {what}"
    if isinstance(exc, ConnectionError) or "reset by peer" in text:
        return f"reset: while {what}: {text}"
    no_http = NO_HTTP.search(text)
    if no_http or isinstance(exc, requests.exceptions.ContentDecodingError):
        return f"malformed: {f'not HTTP: {no_http[1]}' if no_http else text}"
    if isinstance(exc, requests.exceptions.ChunkedEncodingError):
        return "truncated: the connection closed in the middle of the response"
    return f"connection: while {what}: {text}"
