"""Fuzz a reader: any input at all, guided by what of the code each one reaches.

USAGE       python tests/fuzz/drive.py TARGET [--cpu-minutes 30] [--work FOLDER]
            python tests/fuzz/drive.py TARGET --keep [--work FOLDER]
TARGETS     arguments (argument files and their plan), answers (the client's wire), traces (analyze
            and merge), logs (server logs, diagnosis, the clock's rows)
FOLDER      /tmp/fuzz-TARGET: corpus/, found/ (an input a fault, the shortest) and figures.json,
            which add up over runs
--keep      few inputs, of FOLDER/corpus and those kept before, that together reach what all reach:
            into tests/data/fuzz, which test_fuzz_corpus.py runs again
NEEDS       atheris (pip install atheris, in an environment that has requests, msgspec and numpy)
EXIT        0 no fault in this run, 1 some, 2 usage or no atheris
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import resource
import sys
import time
import traceback
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
PACKAGE = str(ROOT / "repro_pp_graphs")
MODULES = {
    "arguments": "fuzz.arguments",
    "answers": "fuzz.answers",
    "traces": "fuzz.rank_traces",
    "logs": "fuzz.server_logs",
}
LONGEST = {"traces": 600, "arguments": 6000, "answers": 3000, "logs": 8000}
NOTE_S = 15.0  # of CPU, between two entries into figures.json
MOST_BYTES = 3 << 30  # of memory for one input: a reader that takes more is at fault


def place_of(error: BaseException) -> str:
    """A fault's kind: the exception, and the innermost line of the package it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(PACKAGE)]
    last = (ours or frames)[-1]
    where = (
        f"{Path(last.filename).stem}-{last.lineno}"
        if ours
        else re.split("[:0-9]", str(error))[0][:60]
    )
    return "".join(
        c if c.isalnum() or c in "-_" else "_" for c in f"{type(error).__name__}-{where}"
    )


def limit_memory() -> None:
    """Let this process take MOST_BYTES more than it has: then a MemoryError. What it has grows by
    half a megabyte with each traces input, all of it the engine's: without the engine the same
    inputs leave none."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MOST_BYTES, hard))


class Session:
    """One run of the engine: counts, keeps faults, ends when its CPU time is used."""

    def __init__(self, target: ModuleType, work: Path, cpu_minutes: float) -> None:
        self.target, self.work, self.limit_s = target, work, cpu_minutes * 60
        self.found = work / "found"
        self.found.mkdir(parents=True, exist_ok=True)
        self.runs = self.faults = 0
        self.noted_s = 0.0
        self.begin_s = time.process_time()

    def one(self, data: bytes) -> None:
        """Run one input; a fault is kept, and the engine goes on."""
        from fuzz.oracle import limited  # noqa: PLC0415 - after atheris has been set up

        self.runs += 1
        limit_memory()
        try:
            with limited():
                self.target.run(data)
        except Exception as error:
            self.keep(data, error)
        used_s = time.process_time() - self.begin_s
        if used_s > self.noted_s + NOTE_S or used_s > self.limit_s:
            self.noted_s = used_s
            self.note(used_s)
        if used_s > self.limit_s:
            os._exit(int(self.faults > 0))

    def keep(self, data: bytes, error: Exception) -> None:
        self.faults += 1
        path = self.found / place_of(error)
        if not path.exists() or path.stat().st_size > len(data):
            path.write_bytes(data)
            said = "".join(traceback.format_exception(error))[-6000:]
            path.with_name(path.name + ".txt").write_text(
                said, encoding="utf-8", errors="backslashreplace"
            )

    def note(self, used_s: float) -> None:
        """Add this run to the figures."""
        path = self.work / "figures.json"
        earlier: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        mine = {"pid": os.getpid(), "cpu_s": round(used_s), "runs": self.runs}
        mine |= {"faults": self.faults, "peak_mb": peak_mb}
        mine["corpus"] = len(list((self.work / "corpus").iterdir()))
        kept = [one for one in earlier if one["pid"] != os.getpid()]
        path.write_text(json.dumps([*kept, mine], indent=1))


def fuzz(name: str, work: Path, cpu_minutes: float) -> int:
    try:
        import atheris  # noqa: PLC0415 - no part of any environment here
    except ModuleNotFoundError:
        print("fuzz: needs atheris: pip install atheris into a virtual environment of your own")
        return 2
    with atheris.instrument_imports(include=["repro_pp_graphs"]):
        target = importlib.import_module(MODULES[name])
    corpus = work / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    from fuzz import corpus as kept_corpus  # noqa: PLC0415

    for at, data in enumerate([*target.seeds(), *kept_corpus.load(name)]):
        (corpus / f"seed-{at}").write_bytes(data)
    session = Session(target, work, cpu_minutes)
    engine = [f"-max_len={LONGEST[name]}", "-timeout=300", "-rss_limit_mb=0"]
    engine += [
        "-len_control=0",
        "-reload=0",
        f"-artifact_prefix={work}/crash-",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *engine, str(corpus)], session.one)
    atheris.Fuzz()
    return 0


Lines = set[tuple[str, int, int]]


def reached(target: ModuleType, data: bytes) -> Lines:
    """The lines of the package that an input goes through, each with the line before it."""
    lines: Lines = set()

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        name, last = frame.f_code.co_filename, 0
        if not name.startswith(PACKAGE):
            return None

        def inside(frame: FrameType, event: str, arg: object) -> Any:
            nonlocal last
            if event == "line":
                lines.add((name, last, frame.f_lineno))
                last = frame.f_lineno
            return inside

        return inside

    sys.settrace(trace)
    try:
        target.run(data)
    except Exception:
        return set()  # a fault is a test of its own
    finally:
        sys.settrace(None)
    return lines


def fewest(inputs: dict[bytes, Lines]) -> list[bytes]:
    """Few of the inputs that together reach what all reach: always the one that adds most."""
    left, missing, taken = dict(inputs), set().union(*inputs.values()), []
    while missing:
        best = max(left, key=lambda data: len(left[data] & missing))
        taken.append(best)
        missing -= left.pop(best)
    return sorted(taken, key=lambda data: (len(data), data))


def keep(name: str, work: Path, most: int) -> int:
    """Write the kept corpus anew: few small inputs that together reach what all reach."""
    target = importlib.import_module(MODULES[name])
    from fuzz import corpus as kept_corpus  # noqa: PLC0415

    new = work / "corpus"
    inputs = {path.read_bytes() for path in new.iterdir()} if new.exists() else set()
    inputs |= set(kept_corpus.load(name))
    for data in target.seeds():  # what is imported at its first use is no input's doing
        reached(target, data)
    all_lines: Lines = set()
    adding: dict[bytes, Lines] = {}
    for data in sorted(inputs, key=lambda data: (len(data), data)):
        if not (lines := reached(target, data)) <= all_lines:
            adding[data] = lines
            all_lines |= lines
    kept = fewest(adding)[:most]
    path = kept_corpus.store(name, kept)
    print(f"{len(kept)} of {len(inputs)} inputs: {path.stat().st_size} bytes in {path}")
    return 0


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=MODULES)
    parser.add_argument("--cpu-minutes", type=float, default=30.0)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--most", type=int, default=10_000, help="inputs to keep")
    given = parser.parse_args(argv)
    work = given.work or Path(f"/tmp/fuzz-{given.target}")
    if given.keep:
        return keep(given.target, work, given.most)
    return fuzz(given.target, work, given.cpu_minutes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
