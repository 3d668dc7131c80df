"""The traces of one or more cases: files found, grouped by case, read by parallel processes."""

from __future__ import annotations

import os
from collections import Counter
from concurrent import futures  # its part for processes is imported where one is made
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

from repro_pp_graphs.traces.analysis_record import NO_KERNELS
from repro_pp_graphs.traces.rank_trace import Case, RankTrace
from repro_pp_graphs.traces.read.blocks import is_merged, is_other_json
from repro_pp_graphs.traces.read.identity import Identity, identify, is_trace, parts
from repro_pp_graphs.traces.read.placement import placement
from repro_pp_graphs.traces.read.rank import GPU_ONLY, read_rank

Members = list[tuple[Path, Identity]]  # the files of a case

# Starting processes costs more than reading this much text, bytes.
PARALLEL_FROM_BYTES = 12 << 20
TEXT_OF_GZIP = 12  # bytes of text in one that is compressed
DAY_US = 24 * 3600e6
# How far below a folder without traces those of its cases are looked for.
FOLDERS_DEEP = 2
# Of missing ranks, so many are named.
MOST_NAMED = 8
OTHER_BASE = "its baseTimeNanoseconds is missing or days from the other ranks': used theirs"


def trace_files(paths: list[Path]) -> list[Path]:
    """Trace files among the paths and directly inside those that are folders.

    Raises FileNotFoundError naming the first path that does not exist.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(path)
        found += _in_folder(path) if path.is_dir() else [path] * (not is_merged(path))
    return list(dict.fromkeys(found))


def _in_folder(folder: Path) -> list[Path]:
    """The ranks' traces directly inside; JSON of another kind, or of all ranks, is none unless its
    name states a rank."""
    files = sorted(filter(is_trace, folder.iterdir()))
    return [
        path for path in files if parts(path)[1] or not (is_other_json(path) or is_merged(path))
    ]


def merged_at(path: Path) -> list[Path]:
    """The files of all ranks in one, which are not read: the path, or those directly in it."""
    return sorted(filter(is_merged, path.iterdir() if path.is_dir() else [path]))


def folders_of_traces(path: Path) -> list[Path]:
    """The path itself where it is a file or holds traces; else the folders in it that do, at most
    FOLDERS_DEEP levels down (a run's folder has them in trace/). Itself where there are none.

    Raises OSError where it cannot be read; folders in it that cannot are left out.
    """
    return (_holding(path, FOLDERS_DEEP) or [path]) if path.is_dir() else [path]


def _holding(folder: Path, levels: int) -> list[Path]:
    if _in_folder(folder):
        return [folder]
    found: list[Path] = []
    for inside in sorted(filter(Path.is_dir, folder.iterdir())) if levels else []:
        with suppress(PermissionError):
            found += _holding(inside, levels - 1)
    return found


def cases_of(paths: list[Path]) -> dict[str, Members]:
    """Files by case: those of each folder on their own, then by name; loose files together.

    One case where no rank comes twice, or where no name has its PP rank; replicas of a server
    (DP) are cases of their own.
    Raises FileNotFoundError naming the first path that does not exist.
    """
    folders = [path for path in paths if path.is_dir()]
    if len(folders) <= 1:
        return _by_name(trace_files(paths))
    names = Counter(path.name for path in folders)
    groups = [
        (path.name if names[path.name] == 1 else str(path), _by_name(trace_files([path])))
        for path in folders
    ]
    loose = [path for path in paths if not path.is_dir()]
    groups += [("", _by_name(trace_files(loose)))] if loose else []
    cases: dict[str, Members] = {}
    for folder, found in groups:
        for name, members in found.items():
            key = folder if folder and len(found) == 1 else f"{folder}/{name}".lstrip("/")
            cases[key if key not in cases else f"{key} ({len(cases) + 1})"] = members
    return cases


def _by_name(files: list[Path]) -> dict[str, Members]:
    identified = identify(files)
    nameless = [path for path, who in identified if not who.named]
    named = [(path, who) for path, who in identified if who.named]
    profiles, replicated = _profiles([path for path, _ in named])
    ranks = [(who.pp, who.tp) for _, who in named]
    ranks_named = any("PP" in who.named for _, who in named)
    if not replicated and (not ranks_named or len(set(ranks)) == len(ranks)):
        name = _common([parts(path)[0] for path, _ in named or identified]).rstrip("-_.")
        paths = [*(path for path, _ in named), *nameless]
        return {name or "trace": identify(paths)} if paths else {}
    if len(profiles) == 1:
        next(iter(profiles.values())).extend(nameless)
    else:
        profiles |= {parts(path)[0]: [path] for path in nameless}
    return {name: identify(same) for name, same in sorted(profiles.items())}


def _profiles(files: list[Path]) -> tuple[dict[str, list[Path]], bool]:
    """Files by their names before the ranks, and whether some are of replicas of a server (DP),
    which are cases of their own.

    With DP attention the files of one TP rank have one DP rank: they are of one server.
    """
    stems: dict[str, list[tuple[Path, dict[str, int]]]] = {}
    for path in files:
        stem, ranks = parts(path)
        stems.setdefault(stem, []).append((path, ranks))
    found: dict[str, list[Path]] = {}
    replicated = False
    for stem, members in stems.items():
        lanes = {(ranks.get("TP", 0), ranks["DP"]) for _, ranks in members if "DP" in ranks}
        replicas = len(lanes) > len({tp for tp, _ in lanes})
        replicated |= replicas
        for path, ranks in members:
            dp = f" DP{ranks['DP']}" if replicas and "DP" in ranks else ""
            found.setdefault(stem + dp, []).append(path)
    return found, replicated


def _common(names: list[str]) -> str:
    """The beginning all names share."""
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return "".join(letters[0] for letters in alike)


def workers_for(paths: list[Path]) -> int:
    """One process a file up to the cores there are; 1 where starting them would cost more."""
    text = sum(
        path.stat().st_size * (TEXT_OF_GZIP if path.suffix == ".gz" else 1) for path in paths
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return 1 if text < PARALLEL_FROM_BYTES else max(1, min(len(paths), cores or 1))


def _shares(sizes: list[int], processes: int) -> list[list[int]]:
    """Indices of files by process: the next largest goes to whom has least; largest share first."""
    shares: list[list[int]] = [[] for _ in range(processes)]
    loads = [0] * processes
    for at in sorted(range(len(sizes)), key=lambda at: -sizes[at]):
        least = loads.index(min(loads))
        shares[least].append(at)
        loads[least] += sizes[at]
    return [share for _, share in sorted(zip(loads, shares, strict=True), reverse=True)]


def _read_share(members: Members) -> list[RankTrace]:
    return [read_rank(path, who) for path, who in members]


def _read_all(members: Members) -> list[RankTrace]:
    """Read files in parallel processes, this one being one of them."""
    paths = [path for path, _ in members]
    processes = workers_for(paths)
    if processes == 1:
        return _read_share(members)
    shares = _shares([path.stat().st_size for path in paths], processes)
    parts = [[members[at] for at in share] for share in shares]
    try:
        with futures.ProcessPoolExecutor(processes - 1) as pool:
            others = pool.map(_read_share, parts[1:])
            read = [_read_share(parts[0]), *others]
    except futures.BrokenExecutor:  # one was killed, as for want of memory: one after another
        return _read_share(members)
    found = {
        at: rank
        for share, ranks in zip(shares, read, strict=True)
        for at, rank in zip(share, ranks, strict=True)
    }
    return [found[at] for at in range(len(members))]


NO_RANKS = (
    "no file says which rank it is of, in its name (as 1-TP-0-PP-1.trace.json.gz) or in "
    "distributedInfo: one is taken for PP0"
)


def read_case(name: str, members: Members) -> Case:
    """Read all files of a case; files that hold nothing are warned of and left out."""
    read = _read_again(members, _read_all(members))
    some_known = any(rank.rank_known and rank.events for rank in read)
    warnings: list[str] = []
    ranks: dict[tuple[int, int], RankTrace] = {}
    # of two files of a rank that which says so itself, and has kernels
    for rank in sorted(
        (each for each in read if each.events),
        key=lambda r: (r.pp, r.tp, r.world_size is None, not len(r.kernels.times)),
    ):
        if some_known and not rank.rank_known:
            continue
        other = ranks.setdefault((rank.pp, rank.tp), rank)
        if other is not rank:
            warnings.append(
                f"{Path(rank.path).name}: PP{rank.pp} TP{rank.tp} was read already "
                f"from {Path(other.path).name}: left out"
            )
    tp_size = max((rank.tp_size for rank in read), default=1)
    worlds = [rank.world_size // tp_size for rank in read if rank.world_size]
    pp_size = max([members[0][1].pp_size, *worlds, *(pp + 1 for pp, _ in ranks)])
    case = Case(
        name,
        list(ranks.values()),
        pp_size,
        tp_size,
        _problems(read, some_known) + warnings,
        placed=placement(members[0][0]),
    )
    if ranks and not some_known and any(rank.p2p for rank in ranks.values()):
        case.warnings.append(NO_RANKS)
    missing = [
        f"PP{pp}" + (f" TP{tp}" if tp_size > 1 else "")
        for pp in range(pp_size)
        for tp in range(tp_size)
        if (pp, tp) not in ranks
    ]
    if missing and ranks:
        more = f" and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
        case.warnings.append(
            f"no trace of {', '.join(missing[:MOST_NAMED])}{more}: its edges are not paired"
        )
    return case


def _problems(read: list[RankTrace], some_known: bool) -> list[str]:
    """What is wrong with files, a line each; what is wrong with all of them in one."""
    used = [rank for rank in read if rank.rank_known or not some_known or not rank.events]
    of_ranks = [set(rank.problems) for rank in used if rank.events]
    shared = {NO_KERNELS, GPU_ONLY}.intersection(*of_ranks) if of_ranks else set()
    return [
        *(
            f"{Path(rank.path).name}: {text}"
            for rank in used
            for text in rank.problems
            if text not in shared
        ),
        *(
            f"{Path(rank.path).name}: its rank is neither in its name nor in distributedInfo, "
            "those of other files are: left out"
            for rank in read
            if rank not in used
        ),
        *(f"all ranks: {text}" for text in sorted(shared)),
    ]


def _read_again(members: Members, read: list[RankTrace]) -> list[RankTrace]:
    """The ranks, those read again whose clock or TP size only the other files have.

    Kineto counts ts from the start of a quarter: ranks whose ts are near each other and whose
    baseTimeNanoseconds are days apart have the same.
    """
    tp_size = max((rank.tp_size for rank in read), default=1)
    bases = Counter(rank.base_ns for rank in read if rank.base_ns and rank.times_us)
    common = bases.most_common(1)[0][0] if bases else 0
    theirs = next((rank.times_us for rank in read if rank.base_ns == common), None)
    found = []
    for (path, who), rank in zip(members, read, strict=True):
        near = theirs and rank.times_us and abs(theirs[0] - rank.times_us[0]) < DAY_US
        clock_off = bool(near) and abs(rank.base_ns - common) > 1000 * DAY_US
        if clock_off or (rank.tp_size != tp_size and rank.world_size is None):
            again = read_rank(path, who._replace(tp_size=tp_size), common if clock_off else None)
            again.problems += [OTHER_BASE] * clock_off
            found.append(again)
        else:
            found.append(rank)
    return found
