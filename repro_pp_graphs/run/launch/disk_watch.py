"""While something is awaited: is its disk full?"""

from __future__ import annotations

import os
from pathlib import Path

from repro_pp_graphs import files
from repro_pp_graphs.run.launch.live_line import LiveLine
from repro_pp_graphs.run_record import Launch


def drafts_of(launch: Launch) -> Path:
    """Where its ranks write a trace, unpacked, before they pack it into its folder."""
    import tempfile  # noqa: PLC0415 - seldom needed

    return Path(launch.env.get("TMPDIR") or os.environ.get("TMPDIR") or tempfile.gettempdir())


class DiskWatch:
    """Says once on a live line that the disk of one of the folders is all but full."""

    def __init__(self, line: LiveLine, *folders: Path) -> None:
        self._line = line
        self._folders = folders
        self.full = ""  # which, and how much is free; empty while there is room

    def look(self) -> None:
        """Look at the disks now."""
        full = files.low_space(*self._folders)
        if full and not self.full:
            self._line.end(f"{full}: log or traces may not get written")
        self.full = full

    def remedy(self) -> str:
        """The end of a sentence on what did not come; empty while there is room."""
        return f"; {self.full}: free some" if self.full else ""
