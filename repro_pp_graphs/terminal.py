"""What commands say on a terminal: at most 80 columns, and what is wrong in one sentence."""

from __future__ import annotations

import argparse
import io
import os
import sys
import textwrap
from pathlib import Path
from typing import NoReturn, TextIO

from repro_pp_graphs.client.terminal import visible

LONGEST_SHOWN = 40  # characters of a wrong word


class _Visible(io.TextIOWrapper):
    """A stream to a terminal, perhaps, on which control characters are shown, not obeyed."""

    def write(self, text: str) -> int:
        return super().write(visible(text))

    def write_raw(self, text: str) -> int:
        """Control characters of our own, which are obeyed."""
        return super().write(text)


def rewrite(text: str, end: str = "") -> None:
    """Show the text in place of the terminal's last line, which is not ended yet."""
    getattr(sys.stdout, "write_raw", sys.stdout.write)("\r\x1b[K")
    print(visible(text), end=end, flush=True)


def guard_streams() -> None:
    """From now on no control character of a log, a file's name or an error reaches the terminal
    through stdout or stderr, and one of them that is closed (`>&-`) takes what is written."""
    sys.stdout = _guarded(sys.stdout)
    sys.stderr = _guarded(sys.stderr)


def _guarded(stream: TextIO | None) -> TextIO:
    if stream is None:
        return Path(os.devnull).open("w", encoding="utf-8")
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    encoding, lines = stream.encoding, stream.line_buffering
    return _Visible(stream.detach(), encoding, "backslashreplace", line_buffering=lines)


def wrapped(text: str, mark: str = "") -> list[str]:
    """Lines of at most 79 columns; what may be copied from them, as paths are, stays whole."""
    return textwrap.wrap(
        visible(text),
        79,
        initial_indent=mark,
        subsequent_indent=" " * len(mark),
        break_long_words=False,
        break_on_hyphens=False,
    )


def show(text: str, mark: str = "  ", flush: bool = False) -> None:
    """A sentence for the person on stdout; `flush`: at once, as what follows takes its time."""
    print("\n".join(wrapped(text, mark)), flush=flush)


def say(text: str) -> None:
    """A line for the person on stderr, where stdout is read by a program."""
    print(visible(text), file=sys.stderr, flush=True)


def complain(command: str, text: str) -> None:
    """Say on stderr what is wrong."""
    print("\n".join(wrapped(f"{command}: {text}")), file=sys.stderr)


def file_beside_text(text: str) -> Path:
    """An argparse type: a file to write, not `-`, as standard output has what a person reads."""
    if text == "-":
        raise argparse.ArgumentTypeError("- is no file, standard output has the text: name a file")
    return Path(text)


def folder(text: str) -> Path:
    """An argparse type: a folder to write or read, not `-`, which is never meant as its name."""
    if text == "-":
        raise argparse.ArgumentTypeError("- is no folder: name one")
    return Path(text)


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

    def print_help(self, _: object = None) -> None:
        """argparse would lose an error of stdout. Raises OSError."""
        print(self.format_help(), end="", flush=True)

    def error(self, message: str) -> NoReturn:
        """Exit 2, without the usage that would hide the message, and without a value that may be
        a secret."""
        unknown = message.partition("unrecognized arguments: ")[2]
        if unknown:
            word = unknown.split()[0].partition("=")[0][:LONGEST_SHOWN]
            takes_words = any(not action.option_strings for action in self._actions)
            no_option = word.startswith("-") or not takes_words
            message = f"no option '{word}'" if no_option else f"'{word}' is one too many"
        complain(self.prog, f"{message.removeprefix('argument ')} (see --help)")
        sys.exit(2)
