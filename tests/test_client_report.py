"""The load client's report, the caveats in it, and where it is printed."""

import os
import pty
import subprocess
import sys
import threading

import pytest
from client_harness import CLIENT, client_runs
from programs import ran
from standin_server import Behaviour, StandIn

from repro_pp_graphs.client.caveats import caveats, client_faults, length_caveat, self_check_verdict
from repro_pp_graphs.client.options import parse_options
from repro_pp_graphs.client.record import Record
from repro_pp_graphs.client.report import load_line, report_lines
from repro_pp_graphs.client.run import Run
from repro_pp_graphs.client.summary import summarize

MS = 1_000_000


def record(prompt_tokens=9, late_ms=0.0, error=None):
    """A prompt that got tokens at 10, 20 and 30 ms."""
    sent_ns = 1000 * MS
    events = [[sent_ns + n * 10 * MS, n] for n in (1, 2, 3)]
    due_ns = sent_ns - round(late_ms * MS)
    return Record(
        sent_ns, sent_ns, due_ns, 0, events, 3, prompt_tokens, finish_reason="stop", error=error
    )


def summary(*argv, records=(), cpu_s=0.001, reads=3, stamped=3):
    run = Run(end_ns=30 * MS, cpu_s=cpu_s)
    run.clock.reads, run.clock.lags_ns = reads, [1000] * stamped
    return summarize(list(records or [record()]), run, parse_options(argv), "m", 0)


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ([], "16 prompts a request, 1 request at a time, 128 new tokens a prompt, 1 warm-up"),
        (["--concurrency", "8"],
         "1 prompt a request, 8 requests at a time, 128 new tokens a prompt, 1 warm-up"),
        (["--request-rate", "4"],
         "1 prompt a request, 4 requests/s, 128 new tokens a prompt, 1 warm-up"),
        (["--request-rate", "0.5", "--concurrency", "3", "--batch", "2", "--warmup", "0"],
         "2 prompts a request, 0.5 requests/s, at most 3 requests at a time, "
         "128 new tokens a prompt, 0 warm-up"),
    ],
)  # fmt: skip
def test_the_head_says_requests_and_prompts(argv, line):
    assert load_line(summary(*argv)) == line


def test_the_foot_says_prompts_and_whether_they_include_waiting_ones():
    lines = report_lines(summary(), [record()])
    assert "in flight      1.00 prompts on average, 1 at most" in lines
    lines = report_lines(summary("--request-rate", "9", "--concurrency", "2"), [record()])
    assert "in flight      1.00 prompts on average, 1 at most, with those that wait" in lines[-2]


def test_a_self_check_without_a_fault_ends_in_ok():
    assert report_lines(summary(), [record()])[-1].endswith("100% kernel stamps: ok")


@pytest.mark.parametrize(
    ("argv", "more", "faults", "verdict"),
    [
        ([], {"cpu_s": 0.029}, 1, "not ok, see the warnings"),
        ([], {"records": [record(late_ms=11)]}, 1, "not ok, see the warnings"),
        ([], {"stamped": 0}, 0, "no fault seen; unknown: how late arrivals were read"),
        ([], {"reads": 100, "stamped": 98}, 0, "no fault seen; unknown: how late arrivals were"),
        ([], {"reads": 100, "stamped": 99}, 0, "ok"),
        (["--request-rate", "9"], {"records": [record(late_ms=11)]}, 1, "not ok"),
        (["--request-rate", "9", "--concurrency", "2"], {"records": [record(late_ms=11)]}, 0,
         "no fault seen; unknown: how much of the send lag is not the wait for --concurrency"),
        (["--request-rate", "9", "--concurrency", "2"], {}, 0, "ok"),
    ],
)  # fmt: skip
def test_the_verdict_is_ok_only_where_that_was_seen(argv, more, faults, verdict):
    figures = summary(*argv, **more)
    assert len(client_faults(figures)) == faults
    assert self_check_verdict(figures).startswith(verdict)
    late = "records" in more
    assert any("after they were due" in line for line in figures["warnings"]) == late


@pytest.mark.parametrize(
    ("asked", "counted", "caveat"),
    [
        (32, [32, 32], None),
        (32, [33, 35], None),  # a token or two begin every prompt
        (1000, [1090], None),
        (1, [2], None),
        (32, [191, 192], "--input-len 32: the server counts 191.5 tokens a prompt; "
                         "--input-len 5 comes closer to 32"),
        (32, [20, 22], "--input-len 32: the server counts 21.0 tokens a prompt; "
                       "--input-len 49 comes closer to 32"),
        (1, [40], "--input-len 1: the server counts 40.0 tokens a prompt"),
        (32, [], None),
        (32, [0, 0], None),  # it does not say
    ],
)  # fmt: skip
def test_a_length_that_the_server_counts_otherwise_is_said(asked, counted, caveat):
    assert length_caveat([record(tokens) for tokens in counted], asked) == caveat


def test_failed_prompts_say_nothing_about_lengths():
    records = [record(32), record(900, error="reset: while reading")]
    assert length_caveat(records, 32) is None


def test_the_length_of_a_files_prompts_is_not_judged():
    options = parse_options(["--prompts", "a_file.txt"])
    assert caveats(summary(), [record(900)], options, 0) == []


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ([1, 2, 3], None),
        ([1, 5, 9, 13], "tokens came 4.0 at a time: ITL"),
        ([1, 2, 4], "tokens came 1.5 at a time"),
        ([1, 2, 3, 5], None),  # now and then two
        ([9], None),
    ],
)
def test_tokens_that_come_several_at_a_time_are_said_to(counts, said):
    one = record()
    one.events = [[1000 * MS + n * 10 * MS, tokens] for n, tokens in enumerate(counts)]
    found = " ".join(caveats(summary(), [one], parse_options(["--prompts", "a_file.txt"]), 0))
    assert said in found if said else "at a time" not in found


def client(server, *argv):
    argv = ["--base-url", server.url, "--max-new-tokens", "2", "--warmup", "0", *argv]
    return [sys.executable, str(CLIENT), *argv]


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("argv", [["--help"], []])
def test_a_reader_that_goes_away_is_no_error(unbuffered, argv):
    reading, writing = os.pipe()
    os.close(reading)
    with StandIn() as server:
        done = subprocess.run(
            client(server, *argv),
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=600,
            check=False,
        )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_report_that_cannot_be_printed_is_said_in_a_sentence():
    with StandIn() as server, open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            client(server), stdout=full, stderr=subprocess.PIPE, text=True, timeout=600, check=False
        )
    said = "client_benchmark.py: the report cannot be printed: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, said)


def test_what_an_encoding_lacks_is_escaped():
    with StandIn(Behaviour(fault="http", http_status=400, message="太长")) as server:
        done = ran(client(server), env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (1, "")
    assert "http 400: \\u592a\\u957f" in done.stdout


def test_a_run_goes_on_when_its_terminal_is_closed(tmp_path):
    ours, theirs = pty.openpty()
    closed = threading.Event()
    with StandIn(Behaviour(hold=lambda _: not closed.is_set())) as server:
        output = tmp_path / "run.json"
        argv = client(server, "--max-new-tokens", "10", "--output", str(output))
        process = subprocess.Popen(argv, stdout=theirs, stderr=subprocess.PIPE, text=True)
        os.close(theirs)
        shown = b""
        while b"measuring" not in shown:
            shown += os.read(ours, 4096)
        os.close(ours)
        closed.set()
        _, said = process.communicate(timeout=600)
    assert output.is_file()
    assert "Traceback" not in said


def test_a_run_without_any_output_is_written(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with client_runs(tmp_path, capsys) as run, StandIn() as server:
        status, document, _ = run(server.url, "--max-new-tokens", "2", "--batch", "1")
    assert (status, document["summary"]["completed"]) == (0, 1)
