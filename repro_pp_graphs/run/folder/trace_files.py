"""The files that the ranks of one profile write: which are they, and which are whole?"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from repro_pp_graphs.traces.read.identity import parts


def is_whole_gzip(path: Path) -> bool:
    """True when the file decompresses to its end mark and check sum."""
    unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                unpack.decompress(chunk)
    except (OSError, zlib.error):
        return False
    return unpack.eof


@dataclass
class Origin:
    """What identifies the files of one profile.

    Their name begins with the profile's id: the one that was asked for, or in releases that take
    none (up to 0.5.10 at least) the time at which the server got the request, in s since 1970.
    """

    profile_id: str
    asked_s: float
    answered_s: float
    pp_size: int
    tp_size: int
    slack_s: float = 1.0  # a server's time of a request may be rounded, its clock another

    def rank_of(self, path: Path) -> tuple[int, int] | None:
        """The (PP, TP) rank that wrote a file; None where the profile's ranks did not."""
        stem, ranks = parts(path)
        rank = ranks.get("PP", 0), ranks.get("TP", 0)
        ours = stem == self.profile_id or self._is_the_request(stem)
        return rank if ours and rank[0] < self.pp_size and rank[1] < self.tp_size else None

    def _is_the_request(self, stem: str) -> bool:
        with contextlib.suppress(ValueError):
            return self.asked_s - self.slack_s <= float(stem) <= self.answered_s + self.slack_s
        return False


class TraceFiles:
    """The ranks' trace files in a folder; each is checked once per size."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._whole: dict[tuple[Path, int], bool] = {}

    def whole(self, ours: Callable[[Path], bool] = lambda _: True) -> list[Path]:
        """Those of them, or of all, that are complete now."""
        there = filter(ours, sorted(self.folder.glob("*.trace.json.gz")))
        return [path for path in there if self._check(path)]

    def _check(self, path: Path) -> bool:
        key = (path, path.stat().st_size)
        if key not in self._whole:
            self._whole[key] = is_whole_gzip(path)
        return self._whole[key]
