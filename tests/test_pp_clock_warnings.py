"""What a clock's facts warn of: calls or rows that lack, a clock that stopped or never began."""

from __future__ import annotations

from made_up_rank import EVERYTHING, Rank, steady

from repro_pp_graphs.pp_clock import absent, launch_facts
from repro_pp_graphs.run.finish_step import clocks_not_started


def test_what_a_rank_must_have_called_and_has_not_is_named():
    found = launch_facts.summary([steady().file], EVERYTHING)
    assert found.warnings == ["PP0 left no rows"]
    rank = Rank(1)
    for at in range(40):
        rank.turn(at, {"launch": (0, 1), "recv_tokens": (2, 3), "process": (3, 4)})
    text = " ".join(launch_facts.summary([rank.file], EVERYTHING).warnings)
    for name in ("send_tokens", "recv_hidden", "recv_requests"):
        assert name in text
    assert "send_hidden" not in text and "launch" not in text


def test_a_call_that_a_shim_replaces_is_not_said_to_be_the_releases():
    rank = Rank(1)  # as the rows of a run before exchanges were timed
    for at in range(40):
        calls = {"launch": (0, 1), "send_tokens": (2, 3), "recv_tokens": (4, 5)}
        rank.turn(at, {**calls, "process": (6, 7), "recv_requests": (8, 9)})
    (_, text) = sorted(launch_facts.summary([rank.file], EVERYTHING).warnings)
    assert text.startswith("PP1: no call of recv_hidden was seen: this release, or a shim of the")


def test_a_hook_that_is_not_there_is_warned_of_once_for_all_ranks():
    why = "not in this release: launch of the batch is not timed"
    ranks = [Rank(rank, lacks={"launch": why, "wait_sent": "nothing is waited for later"}).file
             for rank in (0, 1)]  # fmt: skip
    assert launch_facts.summary(ranks, None).warnings == [f"PP0, PP1: launch: {why}"]


def test_a_clock_that_stopped_is_warned_of():
    rank = steady(failed="turn 3: a row: OSError: x")
    assert any(
        "stopped: turn 3" in text for text in launch_facts.summary([rank.file], None).warnings
    )
    rank = steady(failed="\x1b[2Jx")  # whatever a rank's file holds
    assert any(
        "stopped: \\x1b[2Jx" in text for text in launch_facts.summary([rank.file], None).warnings
    )


def test_a_clock_that_did_not_start_or_timed_nothing_is_warned_of():
    failed = Rank(0, pp_size=1, failed="not started: TypeError: no")
    (text,) = launch_facts.summary([failed.file], EVERYTHING).warnings
    assert text == "PP0: the clock did not start: TypeError: no"
    silent = Rank(0, pp_size=1)
    (text,) = launch_facts.summary([silent.file], EVERYTHING).warnings
    assert "did not start: the server's log" in text
    idle = Rank(0, pp_size=1, lacks={})
    (text,) = launch_facts.summary([idle.file], EVERYTHING).warnings
    assert "no decode turn of the measured window" in text and "a rank wrote no row" in text
    before = steady(lacks={})
    (text, _) = launch_facts.summary([before.file], (10**12, 10**13)).warnings
    assert f"though a rank wrote {len(before.rows)} rows" in text
    refused = Rank(0, pp_size=1, lacks={"turn": "could not be put in place: X"})
    assert any(
        "turn: could not" in w for w in launch_facts.summary([refused.file], EVERYTHING).warnings
    )


def test_the_servers_log_says_why_a_rank_left_no_rows(tmp_path):
    log = (
        "[2026-11-26 05:15:36 PP0 TP1] repro shim pp_clock: not started (OSError: [Errno 28] No "
        "space left on device); the server goes on without it\nTraceback (most recent call last):"
        "\nOSError: [Errno 28] No space left on device\n"
    )
    (tmp_path / "A_server.log").write_text(log, encoding="utf-8")
    said = clocks_not_started(tmp_path, "A")
    assert said == {"PP0 TP1": "OSError: [Errno 28] No space left on device"}
    found = launch_facts.summary([steady(lacks={}).file], EVERYTHING, said)
    assert found.warnings == ["PP0 left no rows: OSError: [Errno 28] No space left on device"]
    assert "No space left" in absent.nothing_left(said)
    assert "PP loop" in absent.nothing_left(clocks_not_started(tmp_path, "B"))


def test_rows_of_the_window_that_were_overwritten_are_warned_of():
    lost = steady().file._replace(lost=500)
    assert any("overwritten" in w for w in launch_facts.summary([lost], (-1, 10**12)).warnings)
    assert not any("overwritten" in w for w in launch_facts.summary([lost], (5, 10**12)).warnings)
