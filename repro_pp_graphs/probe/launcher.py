"""Start the ranks on this machine, watch them, and say which one failed first."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORKER = "REPRO_PROBE_RANK"
STORE = "REPRO_PROBE_STORE"
GRACE_S = 3.0  # for the others to notice a death by themselves, and to end when told to
END_S = 30.0  # for a rank to end once another has ended well
PR_SET_PDEATHSIG = 1


def under_torchrun() -> bool:
    """torchrun started this process as a rank."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_rank() -> bool:
    return WORKER in os.environ or under_torchrun()


def _die_with_parent() -> None:
    """In a rank, before it is exec'ed: Ctrl-C is the launcher's, and so is its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _ended(number: int, _: object) -> None:
    sys.exit(128 + number)  # by way of `finally`


def run_ranks(argv: list[str], ranks: int) -> int:
    """Run the probe's ranks with these options: 0 when all end well, 1 else, 130 on Ctrl-C."""
    signal.signal(signal.SIGTERM, _ended)
    with tempfile.TemporaryDirectory(prefix="probe-") as errors:
        place = {
            # a file to meet at: a TCPStore would listen on every interface
            STORE: f"file://{errors}/store",
            "WORLD_SIZE": str(ranks),
            "LOCAL_WORLD_SIZE": str(ranks),
            "REPRO_PROBE_ERRORS": errors,
            # torch announces every start of its profiler and every new communicator
            "KINETO_LOG_LEVEL": os.environ.get("KINETO_LOG_LEVEL", "99"),
            "TORCH_CPP_LOG_LEVEL": os.environ.get("TORCH_CPP_LOG_LEVEL", "ERROR"),
            # gloo and NCCL look the host's own name up, which may lead off this machine
            "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo"),
        }
        started = []
        try:
            for rank in range(ranks):
                numbers = {"RANK": str(rank), "LOCAL_RANK": str(rank), WORKER: str(rank)}
                started.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "repro_pp_graphs", "probe", *argv],
                        env={**os.environ, **place, **numbers},
                        stdin=subprocess.DEVNULL,
                        preexec_fn=_die_with_parent,  # noqa: PLW1509
                    )
                )
            return _watch(started, Path(errors))
        except KeyboardInterrupt:
            kept = "; the finished repetitions are in --json" if "--json" in argv else ""
            print(f"\nprobe: interrupted{kept}", file=sys.stderr)
            return 130
        finally:
            end_all(started)


def _watch(ranks: list[subprocess.Popen[bytes]], errors: Path) -> int:
    """Wait for all ranks; on the first bad end give the others a moment and name the culprit."""
    ended_well_at = None
    while True:
        states = [rank.poll() for rank in ranks]
        if any(state not in (None, 0) for state in states):
            break
        if all(state == 0 for state in states):
            return 0
        if 0 in states:
            ended_well_at = ended_well_at or time.monotonic()
            if time.monotonic() - ended_well_at > END_S:
                late = [str(n) for n, state in enumerate(states) if state is None]
                print(f"probe: rank {', '.join(late)} did not end: killed", file=sys.stderr)
                return 1
        time.sleep(0.05)
    seen_dead = {n for n, state in enumerate(states) if state not in (None, 0)}
    until = time.monotonic() + GRACE_S
    while time.monotonic() < until and any(rank.poll() is None for rank in ranks):
        time.sleep(0.05)
    print(f"probe: {culprit(ranks, seen_dead, errors)}", file=sys.stderr)
    return 1


def culprit(ranks: list[subprocess.Popen[bytes]], first: set[int], errors: Path) -> str:
    """Who failed, in one line: a rank ended by a signal, else one whose error is its own."""
    killed = [n for n in sorted(first) if (ranks[n].returncode or 0) < 0]
    if killed:
        name = signal.Signals(-int(ranks[killed[0]].returncode or 0)).name
        return f"rank {killed[0]} was ended by {name}; the others were told to end"
    texts = {
        n: (errors / f"rank{n}.txt").read_text("utf-8").partition("\n")[0]
        for n in range(len(ranks))
        if (errors / f"rank{n}.txt").exists()
    }
    # a lost connection is what the others see of the rank that failed
    own = {n: text for n, text in texts.items() if not lost_peer(text)}
    for n, text in sorted((own or texts).items()):
        return f"rank {n} failed: {text[:300]}"
    return f"rank {min(first)} ended with status {ranks[min(first)].returncode}"


def lost_peer(text: str) -> bool:
    """Whether an error only says that another rank is gone."""
    signs = ("closed by peer", "reset by peer", "Broken pipe", "Connection refused")
    return "DistBackendError" in text or any(sign in text for sign in signs)


def end_all(ranks: list[subprocess.Popen[bytes]]) -> None:
    """End what still runs: TERM, then KILL (a rank can hang in a kernel that waits for a peer)."""
    for rank in ranks:
        if rank.poll() is None:
            rank.terminate()
    until = time.monotonic() + GRACE_S
    for rank in ranks:
        try:
            rank.wait(max(0.05, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            rank.kill()
            rank.wait()
