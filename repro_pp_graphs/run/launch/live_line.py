"""How far a step is, on one line: rewritten on a terminal, elsewhere a new line now and then."""

from __future__ import annotations

import shutil
import sys
import textwrap
import time

from repro_pp_graphs.client.terminal import visible
from repro_pp_graphs.environment import masking
from repro_pp_graphs.terminal import rewrite, wrapped

WIDTH = 79
QUIET_S = 30.0  # where stdout is no terminal: without a change the next line, then ever later


def _fit(text: str, width: int) -> str:
    """As many whole words as fit, with ` ...` where more came."""
    if len(text) <= width:
        return text
    return textwrap.wrap(text, max(1, width - 4), break_on_hyphens=False)[0] + " ..."


class LiveLine:
    """Shows `<what> <elapsed> <stage>: <detail>`."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._start_s = time.monotonic()
        self._last = ""
        self._due_s = 0.0
        self._terminal = sys.stdout.isatty()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the line began."""
        return time.monotonic() - self._start_s

    def show(self, stage: str, detail: str = "") -> None:
        """Show the stage reached and what is going on in it, which may be a server's words."""
        now_s = self.elapsed_s
        said = visible(masking.excerpt(" ".join(detail.split())))
        text = f"{self._head(now_s)}{stage}" + (f": {said}" if said else "")
        if self._terminal:
            rewrite(_fit(text, shutil.get_terminal_size().columns - 1))
        elif stage != self._last or now_s >= self._due_s:
            if stage == self._last and not said:
                text = f"{self._head(now_s)}still {stage}"
            print(_fit(text, WIDTH), flush=True)
            self._due_s = now_s + max(QUIET_S, now_s / 2)
        self._last = stage

    def end(self, text: str) -> None:
        """Replace the live line by a last one."""
        lines = "\n".join(wrapped(text, self._head(self.elapsed_s)))
        if self._terminal:
            rewrite(lines, end="\n")
        else:
            print(lines, flush=True)

    def _head(self, elapsed_s: float) -> str:
        return f"  {self._what}  {elapsed_s:5.1f} s  "
