"""Lines for the terminal: one that is rewritten there (elsewhere a new line a change), and
long ones wrapped."""

from __future__ import annotations

import shutil
import sys
import textwrap
import time


def wrapped(head: str, text: str) -> list[str]:
    """`head` and `text` as lines of at most 79 columns, the later ones indented under the text."""
    return textwrap.wrap(
        text, 79, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False
    )


class LiveLine:
    """Shows `<what> <elapsed> <stage>`; silent repetitions where stdout is no terminal."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._start_s = time.monotonic()
        self._last = ""
        self._terminal = sys.stdout.isatty()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the line began."""
        return time.monotonic() - self._start_s

    def show(self, stage: str, detail: str = "") -> None:
        """Show the stage reached; on a terminal also the detail, and the elapsed time runs."""
        text = f"  {self._what}  {self.elapsed_s:5.1f} s  {stage}"
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\x1b[K{f'{text} {detail}'[:width]}", end="", flush=True)
        elif stage != self._last:
            print(text, flush=True)
        self._last = stage

    def end(self, text: str) -> None:
        """Replace the live line by a last one."""
        start = "\r\x1b[K" if self._terminal else ""
        print(f"{start}  {self._what}  {self.elapsed_s:5.1f} s  {text}", flush=True)
