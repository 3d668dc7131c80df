"""The probe's parts that compute without processes: cells, options, places, intervals, parts."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro_pp_graphs.probe import launcher, places, table
from repro_pp_graphs.probe.cells import SENDS, Send, balanced, parse_send
from repro_pp_graphs.probe.interval import interval
from repro_pp_graphs.probe.journal import Batch, Call, Journal
from repro_pp_graphs.probe.options import SETTLING_STEPS, parse
from repro_pp_graphs.probe.send_split import TokenSend, explained, pace, spread, token_sends
from repro_pp_graphs.probe.truth import fits, waits_us

# cells


@given(
    st.sampled_from([[True], [False], [True, False]]),
    st.lists(st.sampled_from(SENDS), min_size=1, unique=True),
    st.integers(1, 6),
)
def test_every_combination_runs_once_a_repetition_and_every_second_one_backwards(
    graphs, names, repetitions
):
    cells = balanced(graphs, [Send(name) for name in names], repetitions)
    by_repetition = [[c.name for c in cells if c.repetition == n + 1] for n in range(repetitions)]
    assert [cell.repetition for cell in cells] == sorted(cell.repetition for cell in cells)
    assert len(set(by_repetition[0])) == len(by_repetition[0]) == len(graphs) * len(names)
    for before, after in itertools.pairwise(by_repetition):
        assert after == before[::-1]


def test_the_first_name_of_batched_p2p_is_still_taken():
    assert parse_send("batched") == parse_send("batched_p2p")


def test_remedies_combine_in_either_order():
    assert parse_send("event_send+comm_stream") == parse_send("comm_stream+event_send")
    both = parse_send("event_send+comm_stream")
    assert both.events and both.comm_stream and not both.asynchronous and not both.batched


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nccl",
        "async+event_send",
        "event_send+event_send",
        "event_send+",
        "Blocking",
        "events",
        "batched+async",
    ],
)
def test_an_unknown_send_path_is_refused_with_those_there_are(text):
    with pytest.raises(ValueError, match=r"blocking, async, comm_stream, event_send, batched_p2p"):
        parse_send(text)


# options


def test_defaults_on_a_gpu_are_the_whole_matrix():
    found = parse([], have_gpu=True)
    assert (found.device, found.ranks, found.micro_batches, found.graphs) == (
        "cuda", 4, 4, [True, False])  # fmt: skip
    assert [send.name for send in found.sends] == list(SENDS) and found.dtype == "bfloat16"


def test_defaults_on_a_cpu_are_small_and_without_graphs():
    found = parse(["--ranks", "3", "--steps", "5"], have_gpu=False)
    assert (found.device, found.graphs, found.dtype) == ("cpu", [False], "float32")
    assert (found.micro_batches, found.steps) == (3, 5 + SETTLING_STEPS)


def test_torchrun_decides_how_many_ranks_there_are():
    found = parse(["--ranks", "3"], have_gpu=False, world_size=7)
    assert found.ranks == found.micro_batches == found.layers == 7


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ("--graphs on", "CUDA graphs need a GPU"),
        ("--graphs on,off", "CUDA graphs need a GPU"),
        ("--graphs maybe", "'maybe': on, off, or on,off"),
        ("--device cuda", "no GPU here"),
        ("--send nccl", "no send path 'nccl'"),
        ("--ranks 1", "a ring needs 2 ranks"),
        ("--ranks 0", "not a whole number"),
        ("--ranks 99999", "too many for this machine's cores"),
        ("--steps 0", "not a whole number"),
        ("--steps -1", "not a whole number"),
        ("--steps 1.5", "not a whole number"),
        ("--batch x", "not a whole number"),
        ("--layers 3", "fewer than the 4 ranks"),
        ("--hidden 100", "not a multiple of 512 (below 512: of 64)"),
        ("--hidden 576", "not a multiple of 512"),
        ("--host-us -5", "not a whole number"),
        ("--dtype int8", "invalid choice"),
        ("--gra on", "no option '--gra'"),
    ],
)
def test_a_bad_option_ends_with_status_2_and_one_line_that_says_why(argv, told, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(argv.split(), have_gpu=False)
    lines = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and told in " ".join(lines)
    assert lines[0].startswith("probe: ") and len(lines) <= 2 and max(map(len, lines)) <= 80


def test_the_help_fits_80_columns_and_has_every_send_path_and_examples(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"], have_gpu=False)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if len(line) > 80] == []
    assert {line.split()[0] for line in lines if line.strip()} >= {*SENDS, "examples:"}


def test_a_ring_of_one_under_torchrun_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        parse([], have_gpu=False, world_size=1)
    assert ended.value.code == 2 and "--nproc-per-node 2" in capsys.readouterr().err


# places


def options_of(*argv: str) -> Any:
    return parse([*argv, "--device", "cpu"], have_gpu=False)


def test_folders_of_results_are_made_and_nothing_is_left_in_them(tmp_path):
    file, folder = tmp_path / "a/b/r.json", tmp_path / "t"
    argv = ["--json", str(file), "--trace", str(folder), "--send", "async,batched"]
    places.prepare(options_of(*argv))
    assert list(file.parent.iterdir()) == []
    assert sorted(path.name for path in folder.rglob("*")) == [
        "graphs_off_async", "graphs_off_batched_p2p"]  # fmt: skip


@pytest.mark.parametrize("option", ["--json", "--client-json", "--trace"])
def test_a_place_that_cannot_be_written_is_named_with_its_option(tmp_path, option):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=f"{option} .*cannot be written"):
        places.prepare(options_of(option, str(tmp_path / "file/x")))


def test_a_folder_given_as_a_file_is_refused(tmp_path):
    with pytest.raises(OSError, match="is a folder"):
        places.prepare(options_of("--json", str(tmp_path)))


def test_a_device_is_a_place_for_results_and_stays_one():
    places.prepare(options_of("--json", os.devnull))
    assert Path(os.devnull).is_char_device() and places.draft_of(Path(os.devnull)).name == "null"


def test_an_earlier_runs_traces_go_even_of_more_ranks_and_nothing_else_does(tmp_path):
    for rank in range(8):
        (tmp_path / f"probe-TP-0-PP-{rank}.trace.json.gz").touch()
        (tmp_path / f"truth_rank{rank}.jsonl").touch()
    (tmp_path / "notes.txt").touch()
    other = tmp_path / "graphs_off_async/probe-TP-0-PP-0.trace.json.gz"
    other.parent.mkdir()
    other.touch()
    places.prepare(options_of("--send", "blocking", "--trace", str(tmp_path)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["graphs_off_async", "notes.txt"]
    assert other.exists()


def test_traces_of_something_else_are_neither_mixed_in_nor_removed(tmp_path):
    ours, theirs = tmp_path / "probe-TP-0-PP-5.trace.json.gz", tmp_path / "1-TP-0.trace.json.gz"
    ours.touch()
    theirs.touch()
    with pytest.raises(OSError, match=r"holds other traces \(1-TP-0"):
        places.prepare(options_of("--send", "blocking", "--trace", str(tmp_path)))
    assert ours.exists() and theirs.exists()


# intervals


@pytest.mark.parametrize(
    ("values", "half_width"),
    [  # t of 95 % times the standard deviation over the root of n, by hand
        ([1, 3], 12.706),
        ([1, 2, 3], 4.303 / 3**0.5),
        ([5, 5, 5, 5], 0.0),
        ([0] * 10 + [1] * 11, 2.086 * (10 * 11 / 21 / 20) ** 0.5 / 21**0.5),
    ],
)
def test_half_widths_are_students(values, half_width):
    found = interval(values)
    assert found["mean"] == pytest.approx(sum(values) / len(values))
    assert found["half_width"] == pytest.approx(half_width, rel=1e-3)


def test_a_single_repetition_has_no_interval():
    assert interval([4.0]) == {"mean": 4.0, "half_width": None}


def test_many_repetitions_get_an_interval_too():
    wide, narrow = (interval([0.0, 1.0] * n)["half_width"] for n in (11, 40))
    assert wide is not None and narrow is not None and narrow < wide


# what a send waits for

TIMES = st.integers(0, 10**9)


@given(TIMES, TIMES, TIMES, TIMES)
def test_the_parts_of_a_send_add_up_to_the_whole_and_none_is_negative(entered, spent, own, peer):
    end = entered + spent
    parts = TokenSend(0, entered, end, end, own, peer, peer, 0, 0).split(end, peer)
    assert sum(parts) == pytest.approx(spent / 1e6) and min(parts) >= 0


@pytest.mark.parametrize(
    ("own", "peer", "parts"),
    [
        (0, 0, (0, 0, 10)),  # nothing to wait for
        (4, 0, (4, 0, 6)),  # the rank's own graph
        (0, 7, (0, 7, 3)),  # a late peer
        (4, 7, (4, 3, 3)),  # the peer's lateness counts from the end of the own step
        (7, 4, (7, 0, 3)),  # a peer that is late for less than the own step is not late
        (99, 0, (10, 0, 0)),  # the call returned while the step still runs: it was not waited for
        (2, 99, (2, 8, 0)),
    ],
)
def test_each_moment_of_a_send_has_one_reason(own, peer, parts):
    ms = 10**6
    row = TokenSend(0, 0, 10 * ms, 10 * ms, own * ms, peer * ms, peer * ms, 0, 0)
    assert row.split(10 * ms, peer * ms) == pytest.approx(parts)


def journals(clock_ns: int = 0) -> list[Journal]:
    """Turns 0 and 1 of two ranks, ms: the last rank's clock runs `clock_ns` behind."""
    ms = 10**6
    first, last = Journal(0, False), Journal(1, False)
    for turn in (0, 1):
        at = turn * 20
        last.batches.append(Batch(turn, 0, gpu_end_ns=(at + 3) * ms - clock_ns))
        last.calls.append(Call("send", "tokens", 0, turn, at * ms - clock_ns,
                               left_ns=(at + 10) * ms - clock_ns))  # fmt: skip
        last.calls.append(Call("recv", "hidden", 0, turn, 0))
        first.calls.append(Call("recv", "tokens", 1, turn, (at + 5) * ms,
                                gpu_end_ns=(at + 12) * ms))  # fmt: skip
        first.batches.append(Batch(turn + 1, 0, gpu_end_ns=(at + 8) * ms))
        first.arrivals[turn] = (at + 12) * ms
    return [first, last]


@pytest.mark.parametrize("clock_ns", [0, 10**12])
def test_token_sends_are_split_on_one_clock(clock_ns):
    found = explained(token_sends(journals(clock_ns), [0, clock_ns], 0, queued=1))
    host, delivered = found["host"], found["delivered"]
    assert (host["median"], host["own"], host["late_peer"], host["rest"]) == (10, 3, 2, 5)
    # until the last byte is there, the step queued before the receive makes the peer late as well
    assert [delivered[key] for key in ("median", "own", "late_peer", "rest")] == [12, 3, 5, 4]


def test_with_streams_of_their_own_a_peers_step_does_not_make_it_late():
    found = explained(token_sends(journals(), [0, 0], 0, queued=None))
    assert found["delivered"]["late_peer"] == 2


def test_a_lost_message_is_an_error():
    first, last = journals()
    del first.calls[1]
    with pytest.raises(KeyError):
        token_sends([first, last], [0, 0], 0, queued=1)


def test_settling_steps_are_left_out():
    assert [s.turn for s in token_sends(journals(), [0, 0], 1, queued=1)] == [1]


def test_one_step_has_a_pace_from_the_token_ids_before_it():
    first, _ = journals()
    found = pace(first, slots=1, batch=8, first_turn=1)
    assert found["step_ms"]["median"] == 20 and found["tokens_per_s"] == pytest.approx(8 / 0.02)


def test_p99_is_a_value_that_occurred():
    assert spread(range(101)) == {"median": 50, "p99": 99, "mean": 50}
    assert spread([7.0])["p99"] == 7


# the table

WIDE = st.sampled_from([0.0, 0.004, 9.99, 9.999, 99.96, 123.4, 9999.4, 99999.0, 123456.0])


COMBINED = "comm_stream+event_send"


def summary_of(rows: list[tuple[str, str, float, float | None]]) -> list[dict[str, Any]]:
    from repro_pp_graphs.probe.result import SUMMARISED  # noqa: PLC0415 - imports torch

    return [
        {
            "graphs": graphs,
            "send": send,
            "n": 3,
            **{key: {"mean": mean, "half_width": half} for key in SUMMARISED},
            "step_against_blocking": {"mean": 1.5, "half_width": half},
        }
        for graphs, send, mean, half in rows
    ]


@pytest.mark.slow
@given(WIDE, st.one_of(st.none(), WIDE))
def test_the_table_fits_80_columns(mean, half):
    place = {"device": "NVIDIA H200", "ranks_share_gpu": True, "mps": False}
    sends = [*SENDS, COMBINED]
    rows = [(state, send, mean + 0.01, half) for state in ("on", "off") for send in sends]
    found = table.lines(summary_of(rows), place)
    assert [line for line in found if len(line) > 79] == []
    names = tuple(f"{state:<4} {send}" for state in ("on", "off") for send in SENDS)
    columns = [line.replace(" ±", "±").split() for line in found if line.startswith(names)]
    columns = [each for each in columns if COMBINED not in each]
    assert [len(each) for each in columns] == [10] * len(names)


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.booleans())
def test_the_check_of_the_traces_fits_80_columns(messages, times, skipped):
    check = {"graphs": True, "messages": messages, "pairs": messages, "right": messages}
    check |= {"times": times, "within": times, "without_peer": messages}
    why = {"skipped": "the analyser needs msgspec"} if skipped else {}
    found = table.truth_lines([check | why | {"send": send} for send in (*SENDS, COMBINED)])
    assert [line for line in found if len(line) > 79] == []


# truth


def test_waits_and_transfer_of_a_pair_are_the_documents():
    assert waits_us((0, 10), (4, 12)) == (8, 4, 0)  # the send waits for its receive
    assert waits_us((6, 10), (4, 12)) == (6, 0, 2)  # the receive waits for its send


@pytest.mark.parametrize(
    ("found", "low", "high", "fit"),
    [
        (100, 100, 100, True),
        (100, 80, 80, True),  # 20 us
        (100, 79, 79, False),
        (1000, 950, 950, True),  # 5 %
        (1000, 949, 949, False),
        (1000, 1050, 2000, True),
        (500, 400, 600, True),  # anywhere in the interval
        (0, 21, 30, False),
    ],
)
def test_a_reading_fits_within_five_percent_or_twenty_us_of_the_interval(found, low, high, fit):
    assert fits(found, low, high) is fit


# who failed


def ranks(*codes: int) -> Any:
    return [SimpleNamespace(returncode=code) for code in codes]


def test_a_rank_ended_by_a_signal_is_named_before_those_that_lost_it(tmp_path):
    (tmp_path / "rank0.txt").write_text("RuntimeError: x closed by peer\n")
    found = launcher.culprit(ranks(1, -9, 1), {0, 1}, tmp_path)
    assert found.startswith("rank 1 was ended by SIGKILL")


def test_a_ranks_own_error_is_named_before_a_lost_connection(tmp_path):
    (tmp_path / "rank0.txt").write_text("RuntimeError: Connection reset by peer\ntrace\n")
    (tmp_path / "rank2.txt").write_text("WrongTokens: step 3\ntrace\n")
    assert launcher.culprit(ranks(1, 0, 1), {0}, tmp_path) == "rank 2 failed: WrongTokens: step 3"


def test_a_rank_that_left_no_word_is_named_with_its_status(tmp_path):
    assert launcher.culprit(ranks(0, 5), {1}, tmp_path) == "rank 1 ended with status 5"


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("RuntimeError: [gloo] Connection closed by peer [127.0.0.1]:1", True),
        ("DistBackendError: NCCL error: remote process exited", True),
        ("BrokenPipeError: [Errno 32] Broken pipe", True),
        ("OutOfMemoryError: CUDA out of memory", False),
        ("WrongTokens: rank 1, graphs_off_async, step 2", False),
    ],
)
def test_only_a_lost_connection_is_a_lost_peer(text, lost):
    assert launcher.lost_peer(text) is lost


def test_a_rank_that_does_not_end_after_another_has_is_killed_and_named(
    monkeypatch, capfd, tmp_path
):
    monkeypatch.setattr(launcher, "END_S", 0.0)
    monkeypatch.setattr(launcher, "GRACE_S", 0.1)
    ignores = "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); "
    codes = ["", ignores + "time.sleep(600)"]
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for code in codes
    ]
    assert started[1].stdout and started[1].stdout.readline() == b"\n"
    assert launcher._watch(started, tmp_path) == 1
    launcher.end_all(started)
    assert capfd.readouterr().err == "probe: rank 1 did not end: killed\n"
    assert started[1].returncode == -signal.SIGKILL
    for each in started:
        each.communicate()


# what is computed: by torch, which the tests import themselves, since every process collects them


@pytest.mark.slow
@given(st.integers(1, 99), st.integers(0, 60))
def test_layers_are_shared_out_evenly_each_once(ranks, more):
    from repro_pp_graphs.probe.model_stage import layers_of  # noqa: PLC0415

    shares = [layers_of(rank, ranks, ranks + more) for rank in range(ranks)]
    assert [layer for share in shares for layer in share] == list(range(ranks + more))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("hidden", [64, 192])
def test_the_model_gives_other_tokens_for_other_sequences_and_steps(hidden):
    """Else the check against it would pass whatever was mixed up."""
    import torch  # noqa: PLC0415

    from repro_pp_graphs.probe.model_stage import Shape, reference_tokens  # noqa: PLC0415

    torch.set_num_threads(1)
    with torch.inference_mode():
        shape = Shape(hidden, 3, 3, 2, 4, "float32", vocabulary=512)
        found = reference_tokens(shape, 2, torch.device("cpu"))
        assert found == reference_tokens(shape, 3, torch.device("cpu"))
    rows = [tuple(ids) for steps in found for ids in steps]
    assert len(rows) == 8 and len(set(rows)) == 8
