"""PYTHONPATH=. python real_rows.py ROWS.gz TARGET [FIRST COUNT]: a piece of a rank's real rows.

COUNT turns from turn FIRST on and those that a profile saw, with four turns to either side, as a
file of the clock's own (.rows.gz); without them every turn, and nothing but turns. Rows are
numbered anew, and the header does not say which process of which host it was; everything else is
as the rank wrote it.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

from repro_pp_graphs.pp_clock import rows

EDGE = 4
HOST = ("pid", "boot_id", "unix_ahead_ns")


def piece(whole: rows.Rows, first: int, count: int) -> list[rows.Row]:
    """The rows of these turns, and of those that a profile saw."""
    turns = [row for row in whole.rows if rows.KINDS[row.kind] == "turn"]
    seen = [row.turn for row in turns if row.flags & rows.PROFILED]
    spans = [(first, first + count), *[(seen[0] - EDGE, seen[-1] + 1 + EDGE) for _ in seen[:1]]]
    return [row for row in whole.rows if any(low <= row.turn < high for low, high in spans)]


def main(source: Path, target: Path, *span: str) -> None:
    """Write the piece."""
    whole = rows.read(source)
    if span:
        kept = piece(whole, *map(int, span))
    else:
        kept = [row for row in whole.rows if rows.KINDS[row.kind] == "turn"]
    header = {name: fact for name, fact in whole.header.items() if name not in HOST}
    data = json.dumps(header).encode().ljust(rows.HEADER_BYTES, b"\0")
    for number, row in enumerate(kept, 1):
        data += rows.LAYOUT.pack(number, *row[1:], number)
    target.write_bytes(gzip.compress(data, 9, mtime=0))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
