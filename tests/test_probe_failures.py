"""A rank that dies, hangs or computes something else: who it was is said, and no process stays."""

from __future__ import annotations

import json
import os
import re
import signal
from functools import partial
from pathlib import Path

import pytest
from examples import THOROUGH
from fake_sglang.harness import at_once, wait_until
from probe_harness import LIMIT_S, Probe, plant

pytestmark = pytest.mark.launches

LONG = ["--send", "blocking", "--steps", "12", "--reps", "900", "--json", "r.json"]

HIDDEN = "a hidden state changed on its way"  # as the older message in place of a newer is
LAST_WAY = "a token id changed on its last way"  # under torchrun
NUMBER = "another turn's number"  # in threads: test_probe_order.py
# what a rank is made to do -> (rank, code, what is said)
WRONG = {
    HIDDEN: (
        1,
        """
def changed(self, what, turn):
    came = recv(self, what, turn)
    if what == "hidden" and turn == 6:
        came[:-1] = -came[:-1]
    return came
Blocking.recv = changed
""",
        r"WrongTokens: rank \d, graphs_off_blocking, step 3, micro-batch 0: token ids",
    ),
    LAST_WAY: (
        1,
        """
def changed(self, what, turn):
    came = recv(self, what, turn)
    if what == "tokens" and turn == 5:
        came[0] += 1
    return came
Blocking.recv = changed
""",
        r"rank 1 failed: WrongTokens: rank 1, graphs_off_blocking, step 2, micro-batch 1",
    ),
    "an older message in place of a newer": (
        0,
        """
old = {}
def stale(self, what, tensor, turn, ready=None):
    old[what, turn] = tensor.clone()
    send(self, what, old[what, 4] if (what, turn) == ("hidden", 5) else tensor, turn, ready)
Blocking.send = stale
""",
        r"took 1 hidden states for others|rank 0, graphs_off_blocking, step 2, micro-batch 1",
    ),
    NUMBER: (
        1,
        """
def numbered(self, what, tensor, turn, ready=None):
    send(self, what, tensor, turn + (turn == 4), ready)
Blocking.send = numbered
""",
        r"rank 0 failed: .*graphs_off_blocking: took the tokens of turn 5 for those of 4",
    ),
}


ALIKE = () if THOROUGH else (HIDDEN, LAST_WAY, NUMBER)  # shown without a launch of their own


def misled(root: Path, number: int) -> tuple[int, str, str]:
    rank, code, _ = list(WRONG.values())[number]
    plant(root / str(number), rank, code)
    with Probe(root / str(number), "--ranks", "2", "--send", "blocking", "--steps", "2") as probe:
        return probe.end()


@pytest.fixture(scope="module")
def misled_runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("misled")
    numbers = {name: n for n, name in enumerate(WRONG) if name not in ALIKE}
    return at_once({name: partial(misled, root, n) for name, n in numbers.items()})


@pytest.mark.parametrize("name", [name for name in WRONG if name not in ALIKE])
def test_something_else_computed_fails_with_rank_cell_and_step(misled_runs, name):
    status, out, err = misled_runs[name]
    (line,) = err.splitlines()
    assert status == 1 and re.search(WRONG[name][2], line), line
    assert "token send" not in out


# ranks that have come as far as starting: what the launcher does about them takes no torch
WAITING = """
import os, pathlib, time
if "RANK" in os.environ:
    pathlib.Path("rank" + os.environ["RANK"]).touch()
    time.sleep(600)
"""


def ended(folder: Path, victim: str, sent: signal.Signals) -> tuple[int, str, str]:
    """End the launcher alone, or it and its two ranks, while they run; none of them may stay."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(WAITING)
    with Probe(folder, "--ranks", "2", "--send", "blocking", "--json", "r.json") as probe:
        for rank in "01":
            probe.until(folder / f"rank{rank}")
        assert len(probe.left_over()) == 3
        (os.killpg if victim == "group" else os.kill)(probe.process.pid, sent)
        found = probe.end()
        wait_until(lambda: not probe.left_over(), LIMIT_S)
    return found


@pytest.mark.parametrize(
    ("victim", "sent", "wanted"),
    [
        ("launcher", signal.SIGTERM, 143),
        ("launcher", signal.SIGKILL, -9),
        ("launcher", signal.SIGINT, 130),
        ("group", signal.SIGINT, 130),
    ],
)
def test_no_rank_stays_where_the_launcher_ends(tmp_path, victim, sent, wanted):
    status, _, err = ended(tmp_path / "run", victim, sent)
    assert status == wanted and "Traceback" not in err
    said = "\nprobe: interrupted; the finished repetitions are in --json\n"
    assert err == (said if sent == signal.SIGINT else "")


def broken(folder: Path, victim: str, sent: signal.Signals) -> tuple[int, str, str, Path]:
    """Send a signal in the middle of a long run; nothing may stay."""
    with Probe(folder, "--ranks", "3" if THOROUGH else "2", *LONG) as probe:
        probe.until(folder / "r.json")
        if victim == "group":
            os.killpg(probe.process.pid, sent)
        else:
            os.kill(probe.process.pid if victim == "launcher" else probe.pid_of(int(victim)), sent)
        status, out, err = probe.end()
        wait_until(lambda: not probe.left_over(), LIMIT_S)
    return status, out, err, folder / "r.json"


BREAKS = [("0", signal.SIGKILL, 1)]  # the rank that writes --json
if THOROUGH:  # rank 1 is the middle one
    BREAKS += [
        ("1", signal.SIGKILL, 1),
        ("2", signal.SIGKILL, 1),
        ("group", signal.SIGINT, 130),
        ("launcher", signal.SIGINT, 130),
        ("launcher", signal.SIGTERM, 143),
        ("launcher", signal.SIGKILL, -9),
    ]


@pytest.fixture(scope="module")
def broken_runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("broken")
    return at_once(
        {
            (victim, sent): partial(broken, root / f"{victim}_{sent.name}", victim, sent)
            for victim, sent, _ in BREAKS
        }
    )


@pytest.mark.parametrize(("victim", "sent", "wanted"), BREAKS)
def test_no_process_stays_and_what_was_measured_is_whole(broken_runs, victim, sent, wanted):
    status, _, err, path = broken_runs[victim, sent]
    assert status == wanted and "Traceback" not in err
    assert json.loads(path.read_text())["rows"]


@pytest.mark.parametrize("rank", ["0", "1", "2"] if THOROUGH else ["0"])
def test_a_killed_rank_is_named(broken_runs, rank):
    _, _, err, _ = broken_runs[rank, signal.SIGKILL]
    assert err == f"probe: rank {rank} was ended by SIGKILL; the others were told to end\n"


def test_under_torchrun_a_rank_that_computes_something_else_fails_the_run(tmp_path):
    rank, code, _ = WRONG[LAST_WAY]
    plant(tmp_path, rank, code)
    module = ("-m", "torch.distributed.run", "--nproc-per-node", "2")
    with Probe(tmp_path, "--send", "blocking", "--steps", "2", module=module) as probe:
        status, out, err = probe.end()
        wait_until(lambda: not probe.left_over(), LIMIT_S)
    assert status != 0 and "probe rank 1: WrongTokens: rank 1, graphs_off_blocking, step 2" in err
    assert "token send" not in out
