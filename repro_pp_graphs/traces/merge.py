"""Several ranks' traces as one Chrome trace: process groups by rank, ids kept apart, one clock."""

from __future__ import annotations

import gzip
import json
import shutil
import tempfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import msgspec

from repro_pp_graphs.traces.events import TraceFile
from repro_pp_graphs.traces.folder import Case, workers_for
from repro_pp_graphs.traces.rewrite import RankRewriter

# Metadata order of the process groups of one rank; added tracks come first.
SLOTS_PER_RANK = 8


@dataclass(frozen=True, slots=True)
class Part:
    """One rank's file and its place in the merged trace.

    `key` (three digits) is written before every id of the rank; `shift_us` is added to every ts.
    """

    path: Path
    title: str
    key: int
    shift_us: float


def parts_of(cases: list[Case], shifts_ns: list[int]) -> tuple[list[Part], int]:
    """Every rank of every case in rank order, and the merged trace's base time in ns.

    `shifts_ns` moves a whole case in time (0 for the first).
    """
    ranks = [(at, case, rank) for at, case in enumerate(cases) for rank in case.ranks]
    base_ns = min((rank.base_ns for _, _, rank in ranks), default=0)
    return [
        Part(
            Path(rank.path),
            (f"{chr(ord('A') + at)} · " if len(cases) > 1 else "") + f"PP{case.label(rank)}",
            100 + number,
            (rank.base_ns - base_ns + shifts_ns[at]) / 1000,
        )
        for number, (at, case, rank) in enumerate(ranks)
    ], base_ns


def rewrite_part(part: Part, target: Path) -> int:
    """Write the part's events, comma separated, to target; returns how many."""
    rewriter = RankRewriter(part.title, part.key, part.shift_us, (part.key - 99) * SLOTS_PER_RANK)
    written = 0
    with target.open("wb") as out:
        for block in TraceFile(part.path).blocks():
            events = rewriter.rewrite(block)
            if events:
                out.write(b",\n" * bool(written))
                out.write(events.body)
                written += events.events
        names = rewriter.metadata()
        if names:
            out.write(b",\n" * bool(written))
            out.write(b",\n".join(map(msgspec.json.encode, names)))
    return written + len(names)


def merge(
    cases: list[Case], shifts_ns: list[int], added: Iterable[dict[str, Any]], target: Path
) -> int:
    """Write one Chrome trace of all cases to target (gzip where it ends in .gz).

    `added` are events of our own; returns the number of events written. The file appears
    under its name only when it is complete.
    """
    parts, base_ns = parts_of(cases, shifts_ns)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".merge-") as scratch:
        files = [Path(scratch) / str(part.key) for part in parts]
        workers = workers_for([part.path for part in parts])
        if workers == 1:
            counts = [rewrite_part(*job) for job in zip(parts, files, strict=True)]
        else:
            with ProcessPoolExecutor(workers) as pool:
                counts = list(pool.map(rewrite_part, parts, files))
        whole = Path(scratch) / target.name
        with _open_target(whole) as out:
            out.write(_head(cases, base_ns))
            first = True
            for file, count in zip(files, counts, strict=True):
                if not count:
                    continue
                out.write(b"" if first else b",\n")
                with file.open("rb") as body:
                    shutil.copyfileobj(body, out, 1 << 20)
                file.unlink()
                first = False
            extra = 0
            for event in added:
                out.write(b"" if first else b",\n")
                out.write(msgspec.json.encode(event))
                extra += 1
                first = False
            out.write(b"\n]}\n")
        whole.replace(target)
    return sum(counts) + extra


def _open_target(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path, "wb", compresslevel=1))
    return path.open("wb")


def _head(cases: list[Case], base_ns: int) -> bytes:
    about = {
        "schemaVersion": 1,
        "displayTimeUnit": "ms",
        "baseTimeNanoseconds": base_ns,
        "mergedFrom": {case.name: [Path(rank.path).name for rank in case.ranks] for case in cases},
    }
    return json.dumps(about)[:-1].encode() + b',\n"traceEvents": [\n'
