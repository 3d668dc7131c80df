"""Several ranks' traces as one Chrome trace: a process group a rank, ids of its own, one clock."""

from __future__ import annotations

import gzip
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable
from concurrent import futures
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, cast

import msgspec

from repro_pp_graphs.files import sync
from repro_pp_graphs.traces.explain.steps import window
from repro_pp_graphs.traces.merge.numbering import PROCESSES_PER_RANK, Numbering
from repro_pp_graphs.traces.merge.rewrite import RankRewriter, Reading
from repro_pp_graphs.traces.merge.track_names import Lanes, Names, names_of
from repro_pp_graphs.traces.merge.view import WHOLE, View, inside
from repro_pp_graphs.traces.rank_trace import Case, RankTrace
from repro_pp_graphs.traces.read.blocks import TraceFile
from repro_pp_graphs.traces.read.cases import workers_for
from repro_pp_graphs.traces.read.decoding import Times

FIRST_KEY = 100
COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """One rank and its place in the merged trace.

    `key` (three digits) is written before every id of the rank; `shift_ns` is added to every ts.
    """

    path: Path
    names: Names
    key: int
    shift_ns: int
    reading: Reading

    @property
    def first_pid(self) -> int:
        """The pid of the rank's added tracks; its processes follow, in the order to show them."""
        return (self.key - FIRST_KEY + 1) * PROCESSES_PER_RANK


class Placed(NamedTuple):
    """A rank of a case with its part; the part's lanes are known once it is written."""

    case: int
    rank: RankTrace
    part: Part


class Added(Protocol):
    """Events beyond the ranks' own: those made while the ranks are written, and the rest."""

    def slices(self, placed: list[Placed]) -> Iterable[dict[str, Any]]: ...

    def arrows(self, lanes: list[Lanes]) -> Iterable[dict[str, Any]]: ...


def place(cases: list[Case], shifts_ns: list[int], view: View = WHOLE) -> tuple[list[Placed], int]:
    """Every rank of every case that the view shows, in rank order, and the merged trace's base time
    in ns.

    `shifts_ns` moves a whole case in time (0 for the first).
    """
    every = [(at, case, rank) for at, case in enumerate(cases) for rank in case.ranks]
    ranks = [each for each in every if view.shows(each[2])]
    base_ns = min((rank.base_ns for _, _, rank in ranks), default=0)
    return [
        Placed(
            at,
            rank,
            Part(
                Path(rank.path),
                names_of(case, rank, chr(ord("A") + at) if len(cases) > 1 else ""),
                FIRST_KEY + number,
                rank.base_ns - base_ns + shifts_ns[at],
                Reading(
                    rank.times_us and Times(*rank.times_us),
                    rank.left_out_ns,
                    view.of_file(rank, shifts_ns[at]),
                ),
            ),
        )
        for number, (at, case, rank) in enumerate(ranks)
    ], base_ns


def rewrite_part(part: Part, target: Path) -> tuple[int, Lanes]:
    """Write the part's events, comma separated, to target; returns how many, and its lanes."""
    numbering = Numbering(part.names, part.first_pid)
    rewriter = RankRewriter(numbering, part.key, part.shift_ns, part.reading)
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
    return written + len(names), numbering.lanes()


def merge(
    cases: list[Case], shifts_ns: list[int], added: Added, target: Path, view: View = WHOLE
) -> int:
    """Write one Chrome trace of all cases to target (gzip where it ends in .gz), or what the view
    shows of them.

    `added` makes the events of our own. Returns the number of events written. The file appears
    under its name only when it is complete. Raises OSError where it cannot be written.
    """
    placed, base_ns = place(cases, shifts_ns, view)
    span_us = view.of_merged(base_ns)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".merge-") as scratch:
        parts = [each.part for each in placed]
        files = [Path(scratch) / str(part.key) for part in parts]
        workers = workers_for([part.path for part in parts])
        whole = Path(scratch) / target.name
        with ExitStack() as stack:
            run: Callable[..., Iterable[Any]] = map
            if workers > 1:
                run = stack.enter_context(futures.ProcessPoolExecutor(workers)).map
            out = stack.enter_context(_open_target(whole))
            out.write(_head(cases, shifts_ns, placed, base_ns, span_us))
            written = run(rewrite_part, parts, files)
            extra = [msgspec.json.encode(event) for event in inside(added.slices(placed), span_us)]
            total, lanes = 0, []
            for file, (count, lane) in zip(files, written, strict=True):
                lanes.append(lane)
                out.write(b",\n" * bool(total and count))
                with file.open("rb") as body:
                    shutil.copyfileobj(body, out, COPY_BYTES)
                file.unlink()
                total += count
            extra += [msgspec.json.encode(event) for event in inside(added.arrows(lanes), span_us)]
            out.write(b",\n" * bool(total and extra))
            out.write(b",\n".join(extra))
            out.write(b"\n]}\n")
        sync(whole)
        whole.replace(target)
    return total + len(extra)


def _open_target(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path, "wb", compresslevel=1))
    return path.open("wb")


def _head(
    cases: list[Case],
    shifts_ns: list[int],
    placed: list[Placed],
    base_ns: int,
    span_us: tuple[float, float] | None,
) -> bytes:
    """The file up to its first event; `view` is what `open` shows first: ranks, a span in ns.
    `span_us`: the part of the time that it holds, None for all."""
    windows = [window(case) for case in cases]
    moved = [shift - base_ns for shift in shifts_ns]
    view: dict[str, Any] = {
        "ranks": [each.part.names.title for each in placed],
        "start": min(start + by for (start, _), by in zip(windows, moved, strict=True)),
        "end": max(end + by for (_, end), by in zip(windows, moved, strict=True)),
    }
    if span_us:
        view["start"] = max(view["start"], round(span_us[0] * 1000))
        view["end"] = min(view["end"], round(span_us[1] * 1000))
    about: dict[str, Any] = {
        "schemaVersion": 1,
        "displayTimeUnit": "ms",
        "baseTimeNanoseconds": base_ns,
        "mergedFrom": {
            case.name: [Path(each.rank.path).name for each in placed if each.case == at]
            for at, case in enumerate(cases)
        },
        "view": view,
    }
    if by_host := {name: us for case in cases for name, us in case.moved_us.items()}:
        about["hostsMovedUs"] = by_host
    return json.dumps(about)[:-1].encode() + b',\n"traceEvents": [\n'
