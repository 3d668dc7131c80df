"""PYTHONPATH=. python real_rows.py ROWS.gz FIRST COUNT TARGET: a short piece of a rank's real rows.

COUNT turns from turn FIRST on and those that a profile saw, with four turns to either side, as a
file of the clock's own (.rows.gz); rows are numbered anew, everything else is as the rank wrote it.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

from repro_pp_graphs.pp_clock import rows

EDGE = 4


def main(source: Path, first: int, count: int, target: Path) -> None:
    """Write the piece."""
    whole = rows.read(source)
    turns = [row for row in whole.rows if rows.KINDS[row.kind] == "turn"]
    seen = [row.turn for row in turns if row.flags & rows.PROFILED]
    spans = [(first, first + count), (seen[0] - EDGE, seen[-1] + 1 + EDGE)]
    kept = [row for row in whole.rows if any(low <= row.turn < high for low, high in spans)]
    data = gzip.decompress(source.read_bytes())[: rows.HEADER_BYTES]
    for number, row in enumerate(kept, 1):
        data += rows.LAYOUT.pack(number, *row[1:], number)
    target.write_bytes(gzip.compress(data, 9, mtime=0))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
