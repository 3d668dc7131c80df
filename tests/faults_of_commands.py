"""Faults of collect_env.sh and of the commands of repro_pp_graphs: arguments, traces, runs."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

from fake_sglang.harness import CHECKOUT
from fault_commands import Fault, command, env
from fault_preparations import content, folder, together


def _environments() -> Iterator[Fault]:
    for port in ("0", "65536", "\u00b2", "-1", "x", "", "1\x1b[1m"):
        yield env(f"collect_env: --port {port}", "--port", port, says="not a port number")
    yield env("collect_env: no such option", "--nope\x1b[1m", says="--nope")
    yield env("collect_env: an option without value", "--port", says="--port needs a value")
    yield env("collect_env: no such Python", "--python", "/no\x1b[1m", says="no such program")
    yield env("collect_env: a Python that is none", "--python", "/bin/true", says="/bin/true",
               status=0)  # fmt: skip
    yield env("collect_env: no run to bundle", "--bundle", "/no/run", says="no run of run_repro")
    yield env("collect_env: no place for JSON", "--json-file", "/no/x", says="/no/x",
               status=1)  # fmt: skip
    yield env("collect_env: JSON onto -", "--json-file", "-", says="name one, or give --json")
    yield env("collect_env: JSON onto a folder", "--json-file", "/tmp", says="/tmp", status=1)


DEEP = b"[" * 100_000
EVENT = b'{"ph":"X","cat":"cpu_op","name":"a","pid":1,"tid":1,"ts":%s,"dur":1}'
BROKEN = {
    "an empty trace": b"",
    "a trace of zeros": bytes(9999),
    "a trace that is no JSON": b"\x7fELF" + bytes(range(256)) * 20,
    "a trace nested 100 000 deep": b'{"traceEvents": ' + DEEP,
    "an event nested 100 000 deep": b'{"traceEvents": [{"a": ' + DEEP,
    "a time beyond int64": b"[" + EVENT % b"1e300" + b"]",
    "a time of 400 digits": b"[" + EVENT % (b"9" * 400) + b"]",
    "a gzip that is none": b"\x1f\x8bnone",
    "a gzip that is cut off": gzip.compress(b"[" + EVENT % b"1" * 999)[:99],
    "a gzip of 8 MB in 8 kB": gzip.compress(b"[" + b" " * (8 << 20), 9),
}


def _commands() -> Iterator[Fault]:
    yield command("no such command", "nope\x1b[1m", says="no command")
    for name, *words in (
        ("analyze",), ("merge", "-o", "ROOT/m.json"), ("report",), ("open",), ("compare", "/tmp"),
    ):  # fmt: skip
        yield command(f"{name}: nothing there", name, "/no/such", *words, says="/no/such")
        yield command(f"{name}: ESC in its name", name, "/no/\x1b[1m", *words, says="/no/")
        yield command(f"{name}: no argument", name, says=f"{name}: ")
        yield command(f"{name}: no such option", name, "--nope", says=f"{name}: ")
    yield command("report: a folder without a run", "report", "ROOT/logs", says="has neither",
                   status=1, prepare=folder("logs"))  # fmt: skip
    yield command("compare: folders without a run", "compare", "a", "b", says="has neither",
                   status=1, prepare=together(folder("a"), folder("b")))  # fmt: skip
    for what, data in BROKEN.items():
        name = "t/1-TP-0-PP-0.trace.json" + (".gz" if "gzip" in what else "")
        make = content(name, data)
        status, says = (0, "cut short") if "cut off" in what else (1, "no trace could be read")
        yield command(f"analyze: {what}", "analyze", "t", says=says, status=status, prepare=make)
        yield command(f"merge: {what}", "merge", "t", "-o", "m.json", says=says, status=status,
                       prepare=make, leaves="m.json" if status == 0 else "")  # fmt: skip
    make = content("t/1-TP-0-PP-99999999.trace.json", b"[" + EVENT % b"1" + b"]")
    yield command("analyze: rank 99999999", "analyze", "t", says="no GPU kernels", status=0,
                   prepare=make)  # fmt: skip
    real = str(CHECKOUT / "tests/data/traces/h200_case_A")
    yield command("merge: into no folder", "merge", real, "-o", "/proc/x.json",
                   says="/proc/x.json", status=1)  # fmt: skip
    yield command("merge: onto a folder", "merge", real, "-o", "/tmp", says="-o /tmp: a folder")
    yield command("analyze: --json into /proc", "analyze", real, "--json", "/proc/x.json",
                   says="/proc/x.json", status=1)  # fmt: skip
    yield command(
        "analyze: --what-if of nothing", "analyze", real, "--what-if", "x", says="is none of"
    )
    yield command("analyze: --what-if nan", "analyze", real, "--what-if", "transfer=nan",
                   says="transfer=nan")  # fmt: skip
    for what, text in (
        ("is cut off", b'{"launches": ['), ("is empty", b""), ("holds a list", b"[]"),
        ("is nested deep", DEEP), ("is no text", bytes(range(256))),
    ):  # fmt: skip
        make = content("out/logs/run.json", text)
        for name in ("report", "summary", "compare"):
            words = ("out", "out") if name == "compare" else ("out",)
            yield command(f"{name}: a run.json that {what}", name, *words, says="run.json",
                           status=2 if name == "summary" else 1, prepare=make)  # fmt: skip
    for step, *words in (
        ("begin", "--root", "."), ("wait-ready", "1"), ("measure", "1", "--root", "."),
        ("profile", "1"), ("explain",), ("finish",), ("wait-ready", "x"),
    ):  # fmt: skip
        says = "pid" if "x" in words else "/no/such"
        what = "a pid that is none" if "x" in words else "no run there"
        yield command(f"{step}: {what}", step, "/no/such", "x", *words, says=says)
        if "x" not in words:
            yield command(f"{step}: no argument", step, says=f"{step}: ")
    for words in (("--ranks", "0"), ("--ranks", "x"), ("--ranks", "99999"), ("--nope",)):
        yield command(f"probe: {' '.join(words)}", "probe", *words, says="probe: ")


COMMAND_FAULTS = [*_environments(), *_commands()]
