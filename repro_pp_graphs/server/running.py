"""A server that somebody else started: what it says of itself, or why it cannot be measured."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests

from repro_pp_graphs.client.key import KEYS, key_name
from repro_pp_graphs.server.http import INFO, Server, object_in
from repro_pp_graphs.server.machine import listener, process

FOLDER_VARIABLE, FOLDER = "SGLANG_TORCH_PROFILER_DIR", "/tmp"
NEEDED = ("model_path", "pp_size", "tp_size")  # of what an sglang server says of itself
REFUSED = (401, 403)


class UnusableError(RuntimeError):
    """The server cannot be measured; the message is one sentence and a next step."""


class Place(NamedTuple):
    """Where a server runs, as far as this machine sees it."""

    local: bool  # it listens at an address of this machine
    pid: int | None = None  # of the process that listens
    folder: str = ""  # into which it writes traces unless asked otherwise; empty: not seen here

    @property
    def words(self) -> str:
        """`pid 4242 (python3)`, or why there is none."""
        if self.pid is not None:
            return f"pid {self.pid} ({process.name(self.pid)})"
        return "another user's or a container's process here" if self.local else "another machine"


def split(url: str) -> tuple[str, int]:
    """Host and port of a base URL. Raises UnusableError for one that names no server."""
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        parts, port = urlsplit(""), 0
    web = parts.scheme in ("http", "https") and parts.hostname and port
    if not web or "@" in parts.netloc or parts.query or parts.fragment:
        # not repeated: a password may be in it
        raise UnusableError(
            "--attach: name the server as http://HOST:PORT, without user, password or query"
        )
    return str(parts.hostname), port


def place_of(host: str, port: int) -> Place:
    """Where the server behind host and port runs."""
    try:
        if listener.is_free(host, port):  # a local address, and nobody listens there
            return Place(local=False)
    except listener.UnknownHostError:
        return Place(local=False)
    pid = listener.pid_of(host, port)
    return Place(True, pid, "" if pid is None else _folder_of(pid))


def _folder_of(pid: int) -> str:
    """The folder for traces of a server's process, as this process reaches it; empty where it may
    not be looked into."""
    try:
        own, its = (Path(f"/proc/{one}") for one in ("self", pid))
        same = (own / "ns/mnt").readlink() == (its / "ns/mnt").readlink()
        named = process.variable(pid, FOLDER_VARIABLE) or FOLDER
        folder = Path(os.path.normpath((its / "cwd").readlink() / named))
        seen = folder if same else its / "root" / folder.relative_to("/")
        return str(seen) if os.access(seen if seen.exists() else seen.parent, os.R_OK) else ""
    except OSError:
        return ""


def may_write(place: Place, folder: Path) -> bool:
    """Whether the server's user may make files in a folder, as far as its mode says."""
    found, anyone = folder.stat(), 0o002
    if place.pid is None:
        return bool(found.st_mode & anyone)
    user = Path(f"/proc/{place.pid}").stat().st_uid
    if user == os.getuid():
        return os.access(folder, os.W_OK)
    owns = user == found.st_uid and bool(found.st_mode & 0o200)
    return user == 0 or owns or bool(found.st_mode & anyone)


def info_of(url: str, local: bool) -> dict[str, Any]:
    """What an sglang server that is ready says of itself, unmasked. Raises UnusableError."""
    server = Server(url, local)
    try:
        for path in INFO:
            answer = server.get(path)
            if answer.status_code != requests.codes.not_found:
                break
    except requests.RequestException as error:
        raise UnusableError(f"--attach {url}: {_no_answer(error)}") from None
    if answer.status_code in REFUSED:
        raise UnusableError(f"--attach {url}: {_refused(answer.status_code, path)}")
    if answer.status_code == requests.codes.not_found:
        raise UnusableError(f"--attach {url}: {_no_info(server)}")
    if not answer.ok:
        raise UnusableError(
            f"--attach {url}: it answers {answer.status_code} to {path}: wait until the server is "
            "ready, or see its log"
        )
    info = object_in(answer)
    if info is None or not all(name in info for name in NEEDED):
        raise UnusableError(
            f"--attach {url}: what it answers to {path} is not what an sglang server says: give "
            "the server's own address, not that of a router or proxy before it"
        )
    if not server.healthy():
        raise UnusableError(
            f"--attach {url}: it does not answer /health: wait until the server is ready, or see "
            "its log"
        )
    return info


def _no_answer(error: requests.RequestException) -> str:
    """Why a server did not answer, and what to look at."""
    if isinstance(error, requests.ReadTimeout):
        return "it takes connections, but did not answer in 20 s: see the server's log"
    if isinstance(error, requests.exceptions.SSLError):
        return "TLS failed: http:// in place of https://, or REQUESTS_CA_BUNDLE for its certificate"
    if isinstance(error, requests.ConnectTimeout | requests.exceptions.ProxyError):
        return "no connection: check host, port, and firewalls or proxies between"
    text = str(error)
    if "resolve" in text or "Name or service" in text:
        return "no such host: check the name"
    if "refused" in text:
        return "nothing listens there: is the server up, and is that its --host and --port?"
    return "what answers does not speak HTTP: check the port"


def _refused(status: int, path: str) -> str:
    """What to do about a server that wants a key, or another one."""
    name = key_name()
    if not name:
        return f"it answers {status} to {path}: it wants its API key, export {KEYS[0]}"
    return f"it answers {status} to {path}: the key in {name} is not its own, export the right one"


def _no_info(server: Server) -> str:
    """What is known of a server that has no account of itself."""
    if server.healthy():
        return (
            f"it answers /health, but has neither {' nor '.join(INFO)}: no sglang server, or a "
            "router before one; give the server's own address"
        )
    return "an HTTP server, but no sglang server: check the port"
