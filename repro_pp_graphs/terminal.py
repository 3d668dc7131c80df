"""What commands say on a terminal: at most 80 columns, and what is wrong in one sentence."""

from __future__ import annotations

import argparse
import sys
import textwrap
from typing import NoReturn


def wrapped(text: str, mark: str = "") -> list[str]:
    """Lines of at most 79 columns; what may be copied from them, as paths are, stays whole."""
    return textwrap.wrap(
        text,
        79,
        initial_indent=mark,
        subsequent_indent=" " * len(mark),
        break_long_words=False,
        break_on_hyphens=False,
    )


def say(text: str) -> None:
    """A line for the person on stderr, where stdout is read by a program."""
    print(text, file=sys.stderr, flush=True)


def complain(command: str, text: str) -> None:
    """Say on stderr what is wrong."""
    print("\n".join(wrapped(f"{command}: {text}")), file=sys.stderr)


class Parser(argparse.ArgumentParser):
    """Options of `python -m repro_pp_graphs COMMAND`, with examples below its help."""

    def __init__(self, command: str, arguments: str, description: str, epilog: str) -> None:
        usage = wrapped(f"python -m repro_pp_graphs {command} {arguments}", "usage: ")
        super().__init__(
            prog=command,
            usage="\n".join(usage).removeprefix("usage: "),
            description="\n".join(wrapped(description)),
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Exit 2, without the usage that would hide the message."""
        complain(self.prog, f"{message.removeprefix('argument ')} (see --help)")
        sys.exit(2)
