"""What must hold of every reader, and of what it says."""

from __future__ import annotations

import io
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import msgspec

from repro_pp_graphs import terminal

LONGEST_S = 10.0  # of CPU, for one input: far more than any takes, so that load makes no fault
LONGEST_SAID = 4000  # characters of a refusal
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class Fault(AssertionError):
    """Something that must hold does not."""


class Hang(Fault):
    """An input took too much CPU."""


def check(holds: object, what: str) -> None:
    if not holds:
        raise Fault(what)


def plain(text: str, what: str) -> None:
    """No control character, and no half of a surrogate pair, reaches the terminal."""
    found = CONTROL.search(text)
    check(not found, f"{what} holds the control character {found and ascii(found[0])}")
    check(text.isascii() or _encodes(text), f"{what} cannot be written as UTF-8")


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def strict_json(text: str | bytes) -> Any:
    """The value; NaN and Infinity are a fault, as what is no JSON: other programs refuse it."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise Fault(f"JSON that others refuse: {error}") from None


@contextmanager
def limited() -> Iterator[None]:
    """A fault where it takes longer than LONGEST_S of CPU."""

    def late(number: int, frame: object) -> NoReturn:
        raise Hang(f"more than {LONGEST_S:.0f} s of CPU for one input")

    before = signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, LONGEST_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def printed(command: Callable[[list[str]], int], argv: list[str]) -> tuple[int, str]:
    """A command's exit status, and all that it printed, as python -m repro_pp_graphs would."""
    kept, streams = (sys.stdout, sys.stderr), (io.BytesIO(), io.BytesIO())
    sys.stdout, sys.stderr = (io.TextIOWrapper(raw, "utf-8", write_through=True) for raw in streams)
    try:
        terminal.guard_streams()
        status = command(argv)
        sys.stdout.flush()
        sys.stderr.flush()
        text = b"".join(raw.getvalue() for raw in streams).decode()
        plain(text.replace("\n", ""), "what it prints")
        return status, text
    finally:
        sys.stdout, sys.stderr = kept
