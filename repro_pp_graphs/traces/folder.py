"""The traces of one or more cases: files found, grouped by case, read by parallel processes."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from repro_pp_graphs.traces.model import RankTrace
from repro_pp_graphs.traces.naming import Identity, identify, is_trace, parts
from repro_pp_graphs.traces.reader import NO_KERNELS, read_rank

# Starting processes costs more than reading this much, bytes as stored.
PARALLEL_FROM_BYTES = 1 << 20


@dataclass(slots=True)
class Case:
    """The ranks of one profile, by (pp, tp), and what is wrong with them."""

    name: str
    ranks: list[RankTrace]
    pp_size: int
    tp_size: int
    warnings: list[str] = field(default_factory=list)

    def label(self, rank: RankTrace) -> str:
        """`3`, with tensor parallelism `3.1`: PP rank, TP rank."""
        return f"{rank.pp}.{rank.tp}" if self.tp_size > 1 else str(rank.pp)


def trace_files(paths: list[Path]) -> list[Path]:
    """Trace files among the paths and directly inside those that are folders.

    Raises FileNotFoundError naming the first path that does not exist.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(path)
        found += sorted(filter(is_trace, path.iterdir())) if path.is_dir() else [path]
    return list(dict.fromkeys(found))


def cases_of(paths: list[Path]) -> dict[str, list[tuple[Path, Identity]]]:
    """Files by case: each folder's files apart, then by name; loose files together.

    One case where no rank comes twice, or where no name tells its PP rank.
    Raises FileNotFoundError naming the first path that does not exist.
    """
    folders = [path for path in paths if path.is_dir()]
    if len(folders) <= 1:
        return _by_name(trace_files(paths))
    groups = [(path.name, _by_name(trace_files([path]))) for path in folders]
    loose = [path for path in paths if not path.is_dir()]
    groups += [("", _by_name(trace_files(loose)))] if loose else []
    cases: dict[str, list[tuple[Path, Identity]]] = {}
    for folder, found in groups:
        for name, members in found.items():
            key = folder if folder and len(found) == 1 else f"{folder}/{name}".lstrip("/")
            cases[key if key not in cases else f"{key} ({len(cases) + 1})"] = members
    return cases


def _by_name(files: list[Path]) -> dict[str, list[tuple[Path, Identity]]]:
    identified = identify(files)
    seen = {(who.pp, who.tp) for _, who in identified}
    if len(seen) == len(identified) or not any("PP" in who.named for _, who in identified):
        stems = [parts(path)[0] for path, _ in identified]
        name = _common(stems).rstrip("-_.") or "trace"
        return {name: identified} if identified else {}
    members: dict[str, list[Path]] = {}
    for path, _ in identified:
        members.setdefault(parts(path)[0], []).append(path)
    return {name: identify(same) for name, same in sorted(members.items())}


def _common(names: list[str]) -> str:
    """The beginning all names share."""
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return "".join(letters[0] for letters in alike)


def workers_for(paths: list[Path]) -> int:
    """One process a file up to the cores there are; 1 where starting them would cost more."""
    stored = sum(path.stat().st_size for path in paths)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return 1 if stored < PARALLEL_FROM_BYTES else max(1, min(len(paths), cores or 1))


def _shares(sizes: list[int], processes: int) -> list[list[int]]:
    """Indices of files by process: the next largest goes to whom has least; largest share first."""
    shares: list[list[int]] = [[] for _ in range(processes)]
    loads = [0] * processes
    for at in sorted(range(len(sizes)), key=lambda at: -sizes[at]):
        least = loads.index(min(loads))
        shares[least].append(at)
        loads[least] += sizes[at]
    return [share for _, share in sorted(zip(loads, shares, strict=True), reverse=True)]


def _read_share(members: list[tuple[Path, Identity]]) -> list[RankTrace]:
    return [read_rank(path, who) for path, who in members]


def _read_all(members: list[tuple[Path, Identity]]) -> list[RankTrace]:
    """Read files in parallel processes, this one being one of them."""
    paths = [path for path, _ in members]
    processes = workers_for(paths)
    if processes == 1:
        return _read_share(members)
    shares = _shares([path.stat().st_size for path in paths], processes)
    parts = [[members[at] for at in share] for share in shares]
    try:
        with ProcessPoolExecutor(processes - 1) as pool:
            others = pool.map(_read_share, parts[1:])
            read = [_read_share(parts[0]), *others]
    except BrokenProcessPool:  # one was killed, as happens for want of memory: one after another
        return _read_share(members)
    found = {
        at: rank
        for share, ranks in zip(shares, read, strict=True)
        for at, rank in zip(share, ranks, strict=True)
    }
    return [found[at] for at in range(len(members))]


def read_case(name: str, members: list[tuple[Path, Identity]]) -> Case:
    """Read all files of a case; files that hold nothing are warned of and left out."""
    read = _read_all(members)
    kernelless = all(NO_KERNELS in rank.problems for rank in read)
    warnings = [
        f"{Path(rank.path).name}: {text}"
        for rank in read
        for text in rank.problems
        if not (kernelless and text == NO_KERNELS)
    ]
    warnings += [f"all ranks: {NO_KERNELS}"] if kernelless else []
    ranks: dict[tuple[int, int], RankTrace] = {}
    for rank in sorted((r for r in read if r.events), key=lambda r: (r.pp, r.tp)):
        other = ranks.setdefault((rank.pp, rank.tp), rank)
        if other is not rank:
            warnings.append(
                f"{Path(rank.path).name}: PP{rank.pp} TP{rank.tp} was read already "
                f"from {Path(other.path).name}: left out"
            )
    tp_size = members[0][1].tp_size
    worlds = [rank.world_size // tp_size for rank in read if rank.world_size]
    pp_size = max([members[0][1].pp_size, *worlds, *(pp + 1 for pp, _ in ranks)])
    case = Case(name, list(ranks.values()), pp_size, tp_size, warnings)
    missing = [
        f"PP{pp}" + (f" TP{tp}" if tp_size > 1 else "")
        for pp in range(pp_size)
        for tp in range(tp_size)
        if (pp, tp) not in ranks
    ]
    if missing and ranks:
        case.warnings.append(f"no trace of {', '.join(missing)}: its edges are not paired")
    return case
