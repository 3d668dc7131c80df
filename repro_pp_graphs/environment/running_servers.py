"""The sglang servers of this machine: their processes, and what one answers on a port."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from repro_pp_graphs.environment.fact_lines import Fact, print_facts
from repro_pp_graphs.environment.programs import patience

PATHS = ("/server_info", "/get_server_info")  # the second up to 0.5.4 and as an alias since
TIMEOUT_S = 1.5
MODULES = {"sglang.launch_server", "repro_pp_graphs.server.launch"}  # the second adds shims


def processes() -> Iterator[tuple[str, str]]:
    """(pid, command line) of each sglang process whose command line can be read."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().rstrip(b"\0").decode(errors="replace")
        except OSError:
            continue
        head = command.split("\0")[:6]
        if command.startswith("sglang::"):  # setproctitle of a scheduler or detokenizer
            yield entry.name, command
        elif not MODULES.isdisjoint(head) or any(
            arg.endswith("/sglang") and head[index + 1 : index + 2] == ["serve"]
            for index, arg in enumerate(head)
        ):
            yield entry.name, shlex.join(command.split("\0"))


def get(port: int, path: str) -> tuple[int, bytes]:
    """(status, body) of GET path on 127.0.0.1; OSError or HTTPException without an answer."""
    import http.client  # noqa: PLC0415 - a third of the time of a process that asks no server

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S * patience())
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def flatten(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """("a.b", text) of each leaf that says something; lists of scalars stay whole."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flatten(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for index, inner in enumerate(value):
            yield from flatten(inner, f"{path}.{index}")
    elif value not in (None, "", []):
        yield path, value if isinstance(value, str) else json.dumps(value)


def resolved(info: dict[str, Any]) -> dict[str, str]:
    """The answer's leaves; internal_states only where it adds to or contradicts the rest."""
    top = dict(flatten({k: v for k, v in info.items() if k != "internal_states"}))
    for path, text in flatten({"internal_states": info.get("internal_states")}):
        if top.get(path.split(".", 2)[-1]) != text:
            top[path] = text
    return top


def ask(port: int) -> tuple[str, dict[str, str]]:
    """(what happened in words, the resolved arguments and state, empty when none came)."""
    import http.client  # noqa: PLC0415

    try:
        for path in PATHS:
            status, body = get(port, path)
            if status != http.client.NOT_FOUND:
                break
    except ConnectionRefusedError:
        return f"nothing answers on 127.0.0.1:{port}", {}
    except (OSError, http.client.HTTPException) as error:
        return f"no answer: {type(error).__name__}: {error}", {}
    if status in (http.client.UNAUTHORIZED, http.client.FORBIDDEN):
        return f"answers {status}: it wants its API key", {}
    try:
        info = json.loads(body) if status == http.client.OK else None
        found = resolved(info) if isinstance(info, dict) else None
    except (ValueError, RecursionError):
        found = None
    if found is None:
        return f"answers {status} to {path}, not as an sglang server does", {}
    return f"answers {path}", found


def facts(port: int) -> Iterator[Fact]:
    """The sglang processes here, and the server that answers on the port (0: none is asked)."""
    for pid, command in processes():
        yield Fact("server", f"process {pid}", " ".join(command.split()))
    if not port:
        return
    said, state = ask(port)
    yield Fact("server", f"port {port}", said)
    telling = ("version", "model_path", "tp_size", "pp_size")
    short = [f"{key} {state[key]}" for key in telling if key in state]
    yield Fact("summary", "server", f"port {port}: {', '.join(short)}" if short else said)
    for key, text in state.items():
        yield Fact("server", key, text)


def main(port: int) -> None:
    """Print its facts a line each (fact_lines.py)."""
    print_facts(partial(facts, port))
