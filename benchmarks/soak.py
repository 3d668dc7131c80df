"""Does run_repro.sh leave anything behind? Many launches against the tests' stand-in for sglang.

USAGE       python benchmarks/soak.py [--cycles 100] [--runs] [--no-profile] [--json FILE]
CYCLES      start, warm up, measure, profile, stop, merge, analyse; all in one run (--rounds), or
            with --runs a run each in the same --out, which moves the one before aside
SAMPLES     after every launch: memory and open files of the harness's bash; at the end, against
            the beginning: processes of the run, its port, records in .state/groups, the lock,
            temporary files, shared memory, sockets, memory of the machine
EXIT        0 nothing was left and no launch failed, 1 otherwise
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from fake_sglang.harness import Harness, Running  # noqa: E402

POLL_S = 0.1


@dataclass(frozen=True)
class Machine:
    """What a run may leave on a machine; sizes in MB."""

    processes: int  # of the run
    groups: int  # records in .state/groups
    temporary: int  # entries of the folder of temporary files
    shared: int  # entries of /dev/shm
    listening: int  # sockets that listen, of the machine
    available_mb: float


@dataclass(frozen=True)
class Sample:
    """The harness's bash after a launch."""

    launch: int
    memory_mb: float
    open_files: int


def machine(harness: Harness, temporary: Path) -> Machine:
    groups = harness.root / ".state" / "groups"
    listening = 0
    for name in ("tcp", "tcp6"):
        lines = Path("/proc/net", name).read_text().splitlines()[1:]
        listening += sum(line.split()[3] == "0A" for line in lines)
    return Machine(
        len(harness.left_over()),
        len(list(groups.iterdir())) if groups.exists() else 0,
        len(list(temporary.iterdir())),
        len(list(Path("/dev/shm").iterdir())),
        listening,
        _kb("/proc/meminfo", "MemAvailable:") / 1e3,
    )


def _kb(path: str, name: str) -> int:
    for line in Path(path).read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    return 0


def sample(pid: int, launch: int) -> Sample:
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Sample(launch, _kb(f"/proc/{pid}/status", "VmRSS:") / 1e3, files)


def done(harness: Harness) -> int:
    """Launches of the current run whose record says that they ended."""
    records = [path.read_text() for path in harness.logs.glob("*_launch.json")]
    return sum('"status": "running"' not in text for text in records)


def watch(harness: Harness, running: Running, before: int) -> Iterator[Sample]:
    """A sample after each launch, until the run ends."""
    seen = 0
    while running.process.poll() is None:
        now = done(harness) if harness.logs.exists() else 0
        if now > seen:
            seen = now
            try:
                yield sample(running.process.pid, before + now)
            except OSError:  # it has just ended
                return
        time.sleep(POLL_S)


def soak(harness: Harness, cycles: int, runs: bool, options: list[str]) -> tuple[list[Sample], int]:
    """All samples, and how many launches did not end as ok."""
    samples, bad = [], 0
    for number in range(cycles if runs else 1):
        rounds = 1 if runs else cycles
        running = harness.start("--cases", "one", "--rounds", str(rounds), *options)
        samples += list(watch(harness, running, number * rounds))
        running.end()
        bad += sum(status != "ok" for status in harness.statuses().values())
    return samples, bad


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def report(samples: list[Sample], first: Machine, last: Machine, bad: int, port_free: bool) -> None:
    print(f"launches sampled {len(samples)}, not ok {bad}, port free {port_free}")
    print(f"{'':<22}{'before':>10}{'after':>10}")
    for name in vars(first):
        print(f"{name:<22}{vars(first)[name]:>10.0f}{vars(last)[name]:>10.0f}")
    for name in ("memory_mb", "open_files"):
        values = [vars(each)[name] for each in samples]
        spread = f"first {values[0]:.1f}, last {values[-1]:.1f}, highest {max(values):.1f}"
        print(f"bash {name:<17}{spread}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cycles", type=int, default=100)
    parser.add_argument("--runs", action="store_true", help="a run each")
    parser.add_argument("--no-profile", action="store_true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    options = ["--no-profile"] if given.no_profile else []
    room = Path(tempfile.mkdtemp(prefix="soak-"))
    temporary = room / "tmp"
    temporary.mkdir()
    begin_s = time.monotonic()
    try:
        with Harness(room / "r") as harness:
            harness.env["TMPDIR"] = str(temporary)
            harness.case("one")
            first = machine(harness, temporary)
            samples, bad = soak(harness, given.cycles, given.runs, options)
            last, port_free = machine(harness, temporary), port_is_free(harness.port)
            locked = (harness.out / "run.lock").exists()
            kept = len(list(harness.out.glob("previous/*")))
    finally:
        shutil.rmtree(room)
    report(samples, first, last, bad, port_free)
    print(f"lock left {locked}, runs moved aside {kept}, {time.monotonic() - begin_s:.0f} s")
    if given.json:
        document = {
            "samples": [vars(each) for each in samples],
            "before": vars(first),
            "after": vars(last),
        }
        given.json.write_text(json.dumps(document, indent=1) + os.linesep)
    left = last.processes + last.groups + last.temporary - first.temporary
    return int(bool(left or bad or locked or not port_free or len(samples) < given.cycles))


if __name__ == "__main__":
    sys.exit(main())
