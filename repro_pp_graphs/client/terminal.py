"""What the client prints: at most 80 columns, and no crash where nobody reads it."""

from __future__ import annotations

import argparse
import os
import re
import sys
import textwrap
from collections.abc import Sequence
from typing import NoReturn

# of a text from elsewhere: it could move the cursor, recolour or retitle the terminal, or turn the
# direction of what follows; or bytes that are no UTF-8
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def visible(text: str) -> str:
    """The text with each control character but tab and line feed as its escape, `\\x1b`."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def wrapped(text: str, first: str = "", below: str = "  ") -> str:
    """At most 80 columns, `first` before the first line and `below` before those that follow.

    What is copied from it, as addresses are, stays whole.
    """
    return textwrap.fill(
        visible(text),
        80,
        initial_indent=first,
        subsequent_indent=below,
        break_long_words=False,
        break_on_hyphens=False,
    )


complaints: list[str] = []  # what this process has complained of so far


def complain(text: str) -> None:
    """Say on stderr what is wrong."""
    complaints.append(text)
    print(wrapped(f"client_benchmark.py: {text}"), file=sys.stderr)


class Parser(argparse.ArgumentParser):
    """Complains in one sentence, without a value that may be a secret."""

    def print_help(self, _: object = None) -> None:
        """argparse would lose an error of stdout. Raises OSError."""
        say([self.format_help().rstrip("\n")])

    def error(self, message: str) -> NoReturn:
        unknown = message.partition("unrecognized arguments: ")[2]
        if unknown:
            message = f"no option '{unknown.split()[0].partition('=')[0][:40]}'"
        complain(f"{message.removeprefix('argument ')} (see --help)")
        sys.exit(2)


def escape_unprintable() -> None:
    """A character that the terminal's encoding lacks is printed as its escape."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def say(lines: Sequence[str] = ()) -> None:
    """Print lines. Raises OSError, as on a full disk.

    A reader that has gone, as `head` does, is no error.
    """
    if sys.stdout is None:  # python ... >&-
        return
    try:
        if lines:
            print(visible("\n".join(lines)))
        sys.stdout.flush()
    except OSError as exc:
        # Python flushes again as it ends, and would complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(exc, BrokenPipeError):
            raise
