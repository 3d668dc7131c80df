"""Does run_repro.sh leave anything behind? Many launches against the tests' stand-in for sglang.

USAGE       python benchmarks/soak.py [--cycles 100] [--runs | --interrupt] [--no-profile]
CYCLES      start, warm up, measure, profile, stop, merge, analyse; all in one run (--rounds), or
            with --runs a run each in the same --out, which moves the one before aside. With
            --interrupt every other run gets Ctrl-C, SIGTERM or SIGHUP, once or twice, at a random
            moment, and every fourth goes on with what the one before left (--resume)
SAMPLES     after every launch: memory and open files of the harness's bash; with --interrupt after
            every run, else at the end, against the beginning: processes of the run, its port,
            records in .state/groups, the lock, temporary files, files beside --out, shared memory,
            sockets, memory of the machine
EXIT        0 nothing was left and no launch failed, 1 otherwise
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from fake_sglang.harness import Done, Harness, Running  # noqa: E402

POLL_S = 0.1
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AGAIN_S = 0.3  # at most, before the second signal of an impatient person
INTERRUPTED = (130, 143, 129)  # exit statuses, as of a shell that a signal has ended


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


def beside(harness: Harness) -> set[str]:
    """What lies in the harness's folder: results, its own state and compiled files left out."""
    found = set()
    for path in harness.root.rglob("*"):
        name = path.relative_to(harness.root)
        if name.parts[0] not in ("out", ".state") and "__pycache__" not in name.parts:
            found.add(str(name))
    return {name for name in found if not name.startswith("terminal_")}


def left(harness: Harness, temporary: Path, before: set[str]) -> list[str]:
    """What a run that has ended has left behind, in words."""
    groups = harness.root / ".state" / "groups"
    found = [f"process: {line}" for line in harness.left_over()]
    found += [f"record: {path.name}" for path in (groups.iterdir() if groups.exists() else ())]
    found += [f"temporary file: {path.name}" for path in temporary.iterdir()]
    found += [f"file: {name}" for name in sorted(beside(harness) - before)]
    found += ["lock"] * (harness.out / "run.lock").exists()
    drafts = [*harness.out.rglob("*.part"), *harness.out.rglob(".merge-*")]
    found += [f"draft: {path.name}" for path in drafts]
    return found + ["port"] * (not port_is_free(harness.port))


def disturb(running: Running, longest_s: float, rng: random.Random) -> str:
    """Send a signal at a random moment of a run, perhaps two; which, and when, in words."""
    moment_s, number = rng.uniform(0, longest_s), rng.choice(SIGNALS)
    end_s = time.monotonic() + moment_s
    while running.process.poll() is None and time.monotonic() < end_s:
        time.sleep(0.01)
    if running.process.poll() is not None:
        return "ended before its signal"
    running.process.send_signal(number)
    twice = rng.random() < 0.3
    if twice:
        time.sleep(rng.uniform(0, AGAIN_S))
        running.process.send_signal(number)
    return f"{number.name}{' twice' * twice} after {moment_s:.2f} s"


def faults_of(harness: Harness, done: Done, disturbed: bool) -> list[str]:
    """What is wrong with how a run ended."""
    allowed = (0, *INTERRUPTED) if disturbed else (0,)
    found = [f"exit status {done.status}"] * (done.status not in allowed)
    found += ["a traceback"] * ("Traceback" in done.out + done.err)
    if not disturbed:
        found += [f"{name}: {how}" for name, how in harness.statuses().items() if how != "ok"]
    return found


def interrupt(
    harness: Harness, temporary: Path, cycles: int, options: list[str], seed: int
) -> tuple[int, int]:
    """Runs of which every other one is disturbed: how many were, and how many left something."""
    rng, before, longest_s = random.Random(seed), beside(harness), 0.0
    disturbed = bad = 0
    for number in range(cycles):
        resume = ["--resume"] if number % 4 == 2 and harness.logs.exists() else []
        begin_s = time.monotonic()
        running = harness.start("--cases", "one", *options, *resume)
        what = disturb(running, longest_s, rng) if number % 2 else ""
        done = running.end()
        if not what and not resume:
            longest_s = time.monotonic() - begin_s  # the machine's load changes
        sent = what.startswith("SIG")
        disturbed += sent
        found = [*faults_of(harness, done, sent), *left(harness, temporary, before)]
        bad += bool(found)
        print(
            f"{number + 1:>4} {what or ' '.join(['whole', *resume]):<34} exit {done.status}", end=""
        )
        print("".join(f"\n     ! {each}" for each in found), flush=True)
        if found:
            print("".join(f"     | {line}\n" for line in done.lines[-12:]), end="")
    return disturbed, bad


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def report(samples: list[Sample], first: Machine, last: Machine, bad: int, port_free: bool) -> None:
    print(f"launches sampled {len(samples)}, not ok {bad}, port free {port_free}")
    print(f"{'':<22}{'before':>10}{'after':>10}")
    for name in vars(first):
        print(f"{name:<22}{vars(first)[name]:>10.0f}{vars(last)[name]:>10.0f}")
    for name in ("memory_mb", "open_files") if samples else ():
        values = [vars(each)[name] for each in samples]
        spread = f"first {values[0]:.1f}, last {values[-1]:.1f}, highest {max(values):.1f}"
        print(f"bash {name:<17}{spread}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cycles", type=int, default=100)
    parser.add_argument("--runs", action="store_true", help="a run each")
    parser.add_argument("--interrupt", action="store_true", help="every other run, by a signal")
    parser.add_argument("--seed", type=int, default=1, help="of the moments and signals")
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
            if given.interrupt:
                found = interrupt(harness, temporary, given.cycles, options, given.seed)
                print(f"{found[0]} of {given.cycles} runs were interrupted")
                samples, bad = [], found[1]
            else:
                samples, bad = soak(harness, given.cycles, given.runs, options)
            last, port_free = machine(harness, temporary), port_is_free(harness.port)
            locked = (harness.out / "run.lock").exists()
            aside = len(list(harness.out.glob("previous/*")))
    finally:
        shutil.rmtree(room, ignore_errors=True)
    report(samples, first, last, bad, port_free)
    print(f"lock left {locked}, runs moved aside {aside}, {time.monotonic() - begin_s:.0f} s")
    if given.json:
        document = {
            "samples": [vars(each) for each in samples],
            "before": vars(first),
            "after": vars(last),
        }
        given.json.write_text(json.dumps(document, indent=1) + os.linesep)
    kept = last.processes + last.groups + last.temporary - first.temporary
    few = not given.interrupt and len(samples) < given.cycles
    return int(bool(kept or bad or locked or not port_free or few))


if __name__ == "__main__":
    sys.exit(main())
