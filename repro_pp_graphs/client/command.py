"""The client as a command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from .options import UsageError, parse_options
from .signals import interrupt_on_signals
from .terminal import complain, escape_unprintable

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]


def raise_open_file_limit() -> None:
    """Every stream is a file descriptor, and the usual soft limit is 1024."""
    if resource is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main(argv: Sequence[str], folder: Path) -> int:
    """Run the client that lies in `folder`; returns the exit status."""
    escape_unprintable()
    try:
        options = parse_options(argv, folder)
    except OSError as error:
        complain(f"stdout: {error.strerror}: send it to a file with room")
        return 2
    try:
        from .measure import measure  # noqa: PLC0415 - it needs requests, --help does not
    except ModuleNotFoundError as missing:
        install = f"{sys.executable} -m pip install requests"
        complain(f"needs requests (no module '{missing.name}' here): {install}")
        return 2
    interrupt_on_signals()
    sys.setswitchinterval(1e-4)  # the reader must not wait 5 ms for the thread that sends
    raise_open_file_limit()
    try:
        return measure(options)
    except UsageError as exc:
        complain(str(exc))
        return 2
