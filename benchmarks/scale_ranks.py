"""What many ranks cost: analysis and merge of 8, 16, 32, 64 ranks made from a real profile of four.

USAGE       python benchmarks/scale_ranks.py FOLDER [--ranks 8 16 32 64] [--megabytes 10]
                [--scratch FOLDER]
FOLDER      the traces of four PP ranks of one TP rank each (a profile of a real run)
RANKS       N are PP 4 x TP N/4: each TP lane is a copy of the four, its ranks renumbered, eight
            ranks a host; so all messages pair. Each rank has so many megabytes of JSON, made by
            repeating its events later in time
MEASURES    of `analyze` and `merge` (with its limit, and with --limit 0 where --whole is given) as
            commands: seconds with imports, CPU seconds of all its processes (what other work on
            the machine changes least), memory (the largest sum of what its processes hold,
            shared pages counted once, polled), disk of traces and of the merged file
"""

from __future__ import annotations

import argparse
import gzip
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_traces import enlarged, first_and_last_us, tree_bytes

POLL_S = 0.1
PP_SIZE, RANKS_A_HOST = 4, 8
ROOT = Path(__file__).resolve().parents[1]


def head_of(text: bytes, pp: int, tp: int, tp_size: int) -> bytes:
    """The JSON up to its events, as that of another rank of a larger server."""
    rank = pp * tp_size + tp
    group = ", ".join(str(one * tp_size + tp) for one in range(PP_SIZE))
    changes = (
        (rb'"rank": \d+, "world_size": \d+', b'"rank": %d, "world_size": %d'
         % (rank, PP_SIZE * tp_size)),
        (rb'"ranks": \[0, 1, 2, 3\]', b'"ranks": [%s]' % group.encode()),
        (rb'"ranks": \[%d\]' % pp, b'"ranks": [%d]' % rank),
        (rb'"schemaVersion": 1,', b'"schemaVersion": 1, "host_name": "host%d",'
         % (rank // RANKS_A_HOST)),
    )  # fmt: skip
    for pattern, new in changes:
        text = re.sub(pattern, new, text)
    return text


def make(folder: Path, ranks: int, megabytes: int, target: Path) -> int:
    """The ranks' traces in target; the size of their JSON in bytes. A file is two gzip members: its
    own head, and the events that all lanes of its stage have in common."""
    tp_size, size = ranks // PP_SIZE, 0
    texts = [gzip.decompress(path.read_bytes()) for path in sorted(folder.glob("*.json.gz"))]
    extents = [first_and_last_us(text) for text in texts]
    turn_us = max(last for _, last in extents) - min(first for first, _ in extents) + 1000
    for pp, text in enumerate(texts):
        at = text.index(b'"traceEvents": [')
        times = max(1, round(megabytes * 1e6 * PP_SIZE / sum(map(len, texts))))
        pieces = list(enlarged(text, times, turn_us))
        body = b"".join(pieces)[at:]
        packed = gzip.compress(body, 1)
        for tp in range(tp_size):
            name = f"1790000000-TP-{tp}-PP-{pp}.trace.json.gz"
            (target / name).write_bytes(gzip.compress(head_of(text[:at], pp, tp, tp_size)) + packed)
        size += tp_size * (at + len(body))
    return size


def measured(*words: str) -> tuple[float, float, float, str]:
    """Seconds, CPU seconds and peak MB of a command, and what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryFile("w+") as said:
        begin = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "repro_pp_graphs", *words],
            cwd=ROOT,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        peak = 0
        while process.poll() is None:
            peak = max(peak, tree_bytes(process.pid))
            time.sleep(POLL_S)
        seconds = time.perf_counter() - begin
        said.seek(0)
        text = said.read()
    if process.returncode:
        raise SystemExit(f"scale_ranks: {words[0]} failed:\n{text}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return seconds, cpu_s, peak / 1e6, text


def folder_mb(path: Path) -> float:
    return sum(each.stat().st_size for each in path.rglob("*") if each.is_file()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--megabytes", type=int, default=10)
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--whole", action="store_true")
    options = parser.parse_args()
    print(
        f"{'ranks':>6} {'job':<14} {'JSON MB':>8} {'disk MB':>8} {'s':>7} {'CPU s':>7} {'/GB':>6} "
        f"{'MB':>5}"
    )
    for ranks in options.ranks:
        with tempfile.TemporaryDirectory(dir=options.scratch) as made:
            traces, merged = Path(made, "t"), Path(made, "merged.json")
            traces.mkdir()
            size = make(options.folder, ranks, options.megabytes, traces)
            jobs = {"analyze": ["analyze", str(traces)]}
            jobs["merge"] = ["merge", str(traces), "-o", str(merged)]
            if options.whole:
                jobs["merge whole"] = [*jobs["merge"], "--limit", "0"]
            for job, words in jobs.items():
                seconds, cpu_s, peak, text = measured(*words)
                disk = merged.stat().st_size / 1e6 if merged.exists() else folder_mb(traces)
                print(
                    f"{ranks:>6} {job:<14} {size / 1e6:>8.0f} {disk:>8.0f} {seconds:>7.1f} "
                    f"{cpu_s:>7.1f} {1e9 * cpu_s / size:>6.2f} {peak:>5.0f}",
                    flush=True,
                )
                if job == "analyze":
                    print("\n".join(f"       {line}" for line in text.splitlines()[:3]))
                merged.unlink(missing_ok=True)
            shutil.rmtree(traces)


if __name__ == "__main__":
    main()
