"""Faults of any command's streams: one is closed, or full, or a pipe whose reader has ended."""

from __future__ import annotations

from collections.abc import Iterator

from fake_sglang.harness import CHECKOUT
from fault_commands import RUN, Fault, client, command, dry, env, run


def _streams() -> Iterator[Fault]:
    trace = ("analyze", str(CHECKOUT / "tests/data/traces/h200_case_A"))
    yield run("stdout closed", shell=">&-", says="stdout is closed")
    yield Fault("stdout closed, no interpreter yet", (*RUN, "--dry-run"), "is closed", shell=">&-")
    yield dry("stderr closed", says="# files", status=0, shell="2>&-")
    yield dry("stdin closed", says="# files", status=0, shell="<&-")
    yield dry("stdout that is full", says="No space left", shell=">/dev/full")
    yield dry("| head", says="", status=0, shell="| head -n 1")
    yield Fault("--help into what is full", (*RUN, "--help"), "room", shell=">/dev/full")
    yield Fault("--help | head", (*RUN, "--help"), "USAGE", 0, shell="| head -n 1")
    for name, words in (("analyze", trace), ("help", ("--help",))):
        says = "usage" if name == "help" else "decode"
        yield command(f"{name}: stdout closed", *words, says="closed", shell=">&-")
        yield command(f"{name}: stderr closed", *words, says=says, status=0, shell="2>&-")
        yield command(f"{name}: stdout full", *words, says="No space", shell=">/dev/full")
        yield command(f"{name}: | head", *words, says="", status=0, shell="| head -n 1")
    yield client("client: --help into what is full", "--help", says="No space", shell=">/dev/full")
    yield client("client: stderr closed", "--nope", says="", shell="2>&-")
    yield env("collect_env: stdout full", says="No space", shell=">/dev/full")
    yield env("collect_env: stdout closed", says="closed", shell=">&-")
    yield env("collect_env: | head", says="##", status=0, shell="| head -n 1")
    yield env("collect_env: --help into what is full", "--help", says="room", shell=">/dev/full")


STREAM_FAULTS = [*_streams()]
