"""From rows to facts: which turns, which calls, what part of a wait is the rank's own batch."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from repro_pp_graphs import files
from repro_pp_graphs.pp_clock import (
    absent,
    clock_record,
    collect,
    figures,
    launch_facts,
    lines,
    rows,
)
from repro_pp_graphs.pp_clock.rows import CODES, Row, Rows
from repro_pp_graphs.pp_clock.window import window_of
from repro_pp_graphs.report.tables import clock_values
from repro_pp_graphs.run.finish_step import clocks_not_started
from repro_pp_graphs.stats import metric_names

MS = 1_000_000
TURN_MS = 20


class Rank:
    """Rows of a rank whose turns all look alike; times in ms."""

    def __init__(self, pp_rank: int, pp_size: int = 2, depth: int = 0, **header: Any) -> None:
        self.header = {"format": 1, "pp_rank": pp_rank, "pp_size": pp_size, "tp_rank": 0}
        self.header |= {"loop_size": pp_size + depth, **header}
        self.rows: list[Row] = []

    def row(self, turn: int, kind: str, begin: float, end: float, **more: int) -> None:
        fields = {"flags": 0, "batch_size": 0, "unused": 0, "value": 0} | more
        times = int(begin * MS), int(end * MS)
        self.rows.append(Row(len(self.rows) + 1, *times, turn, CODES[kind], *fields.values()))

    def turn(
        self, at: int, calls: dict[str, tuple[float, float]], flags: int = rows.DECODE
    ) -> None:
        """A turn of TURN_MS that begins at its number; calls by kind, ms from its begin."""
        base = at * TURN_MS
        for kind, (begin, end) in calls.items():
            self.row(at, kind, base + begin, base + end)
        self.row(at, "turn", base, base + TURN_MS, flags=flags, batch_size=8)

    def own_batch(self, at: int, begin: float, end: float) -> None:
        self.row(at, "own_batch", at * TURN_MS + begin, at * TURN_MS + end, value=9000)

    @property
    def file(self) -> Rows:
        return Rows(self.header, self.rows, 0, 0)


EVERYTHING = (0, 10**12)
CALLS = {"launch": (1, 2), "send_tokens": (3, 15), "recv_tokens": (15, 16), "process": (16, 17)}


def steady(turns: int = 40, **header: Any) -> Rank:
    rank = Rank(1, **header)
    for at in range(turns):
        rank.turn(at, {"recv_requests": (0, 0.5), "recv_hidden": (0.5, 1), **CALLS})
    return rank


def test_a_turns_waits_are_its_sends_receives_and_waits():
    found = launch_facts.summary([steady().file], EVERYTHING)
    decode = found.last_rank()
    assert found.last == "PP1" and decode is not None
    assert decode.turn.count == 38  # the first two turns have others before them that no row tells
    assert decode.turn.mean == TURN_MS
    assert decode.waits.mean == pytest.approx(12 + 1 + 0.5 + 0.5)
    assert decode.calls["launch"].mean == pytest.approx(1) and decode.calls["launch"].count == 40
    assert decode.waits_outside is None and decode.split == 0


def test_a_turns_parts_add_up_and_a_call_inside_another_counts_once():
    rank = Rank(1)
    for at in range(40):
        rank.turn(at, {**CALLS, "launch": (1, 3), "recv_hidden": (1.5, 2.5)})
    decode = launch_facts.summary([rank.file], EVERYTHING).last_rank()
    assert decode is not None and decode.untimed is not None
    assert decode.parts["launch"] == pytest.approx(1) and decode.parts["recv_hidden"] == 1
    assert sum(decode.parts.values()) + decode.untimed.mean == pytest.approx(TURN_MS)


def test_parts_are_of_steady_turns_alone_however_many_run_beside_a_prefill():
    rank = Rank(1)
    for at in range(60):  # every third batch prefills: few turns are steady in between
        prefill = at % 3 == 0 and at < 30
        rank.turn(at, CALLS, rows.PREFILL if prefill else rows.DECODE)
    decode = launch_facts.summary([rank.file], EVERYTHING).last_rank()
    assert decode is not None and decode.turn.count < decode.calls["send_tokens"].count
    assert decode.parts["send_tokens"] == pytest.approx(12)


def test_each_rank_says_where_it_waits_and_what_of_it_is_outside_its_batches():
    first, last = Rank(0), steady()
    for at in range(40):
        first.turn(at, {"launch": (1, 2), "recv_tokens": (2, 18)})
        last.own_batch(at, 2, 12)
    short = figures.summary(launch_facts.summary([first.file, last.file], EVERYTHING))
    assert short is not None and short.pp_size == 2
    waits = short.ranks["PP1"]
    assert waits.outside_ms is not None and waits.outside_ms["send_tokens"] == pytest.approx(3)
    assert "launch" not in waits.waits_ms and waits.waits_ms["send_tokens"] == pytest.approx(12)
    assert waits.own_batch_ms == pytest.approx(10) and waits.turn_ms == TURN_MS
    untimed = short.ranks["PP0"]  # on the GPU
    assert untimed.waits_ms == {"recv_tokens": pytest.approx(16)}
    assert untimed.outside_ms is None and untimed.own_batch_ms is None


def test_a_wait_is_split_by_the_ranks_own_batches():
    rank = steady()
    for at in range(40):
        rank.own_batch(at, 2, 12)
    decode = launch_facts.summary([rank.file], EVERYTHING).last_rank()
    assert decode is not None and decode.split == decode.turn.count
    assert decode.waits_in_own_batch is not None and decode.waits_outside is not None
    assert decode.waits_in_own_batch.mean == pytest.approx(9)  # 3 to 12 of the send's 3 to 15
    assert decode.waits_outside.mean == pytest.approx(14 - 9)
    assert decode.outside["send_tokens"].mean == pytest.approx(3)
    assert decode.outside["recv_tokens"].mean == pytest.approx(1)
    assert decode.own_batch is not None and decode.own_batch.mean == pytest.approx(10)


def test_a_batch_that_runs_into_the_next_turn_counts_there_and_never_twice():
    rank = steady()
    for at in range(40):
        rank.own_batch(at, 2, 20.75)  # into the next turn's requests and hidden states
    decode = launch_facts.summary([rank.file], EVERYTHING).last_rank()
    assert decode is not None and decode.waits_in_own_batch is not None
    assert decode.waits_in_own_batch.mean == pytest.approx(12 + 1 + 0.75)


def test_a_turn_without_the_gpus_times_is_not_split_and_that_is_said():
    rank = steady(found={"own_batch": "ModelRunner.forward"})
    for at in range(30):
        rank.own_batch(at, 2, 12)
    found = launch_facts.summary([rank.file], EVERYTHING)
    decode = found.last_rank()
    assert decode is not None and decode.split == 28
    assert any("10 of 38 decode turns lack the GPU's times" in text for text in found.warnings)
    rank.header["missed"] = {"untied": 10, "unread": 0, "of a later version": 3}
    (said,) = (
        text for text in launch_facts.summary([rank.file], EVERYTHING).warnings if "lack" in text
    )
    assert said.endswith("since the start: 10 while nothing tied the GPU's clock to the host's)")


def test_a_launch_is_timed_without_the_receive_inside_it():
    # up to 0.5.6 run_batch receives the hidden states
    rank = Rank(1)
    for at in range(30):
        rank.turn(at, {"recv_hidden": (1, 6), **CALLS, "launch": (0.5, 8)})
    decode = launch_facts.summary([rank.file], EVERYTHING).last_rank()
    assert decode is not None
    assert decode.calls["launch"].mean == pytest.approx(2.5)
    assert decode.calls["recv_hidden"].mean == pytest.approx(5)


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize(("pp_rank", "kind"), [(1, "send"), (1, "recv"), (0, "send"), (0, "recv")])
def test_tokens_are_told_apart_by_the_batch_that_they_are_of(pp_rank, kind, depth):
    # one prefill batch in turn 20; its tokens are sent and received where the ring brings them
    loop, prefill = 2 + depth, 20
    later = {(1, "send"): depth, (0, "send"): loop, (1, "recv"): loop - 1, (0, "recv"): loop - 1}
    rank = Rank(pp_rank, depth=depth)
    for at in range(40):
        took = 9 if at == prefill + later[pp_rank, kind] else 1
        flags = rows.PREFILL if at == prefill else rows.DECODE
        rank.turn(at, {"launch": (0, 1), f"{kind}_tokens": (2, 2 + took)}, flags)
    found = launch_facts.summary([rank.file], EVERYTHING).ranks[f"PP{pp_rank}"].measured
    assert found["prefill"].turn.count == 1
    # the chosen turns' calls: of prefill batches the one, of decode batches none of it
    assert found["prefill"].calls[f"{kind}_tokens"].mean == pytest.approx(9)
    assert found["decode"].calls[f"{kind}_tokens"].mean == pytest.approx(1)


def test_turns_beside_a_prefill_are_not_steady_decode_turns():
    rank = Rank(1)
    for at in range(40):
        rank.turn(at, CALLS, rows.PREFILL if at == 20 else rows.DECODE)
    decode = launch_facts.summary([rank.file], EVERYTHING).last_rank()
    assert decode is not None and decode.turn.count == 40 - 1 - 2 - 2


def half_full(turns: int = 80, filled: int = 0, silent: bool = True) -> Rank:
    """A loop of four with a batch in two of its places: in all four up to turn `filled`. One of the
    others leaves no row (`silent`: the next turn says so), the other one without a batch."""
    rank = Rank(3, pp_size=4, lacks={})
    for at in range(turns):
        if at < filled or at % 4 < 2:
            rank.turn(at, CALLS)
        elif at % 4 == 3:
            begin = at * TURN_MS
            rank.row(at, "recv_tokens", begin, begin + 9)
            rank.row(at, "turn", begin, begin + TURN_MS / 2, value=silent)
    return rank


def test_a_loop_with_empty_places_has_decode_turns_and_says_how_many_are_in_use():
    found = launch_facts.summary([half_full().file], EVERYTHING)
    decode = found.last_rank()
    assert decode is not None and decode.in_flight == 2
    assert decode.turn.mean == TURN_MS  # of the turns with a batch
    assert decode.turn.count == 40 - 4  # empty places must have been empty a round before
    assert any("2 of 4 micro-batches were in flight" in text for text in found.warnings)


def test_a_turn_of_which_no_row_tells_is_not_taken_for_an_empty_one():
    found = launch_facts.summary([half_full(silent=False).file], EVERYTHING)
    assert found.last_rank() is None
    (text,) = [text for text in found.warnings if "decode turns of the measured" in text]
    assert "none of the 40 decode turns" in text and "emptied or filled" in text


def test_calls_in_turns_without_a_batch_are_not_said_to_be_made_otherwise():
    ring = half_full()
    ring.rows = [row for row in ring.rows if rows.KINDS[row.kind] != "process"]
    text = " ".join(launch_facts.summary([ring.file], EVERYTHING).warnings)
    assert "micro-batches were in flight" in text and "no call of" not in text


# full up to turn 61, from 4 on; two of four from turn 28 on, as 22 and 23 were the first empty ones
@pytest.mark.parametrize(("filled", "in_flight", "turns"), [(60, 4, 58), (20, 2, 26)])
def test_turns_are_of_as_many_micro_batches_as_most_rounds_have(filled, in_flight, turns):
    found = launch_facts.summary([half_full(filled=filled).file], EVERYTHING)
    decode = found.last_rank()
    assert decode is not None and decode.in_flight == in_flight
    assert decode.turn.count == turns


def test_the_turns_that_decode_are_counted_by_the_size_of_their_batch():
    rank = Rank(0)
    for at in range(12):
        rank.turn(at, CALLS, rows.PREFILL if at < 2 else rows.DECODE)
    rank.rows = [row._replace(batch_size=15) if row.turn % 2 else row for row in rank.rows]
    found = launch_facts.summary([rank.file], EVERYTHING).ranks["PP0"]
    assert found.decode_batches == {"8": 5, "15": 5}


def test_only_the_measured_window_counts_and_no_profiled_turn():
    rank = Rank(1)
    for at in range(100):
        flags = rows.DECODE | (rows.PROFILED if at >= 50 else 0)
        rank.turn(at, CALLS, flags)
    found = launch_facts.summary([rank.file], (10 * TURN_MS * MS, 40 * TURN_MS * MS))
    decode = found.last_rank()
    assert decode is not None and decode.turn.count == 30 and found.window_s == 0.6
    # of a profile's 50 turns the first two steps and the last one are left out
    assert found.ranks["PP1"].profiled["decode"].turn.count == 50 - 4 - 2
    assert found.distortion == 1.0


def test_turns_with_the_clock_off_count_nowhere_but_in_the_comparison():
    rank = Rank(1, alternate=10)
    for at in range(120):
        off = at // 10 % 2
        flags = rows.DECODE | rows.OFF * off | rows.PROFILED * (at >= 60)
        rank.turn(at, {} if off else CALLS, flags)
    found = launch_facts.summary([rank.file], EVERYTHING).ranks["PP1"]
    for turns in (found.measured["decode"], found.profiled["decode"]):
        assert turns.waits.mean == pytest.approx(13) == turns.waits.median


def test_turns_whose_batches_were_launched_with_the_clock_off_do_not_lack_the_gpus_times():
    rank = Rank(1, alternate=10, found={"own_batch": "ModelRunner.forward"})
    for at in range(120):
        off = at // 10 % 4 in (1, 2)
        rank.turn(at, {} if off else CALLS, rows.DECODE | rows.OFF * off)
        if not off:
            rank.own_batch(at, 2, 12)
    found = launch_facts.summary([rank.file], EVERYTHING)
    decode = found.last_rank()
    # two turns of a loop of two still deal with batches from before the clock was on (again)
    assert decode is not None and decode.turn.count == 60 - 4 * 2 == decode.split
    assert not any("lack the GPU's times" in text for text in found.warnings)


def test_without_a_clients_result_nothing_counts_as_measured():
    found = launch_facts.summary([steady().file], None)
    assert found.last_rank() is None and found.window_s is None


def profiled(factor: float) -> Rows:
    rank = Rank(1)
    base = 0.0
    for at in range(100):
        took = TURN_MS * (factor if at >= 50 else 1)
        rank.row(at, "launch", base, base + 1)
        flags = rows.DECODE | (rows.PROFILED if at >= 50 else 0)
        rank.row(at, "turn", base, base + took, flags=flags)
        base += took
    return rank.file


@pytest.mark.parametrize(("factor", "warned"), [(1.05, False), (1.2, True)])
def test_a_profile_that_distorts_is_warned_of_above_a_tenth(factor, warned):
    found = launch_facts.summary([profiled(factor)], (0, 50 * TURN_MS * MS))
    assert found.distortion == pytest.approx(factor) == found.distortion_median
    said = [text for text in found.warnings if "as long" in text]
    assert len(said) == warned
    assert all("without the profile's first two steps and its last" in text for text in said)


def test_turns_longer_by_one_figure_and_shorter_by_the_other_are_not_called_slowed():
    rank = Rank(1)
    base = 0.0
    for at in range(100):
        slow = at in (7, 23)  # two turns of the measured pass that something held up
        took = TURN_MS * (1.13 if at >= 50 else 40 if slow else 1)
        rank.row(at, "launch", base, base + 1)
        flags = rows.DECODE | (rows.PROFILED if at >= 50 else 0)
        rank.row(at, "turn", base, base + took, flags=flags)
        base += took
    found = launch_facts.summary([rank.file], (0, 128 * TURN_MS * MS))
    (said,) = [text for text in found.warnings if "under the profiler" in text]
    assert found.distortion < 1 < found.distortion_median and "as long as" not in said
    assert "longer than in the measured pass by one figure and shorter by the other" in said
    assert f"{found.distortion:.2f} times by means, 1.13 by medians" in said


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


def in_batches(pp_rank: int, **header: Any) -> Rank:
    """A rank whose sends and receives go in one call a turn, 6 ms of 10 outside its own batch."""
    rank = Rank(pp_rank, found={"exchange": "GroupCoordinator.exchange_tensor_dicts"}, **header)
    requests = "recv_requests" if pp_rank else "send_requests"
    for at in range(60):
        calls = {requests: (0, 1), "launch": (1, 2), "exchange": (3, 13), "process": (14, 15)}
        rank.turn(at, calls, rows.PREFILL if at < 2 else rows.DECODE)
        rank.own_batch(at, 2, 7)
    return rank


def test_sends_and_receives_in_one_batch_stand_under_its_name():
    found = launch_facts.summary([in_batches(0).file, in_batches(1).file], EVERYTHING)
    assert found.warnings == []
    decode = found.ranks["PP0"].measured["decode"]
    assert decode.calls["exchange"].mean == pytest.approx(10)
    assert not {"send_tokens", "send_hidden", "recv_tokens"} & decode.calls.keys()
    assert decode.waits.mean == pytest.approx(11)  # the requests too
    short = figures.summary(found)
    assert short is not None and short.token_send_ms is None
    assert short.exchange_ms is not None and short.exchange_ms.mean == pytest.approx(10)
    assert short.prefill_exchange_ms is not None and short.prefill_exchange_ms.count == 2
    assert short.ranks["PP1"].waits_ms["exchange"] == pytest.approx(10)
    named = figures.token_return(found, with_receive=False)
    assert named[metric_names.RETURN] == pytest.approx(10) and named[
        metric_names.IDLE
    ] == pytest.approx(6)


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


def test_ranks_of_several_tp_lanes_have_names_of_their_own():
    files_ = []
    for pp in (0, 1):
        for tp in (0, 1):
            rank = Rank(pp)
            rank.header["tp_rank"] = tp
            rank.turn(0, CALLS)
            files_.append(rank.file)
    found = launch_facts.summary(files_, EVERYTHING)
    assert list(found.ranks) == ["PP0 TP0", "PP0 TP1", "PP1 TP0", "PP1 TP1"]
    assert found.last == "PP1 TP0"


def test_the_window_is_from_the_first_request_to_the_last_token():
    requests = [{"start_ns": 5, "events": [[9, 1], [20, 2]]}, {"start_ns": 3, "events": [[12, 1]]},
                {"start_ns": 1, "events": []}]  # fmt: skip
    assert window_of({"requests": requests}) == (3, 20)
    assert window_of({}) is None


def test_lines_are_at_most_80_columns():
    rank = steady()
    for at in range(40):
        rank.own_batch(at, 2, 12)
    text = lines.lines(launch_facts.summary([rank.file], EVERYTHING))
    assert max(map(len, (line for line in text if not line.startswith("!")))) <= 80
    assert any("outside it" in line for line in text)


def test_a_launchs_facts_are_stored_and_read_again(tmp_path):
    file = rows.RowFile(tmp_path / "A_pp_clock_PP1_TP0.rows", 1 << 12)
    file.describe(**{**steady().header})
    for row in steady().rows:
        file.write(*row[1:7], row.value)
    client = {"requests": [{"start_ns": 0, "events": [[10**12, 1]]}]}
    (tmp_path / "A_client.json").write_text(json.dumps(client), encoding="utf-8")
    found = collect.collect(tmp_path, "A", {})
    assert found is not None and found == launch_facts.summary([steady().file], EVERYTHING)
    assert collect.load(tmp_path, "A") == found == collect.read(tmp_path, "A", {})
    assert "PP1 decode, measured (38 turns)" in (tmp_path / "A_pp_clock.txt").read_text()
    assert collect.load(tmp_path, "B") is None
    (tmp_path / "A_pp_clock.json").write_text("{}", encoding="utf-8")
    with pytest.raises(files.BadFile, match=r"A_pp_clock\.json"):
        collect.load(tmp_path, "A")


def both_modes(own_batch: bool) -> clock_record.ClockFacts:
    rank = Rank(1)
    for at in range(60):
        flags = rows.PREFILL if at < 2 else rows.DECODE
        took = 4 if at < 2 else 12
        rank.turn(at, {**CALLS, "send_tokens": (3, 3 + took), "recv_tokens": (15, 16)}, flags)
        if own_batch:
            rank.own_batch(at, 2, 12)
    return launch_facts.summary([rank.file], EVERYTHING)


def test_the_summary_has_the_send_of_prefill_beside_that_of_decode():
    found = figures.summary(both_modes(own_batch=True))
    assert found is not None and found.prefill_token_send_ms is not None
    assert (found.token_send_ms.mean, found.prefill_token_send_ms.mean) == (12, 4)
    stored = msgspec.to_builtins(found)
    numbers = {path: clock_values.value(stored, path) for _, path in clock_values.ROWS}
    assert numbers["prefill_token_send_ms.mean"] == 4 and numbers["token_send_ms.median"] == 12
    assert numbers["waits_outside_ms.mean"] == pytest.approx(4) and numbers["distortion"] is None
    assert max(len(title) for title, _ in clock_values.ROWS) <= 22


def test_named_figures_are_of_the_send_or_of_send_and_receive():
    found = both_modes(own_batch=True)
    alone, both = (figures.token_return(found, with_receive) for with_receive in (False, True))
    assert alone[metric_names.RETURN] == pytest.approx(12) and both[
        metric_names.RETURN
    ] == pytest.approx(13)
    assert alone[metric_names.IDLE] == pytest.approx(3) and both[
        metric_names.IDLE
    ] == pytest.approx(4)
    assert alone[metric_names.OWN_GRAPH] == pytest.approx(9) == both[metric_names.OWN_GRAPH]
    assert alone[metric_names.OUTSIDE] == pytest.approx(4)


def test_no_part_of_the_token_return_is_less_than_nothing():
    found = both_modes(own_batch=True)
    decode = found.last_rank()
    assert decode is not None
    decode.outside["send_tokens"].mean = decode.calls["send_tokens"].mean + 0.001
    named = figures.token_return(found, with_receive=False)
    assert named[metric_names.OWN_GRAPH] == 0
    assert named[metric_names.IDLE] == named[metric_names.RETURN]


def test_without_the_gpus_times_there_are_no_named_figures():
    found = both_modes(own_batch=False)
    assert figures.token_return(found, False) == {}
    short = figures.summary(found)
    assert short is not None and short.waits_outside_ms is None
    assert clock_values.value(msgspec.to_builtins(short), "waits_outside_ms.mean") is None
    assert figures.summary(launch_facts.summary([steady().file], None)) is None


def test_decodes_beside_a_prefill_are_turns_of_their_own_kind():
    # a prefill every tenth turn; with two batches in flight the two decodes after it are beside it
    rank = Rank(1)
    for at in range(60):
        prefill = at % 10 == 5
        took = 9 if at % 10 in (6, 7) else 1
        flags = rows.PREFILL if prefill else rows.DECODE
        rank.turn(at, {"launch": (0, 1), "send_tokens": (2, 2 + took)}, flags)
    measured = launch_facts.summary([rank.file], EVERYTHING).ranks["PP1"].measured
    assert measured["prefill"].turn.count == 6
    beside = measured["beside_prefill"]
    assert beside.turn.count == 12 and beside.calls["send_tokens"].mean == pytest.approx(9)
    assert measured["decode"].turn.count + beside.turn.count + 6 + 2 == 60  # two begin the rows


def test_several_windows_give_what_each_gives_alone():
    ms = TURN_MS * MS
    windows = [(0, 20 * ms), (20 * ms, 40 * ms), None]
    both = launch_facts.summaries([steady().file], windows)
    assert both == [launch_facts.summary([steady().file], window) for window in windows]
    counts = [found.last_rank() for found in both]
    assert [each.turn.count if each else 0 for each in counts] == [18, 20, 0]


def test_what_arrives_beside_the_load_widens_no_window():
    own = {"start_ns": 5, "events": [[7, 1], [9, 2]]}
    beside = {"start_ns": 6, "events": [[30, 1]], "beside": True}
    assert window_of({"requests": [own, beside]}) == (5, 9)


def test_a_window_is_found_on_the_clock_of_another_host():
    """The second rank's host was booted 5 s later: its CLOCK_MONOTONIC is behind by so much."""
    here = {"boot_id": "a", "unix_ahead_ns": 1_000 * MS}
    there = {"boot_id": "b", "unix_ahead_ns": 6_000 * MS}
    first = Rank(0, **here)
    for at in range(1000):
        first.turn(at, CALLS)
    window = (5_200 * MS, 5_600 * MS)  # turns 10 to 29 of the second rank by its own clock
    second = steady(40, **there)
    found = launch_facts.summary([first.file, second.file], window)
    assert found.ranks["PP1"].measured["decode"].turn.count == 20
    assert any("PP1: its host is not the client's" in text for text in found.warnings)
    alone = launch_facts.summary([first.file, steady(40, **here).file], window)
    assert "decode" not in alone.ranks["PP1"].measured


def under_loads(*factors: float) -> Rows:
    """Fifty turns under each load, then a profile of fifty under each, longer by its factor, with
    ten turns unprofiled before it."""
    rank, base = Rank(1), 0.0
    spans = [(1.0, 0)] * 50 * len(factors)
    for factor in factors:
        spans += [(1.0, 0)] * 10 + [(factor, rows.PROFILED)] * 50
    for at, (factor, flag) in enumerate(spans):
        rank.row(at, "launch", base, base + 1)
        rank.row(at, "turn", base, base + factor * TURN_MS, flags=rows.DECODE | flag)
        base += factor * TURN_MS
    return rank.file


def test_each_load_is_held_against_its_own_profile():
    turns = TURN_MS * MS
    windows = [(0, 50 * turns), (50 * turns, 100 * turns), (0, 50 * turns)]
    second = int((100 + 10 + 50 * 1.05 + 5) * turns)  # before the second profile began
    spans = [(0, second), (second, 1 << 62), None]
    found = launch_facts.summaries([under_loads(1.05, 1.5)], windows, profiles=spans)
    assert [each.distortion for each in found] == [1.05, 1.5, None]
    assert [len(each.ranks["PP1"].profiled) for each in found] == [1, 1, 0]
    assert [any("as long" in text for text in each.warnings) for each in found] == [0, 1, 0]
