"""How fast traces are analysed and merged, as ratios to other ways, all in one run.

USAGE       python benchmarks/bench_traces.py FOLDER [--hta-python PYTHON] [--megabytes 0 1000]
                [--growth MEGABYTES] [--path MEGABYTES]
FOLDER      the per-rank traces of one case (a profile of a real run)
HTA         --hta-python names an interpreter that has HolisticTraceAnalysis 0.5.0; left out without
SIZES       0 is the folder as it is; N makes ranks of N megabytes of JSON in all by repeating its
            events later in time, in a scratch folder (about a tenth of N on disk for the traces,
            N for one merged file at a time); removed at the end
GROWTH      ours alone on N, 2 N and 4 N megabytes (seconds a GB should stay the same), and on 4 N
            with one core
PATH        what the critical path adds to the analysis on N megabytes, of which the middle decode
            steps are repeated without a gap: CPU seconds of all of its processes, and memory
MEASURES    seconds inside the process, imports left out, medians over the rounds, whose jobs follow
            each other; memory in a run of its own: the largest sum of what its processes hold,
            shared pages counted once (Pss), polled every 10 ms
"""

from __future__ import annotations

import argparse
import gzip
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
POLL_S = 0.01

TIMED = "import sys, time; from pathlib import Path; folder = Path(sys.argv[1])\n"
OURS = """
from repro_pp_graphs.traces.read.cases import cases_of, read_case
from repro_pp_graphs.traces.explain.analysis import analyze
from repro_pp_graphs.traces.merge.chrome_trace import merge
from repro_pp_graphs.traces.merge.pipeline_tracks import Additions, shifts
start = time.perf_counter()
cases = [read_case(*item) for item in cases_of([folder]).items()]
"""
DECODE_ALL = """
from concurrent.futures import ProcessPoolExecutor
from repro_pp_graphs.traces.read.cases import trace_files, workers_for
paths = trace_files([folder])
start = time.perf_counter()
workers = workers_for(paths)
if workers == 1:
    list(map(decode, paths))
else:
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(decode, paths))
"""
JOBS = {
    "analyse": TIMED + OURS + "[analyze(case) for case in cases]\n",
    "decode": TIMED
    + """
from repro_pp_graphs.traces.read.blocks import TraceFile
from repro_pp_graphs.traces.read.event import Event
from repro_pp_graphs.traces.read.decoding import Decoding, events_of
def decode(path):
    for events in events_of(TraceFile(path), Decoding(Event)):
        pass
"""
    + DECODE_ALL,
    "decode whole": TIMED
    + """
import gzip, msgspec
from repro_pp_graphs.traces.read.event import Event
from repro_pp_graphs.traces.read.blocks import open_trace
class File(msgspec.Struct):
    traceEvents: list[Event]
def decode(path):
    with open_trace(path) as file:
        msgspec.json.decode(file.read(), type=File)
"""
    + DECODE_ALL,
    "HTA load": TIMED
    + """
import warnings
warnings.filterwarnings("ignore")
from hta.trace_analysis import TraceAnalysis
start = time.perf_counter()
TraceAnalysis(trace_dir=str(folder))
""",
    "merge": TIMED + OURS + "merge(cases, shifts(cases), Additions(cases), Path(sys.argv[2]))\n",
    "load and dump": TIMED
    + """
import gzip, json
start = time.perf_counter()
events = []
for path in sorted(folder.glob("*.json.gz")):
    with gzip.open(path) as file:
        events += json.load(file)["traceEvents"]
with open(sys.argv[2], "w") as out:
    json.dump({"traceEvents": events}, out)
""",
}
JOBS["analyse with path"] = (
    TIMED
    + "from repro_pp_graphs.traces.path.whole_analysis import explained\n"
    + OURS
    + "[explained(case) for case in cases]\n"
)
WITHOUT_PATH = tuple(job for job in JOBS if job != "analyse with path")
# CPU seconds of the process and of those that it waited for
DONE = (
    "print('seconds', time.perf_counter() - start)\nimport os; print('cpu', sum(os.times()[:4]))\n"
)


@dataclass(frozen=True)
class Cost:
    """One job's time and memory."""

    seconds: float
    megabytes: float


def tree_bytes(pid: int) -> int:
    """Bytes that a process and its descendants hold, pages shared by n of them counted as 1/n."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:
        return 0
    held = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
    return (1024 * int(held[1]) if held else 0) + sum(map(tree_bytes, children))


def run(
    python: str,
    job: str,
    *arguments: Path,
    cores: int | None = None,
    watch: bool = False,
    printed: str = "seconds",
) -> float:
    """Seconds of a job in a process of its own on as many cores, or what else it prints; with
    `watch` its megabytes."""
    command = [python, "-c", JOBS[job] + DONE, *map(str, arguments)]
    paths = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": paths}
    usable = sorted(os.sched_getaffinity(0))
    if cores:
        command = ["taskset", "--cpu-list", ",".join(map(str, usable[:cores])), *command]
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryDirectory() as elsewhere:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=elsewhere,  # python -c looks for modules in the folder it starts in
            stdout=said,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        peak = 0
        while watch and process.poll() is None:
            peak = max(peak, tree_bytes(process.pid))
            time.sleep(POLL_S)
        process.wait()
        said.seek(0)
        found = re.search(rf"^{printed} (\S+)$", said.read(), re.MULTILINE)
    if process.returncode or not found:
        raise SystemExit(f"bench_traces: the job '{job}' failed with {process.returncode}")
    return peak / 1e6 if watch else float(found[1])


def first_and_last_us(text: bytes) -> tuple[float, float]:
    moments = [float(ts) for ts in re.findall(rb'"ph": "X"[^}]*?"ts": ([\d.]+)', text)]
    return min(moments), max(moments)


def enlarged(text: bytes, times: int, turn_us: float) -> Iterator[bytes]:
    """The trace with its events repeated, each copy a turn later and with ids of its own."""
    head = text.index(b'"traceEvents": [') + len(b'"traceEvents": [')
    tail = text.rindex(b"]")
    events = text[head:tail].rstrip()
    yield text[:head] + events
    for copy in range(1, times):
        yield b"," + moved(events, copy * turn_us, copy * 10_000_000)
    yield b"\n  " + text[tail:]


def moved(events: bytes, later_us: float, first_id: int) -> bytes:
    """Events so much later, ids so much higher."""
    events = re.sub(
        rb'"ts": ([\d.]+)', lambda found: b'"ts": %.3f' % (float(found[1]) + later_us), events
    )
    return re.sub(
        rb'("(?:correlation|External id|id)": )(\d+)',
        lambda found: found[1] + b"%d" % (int(found[2]) + first_id),
        events,
    )


def make(folder: Path, megabytes: int, target: Path) -> int:
    """Enlarged copies of all ranks in target; returns the size of their JSON in bytes."""
    texts = {
        path.name: gzip.decompress(path.read_bytes()) for path in sorted(folder.glob("*.json.gz"))
    }
    whole = sum(map(len, texts.values()))
    times = max(1, round(megabytes * 1e6 / whole))
    extents = [first_and_last_us(text) for text in texts.values()]
    turn_us = max(last for _, last in extents) - min(first for first, _ in extents) + 1000
    size = 0
    for name, text in texts.items():
        with gzip.open(target / name, "wb", compresslevel=1) as out:
            for piece in enlarged(text, times, turn_us):
                size += len(piece)
                out.write(piece)
    return size


def steady_us(folder: Path) -> tuple[float, float]:
    """A time of whole decode steps as ts of the files: from a send of rank 0 to one as far on in
    the ring, the first and the last steps left out."""
    sys.path.insert(0, str(HERE.parent))
    from repro_pp_graphs.traces.commands.paths import read_cases  # noqa: PLC0415
    from repro_pp_graphs.traces.explain.host import anchors  # noqa: PLC0415
    from repro_pp_graphs.traces.path.whole_analysis import studied  # noqa: PLC0415

    study = studied(read_cases([folder])[0])
    first = study.hosts[0]
    sent = [message.start_ns for message in anchors(first, study.case.pp_size)]
    begin, turns = len(sent) // 8, len(sent) * 3 // 4
    over = begin + turns - turns % study.case.pp_size
    low, high = ((ns - first.rank.base_ns) / 1000 for ns in (sent[begin], sent[over]))
    return low, high


def without_gaps(text: bytes, times: int, begin_us: float, end_us: float) -> Iterator[bytes]:
    """The trace with its events of a time alone, repeated as often as that."""
    head = text.index(b'"traceEvents": [') + len(b'"traceEvents": [')
    tail = text.rindex(b"]")
    events = re.split(rb",(?=\s*\{\s*\"ph\")", text[head:tail].rstrip())
    moments = [re.search(rb'"ph": "[^M]".*?"ts": ([\d.]+)', each, re.DOTALL) for each in events]
    kept = b",".join(
        each
        for each, moment in zip(events, moments, strict=True)
        if moment and begin_us <= float(moment[1]) < end_us
    )
    yield text[:head] + b",".join(each for each in events if b'"ph": "M"' in each)
    for copy in range(times):
        yield b"," + moved(kept, copy * (end_us - begin_us), copy * 10_000_000)
    yield b"\n  " + text[tail:]


def make_steady(folder: Path, megabytes: int, target: Path) -> int:
    """As `make`, with the steps in the middle repeated without gaps."""
    begin_us, end_us = steady_us(folder)
    paths = sorted(folder.glob("*.json.gz"))
    texts = {path.name: gzip.decompress(path.read_bytes()) for path in paths}
    once = sum(sum(map(len, without_gaps(text, 1, begin_us, end_us))) for text in texts.values())
    size = 0
    for name, text in texts.items():
        with gzip.open(target / name, "wb", compresslevel=1) as out:
            for piece in without_gaps(text, round(megabytes * 1e6 / once), begin_us, end_us):
                size += len(piece)
                out.write(piece)
    return size


def compare(folder: Path, hta_python: str | None, rounds: int, scratch: Path) -> dict[str, Cost]:
    """Cost of every job on a folder."""
    pythons = {job: hta_python if job == "HTA load" else sys.executable for job in WITHOUT_PATH}
    seconds: dict[str, list[float]] = {job: [] for job, python in pythons.items() if python}
    megabytes: dict[str, float] = {}
    out = scratch / "merged.json"
    for number in range(rounds + 1):
        for job, times in seconds.items():
            found = run(str(pythons[job]), job, folder, out, watch=number == rounds)
            out.unlink(missing_ok=True)
            if number < rounds:
                times.append(found)
            else:
                megabytes[job] = found
    return {job: Cost(statistics.median(times), megabytes[job]) for job, times in seconds.items()}


def lines(title: str, costs: dict[str, Cost]) -> list[str]:
    """The costs and the ratios that matter."""
    found = [title, f"  {'job':<16} {'seconds':>9} {'peak MB':>9}"]
    found += [f"  {job:<16} {c.seconds:>9.3f} {c.megabytes:>9.0f}" for job, c in costs.items()]
    ours, merged = costs["analyse"], costs["merge"]
    if "HTA load" in costs:
        theirs = costs["HTA load"]
        found.append(
            f"  analyse is {theirs.seconds / ours.seconds:.1f} times as fast as HTA loads, with "
            f"{100 * ours.megabytes / theirs.megabytes:.0f}% of its memory"
        )
    for job, what in (("decode whole", "of whole files"), ("decode", "in our own small blocks")):
        found.append(
            f"  analyse takes {ours.seconds / costs[job].seconds:.2f} times as long as gunzip and "
            f"typed decode {what}"
        )
    found.append(
        f"  merge is {costs['load and dump'].seconds / merged.seconds:.1f} times as fast as json "
        f"load and dump, with {100 * merged.megabytes / costs['load and dump'].megabytes:.0f}% "
        "of its memory"
    )
    return found


def growth(folder: Path, megabytes: int, rounds: int, scratch: Path) -> list[str]:
    """Cost of ours on one, two and four times as much, and on one core and all."""
    found = [f"  {'job':<9} {'MB':>6} {'cores':>6} {'seconds':>9} {'s/GB':>7} {'peak MB':>9}"]
    out = scratch / "merged.json"
    every = len(os.sched_getaffinity(0))
    for times, cores in ((1, every), (2, every), (4, every), (4, 1)):
        ranks = scratch / f"ranks_{times}"
        if not ranks.exists():
            ranks.mkdir()
            make(folder, times * megabytes, ranks)
        for job in ("analyse", "merge"):
            seconds = statistics.median(
                run(sys.executable, job, ranks, out, cores=cores) for _ in range(rounds)
            )
            peak = run(sys.executable, job, ranks, out, cores=cores, watch=True)
            out.unlink(missing_ok=True)
            found.append(
                f"  {job:<9} {times * megabytes:>6} {cores:>6} {seconds:>9.3f} "
                f"{1000 * seconds / (times * megabytes):>7.2f} "
                f"{peak:>9.0f}"
            )
    return found


def path_cost(folder: Path, megabytes: int, rounds: int, scratch: Path) -> list[str]:
    """CPU time and memory of the analysis without and with the critical path, and their ratios."""
    ranks = scratch / "ranks"
    ranks.mkdir()
    size = make_steady(folder, megabytes, ranks)
    found = [f"{size / 1e6:.0f} MB of JSON made from {folder.name}, {rounds} round(s)"]
    jobs = ("analyse", "analyse with path")
    times: dict[str, list[float]] = {job: [] for job in jobs}
    for _ in range(rounds):
        for job in jobs:
            times[job].append(run(sys.executable, job, ranks, printed="cpu"))
    cpu = {job: statistics.median(values) for job, values in times.items()}
    peak = {job: run(sys.executable, job, ranks, watch=True) for job in jobs}
    found += [f"  {job:<18} {cpu[job]:>8.1f} CPU s {peak[job]:>8.0f} MB" for job in jobs]
    ratios = [values[jobs[1]] / values[jobs[0]] for values in (cpu, peak)]
    return [*found, f"  with the path: {ratios[0]:.2f} times the CPU, {ratios[1]:.2f} the memory"]


def main() -> None:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("folder", type=Path)
    made.add_argument("--hta-python")
    made.add_argument("--megabytes", type=int, nargs="*", default=[0])
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--growth", type=int, metavar="MEGABYTES")
    made.add_argument("--path", type=int, metavar="MEGABYTES")
    options = made.parse_args()
    for megabytes in options.megabytes:
        with tempfile.TemporaryDirectory(prefix="bench_traces_") as scratch:
            folder = options.folder
            if megabytes:
                folder = Path(scratch) / "ranks"
                folder.mkdir()
                size = make(options.folder, megabytes, folder)
                title = f"{size / 1e6:.0f} MB of JSON made from {options.folder.name}"
            else:
                title = f"{options.folder.name} as it is"
            rounds = 1 if megabytes > 500 else options.rounds
            costs = compare(folder, options.hta_python, rounds, Path(scratch))
            print("\n".join(lines(f"{title}, {os.cpu_count()} cores, {rounds} round(s)", costs)))
            sys.stdout.flush()
    if options.path:
        with tempfile.TemporaryDirectory(prefix="bench_traces_") as scratch:
            rows = path_cost(options.folder, options.path, options.rounds, Path(scratch))
            print("\n".join(rows))
    if options.growth:
        with tempfile.TemporaryDirectory(prefix="bench_traces_") as scratch:
            rows = growth(options.folder, options.growth, options.rounds, Path(scratch))
            print("\n".join([f"growth, {options.rounds} round(s)", *rows]))


if __name__ == "__main__":
    main()
