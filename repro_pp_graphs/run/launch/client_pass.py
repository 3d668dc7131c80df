"""One pass of the load client, in this process, and what it measured."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from repro_pp_graphs import files
from repro_pp_graphs.client import command, terminal
from repro_pp_graphs.files import BadFile, read_object

INTERRUPTED = 130
# what is read of the client's result
SUMMARY: dict[str, Any] = {
    "summary": {"output_throughput": float, "request_throughput": float, "errors": dict[str, int]}
}


@contextlib.contextmanager
def stdout_to(path: Path) -> Iterator[None]:
    """What is printed meanwhile goes to a file. Raises OSError."""
    sys.stdout.flush()
    kept = os.dup(1)
    with path.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


class Pass(NamedTuple):
    """How a pass of the client ended."""

    status: int
    why: str  # what it complained of last; empty for nothing, as where requests failed


def run_client(words: list[str], log: Path, root: Path) -> Pass:
    """Run the client in this process, its report into a file."""
    terminal.complaints.clear()
    with stdout_to(log):
        try:
            status = command.main(words, root)
        except SystemExit as error:  # its command line is at fault
            status = error.code if isinstance(error.code, int) else 1
    for number in (signal.SIGINT, signal.SIGTERM):  # the client ignores them once it has measured
        signal.signal(number, signal.SIG_DFL)
    return Pass(status, terminal.complaints[-1] if terminal.complaints else "")


def why_failed(done: Pass, log: Path) -> str:
    """For the record: what the client complained of, and where to read on. A full disk is named,
    also if it has room again by now."""
    full = any(os.strerror(number) in done.why for number in files.FULL)
    where = f"; the disk of {log.parent} was full" if full else ""
    return f"{f': {done.why}' if done.why else ''}{where}; see {log}"


def result_of(path: Path) -> dict[str, Any]:
    """The summary in the client's result; empty where there is none."""
    with contextlib.suppress(OSError, BadFile):
        found: dict[str, Any] = read_object(path, SUMMARY).get("summary", {})
        return found
    return {}


def line_of(found: dict[str, Any]) -> str:
    """For the terminal: what was measured, in short."""
    tokens, prompts = found.get("output_throughput", 0), found.get("request_throughput", 0)
    return f"  client  {tokens:.2f} output tokens/s, {prompts:.2f} prompts/s"
