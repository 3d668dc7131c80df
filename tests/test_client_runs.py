"""The load client against the stand-in server: what is sent, what is counted, what is left."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from client_harness import CLIENT, LINUX, client_runs, generated, main
from fake_sglang.harness import LIMIT_S, wait_until
from standin_server import Behaviour, StandIn

from repro_pp_graphs.client.options import parse_options
from repro_pp_graphs.client.result import check_writable, part_of
from repro_pp_graphs.client.server import Server


@pytest.fixture
def run_client(tmp_path, capsys, monkeypatch):
    """Runs the client in this process: (exit status, --output document, stdout lines)."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with client_runs(tmp_path, capsys) as run:

        def run_for_lines(url, *argv):
            status, document, text = run(url, *argv)
            return status, document, text.splitlines()

        yield run_for_lines


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(),
        Behaviour(incremental=True),
        Behaviour(tokens_a_chunk=3),
        Behaviour(events_a_write=5),
        Behaviour(write_bytes=7),
        Behaviour(late_head=True),
        Behaviour(ignore_close=True),
    ],
)
@pytest.mark.parametrize("reader", ["epoll", "threads"])
@pytest.mark.parametrize("backend", ["sglang", "openai"])
def test_every_token_is_counted_however_it_is_streamed(run_client, behaviour, reader, backend):
    with StandIn(behaviour) as server:
        argv = ("--batch", "3", "--max_new_tokens", "10", "--reader", reader, "--backend", backend)
        status, document, _ = run_client(server.url, *argv)
    assert status == 0
    assert [request["tokens"] for request in document["requests"]] == [10, 10, 10]
    assert {request["events"][-1][1] for request in document["requests"]} == {10}
    assert document["summary"]["total_output_tokens"] == 30
    steps = -(-10 // behaviour.tokens_a_chunk)
    assert {len(request["events"]) for request in document["requests"]} == {steps}


def test_the_result_keeps_its_contract(run_client):
    # else a busy machine reads all of them at once
    with StandIn(Behaviour(itl_s=0.05)) as server:
        status, document, _ = run_client(server.url, "--batch", "2", "--max-new-tokens", "6")
    assert (status, document["schema"]) == (0, 1)
    summary = document["summary"]
    for name in ("ttft_ms", "itl_ms", "tpot_ms", "e2e_latency_ms"):
        for statistic in ("mean", "median", "p90", "p95", "p99", "max", "std"):
            assert summary[f"{statistic}_{name}"] >= 0
    for name in ("duration", "output_throughput", "request_throughput", "concurrency"):
        assert summary[name] > 0
    assert (summary["reader"], summary["completed"]) == ("epoll", 2)
    assert summary["steady_state"]["output_throughput"] > 0
    assert sum(part["tokens"] for part in summary["itl_over_time"]) == 10
    for request in document["requests"]:
        times = [arrival_ns for arrival_ns, _ in request["events"]]
        assert request["start_ns"] < times[0]
        assert times == sorted(times)
        assert request["error"] is None


def test_a_batch_is_one_request_and_one_record_a_prompt(run_client, tmp_path):
    prompts = tmp_path / "p.txt"
    prompts.write_text("one\n\n 二 \nthree\n", encoding="utf-8")
    with StandIn() as server:
        argv = ("--prompts", str(prompts), "--batch", "3", "--warmup", "0", "--max-new-tokens", "2")
        _, document, _ = run_client(server.url, *argv)
        (payload,) = generated(server)
    assert payload["text"] == ["one", "二", "three"]
    sampling = {"temperature": 0, "max_new_tokens": 2, "ignore_eos": True}
    assert (payload["sampling_params"], payload["stream"]) == (sampling, True)
    assert len(document["requests"]) == 3


def test_concurrency_sends_separate_requests(run_client):
    with StandIn(Behaviour(hold=lambda received: len(received) < 5)) as server:
        argv = ("--concurrency", "5", "--warmup", "0", "--max-new-tokens", "8")
        status, document, _ = run_client(server.url, *argv)
        assert [type(payload["text"]) for payload in generated(server)] == [str] * 5
    assert status == 0
    assert document["summary"]["max_concurrent_requests"] == 5


def test_num_prompts_goes_through_the_lanes_in_turn(run_client):
    with StandIn() as server:
        argv = ("--concurrency", "2", "--num-prompts", "7", "--max-new-tokens", "3", "--batch", "2")
        status, document, _ = run_client(server.url, *argv)
        texts = [payload["text"] for payload in generated(server)[1:]]
    sizes = sorted(len(text) if isinstance(text, list) else 1 for text in texts)
    assert (status, len(document["requests"]), sizes) == (0, 7, [1, 2, 2, 2])
    assert {request["lane"] for request in document["requests"]} == {0, 1}


def test_the_warm_up_is_over_before_measuring_and_not_counted(run_client):
    with StandIn(Behaviour(itl_s=0.002)) as server:
        argv = ("--batch", "2", "--warmup", "3", "--max-new-tokens", "4")
        _, document, _ = run_client(server.url, *argv)
        sent = generated(server)
    assert len(sent) == 4
    assert len(document["requests"]) == 2
    measured, warm = sent[-1]["text"], [text for payload in sent[:-1] for text in payload["text"]]
    assert not set(measured) & set(warm), "a prefix cache would serve the measured prompts"


def test_the_warm_up_does_not_wait_for_poisson_arrivals(run_client):
    with StandIn() as server:
        argv = ("--request-rate", "0.001", "--num-prompts", "1", "--warmup", "4")
        status, _, _ = run_client(server.url, *argv, "--max-new-tokens", "2")
        assert (status, len(generated(server))) == (0, 5)


def test_at_a_request_rate_the_clock_starts_when_a_request_was_due(run_client):
    with StandIn(Behaviour(itl_s=0.002)) as server:
        argv = ("--request-rate", "2000", "--concurrency", "1", "--num-prompts", "3")
        status, document, _ = run_client(server.url, *argv, "--max-new-tokens", "5")
    assert status == 0
    earlier, *later = document["requests"]
    for request in later:
        assert request["start_ns"] == request["intended_ns"]
        assert request["sent_ns"] >= earlier["events"][-1][0] > request["start_ns"]
        earlier = request
    assert document["summary"]["max_queue_ms"] > 5
    assert any("after they were due" in warning for warning in document["summary"]["warnings"])


def test_an_open_loop_does_not_wait_for_answers(run_client):
    with StandIn(Behaviour(hold=lambda received: len(received) < 4)) as server:
        argv = ("--request-rate", "500", "--num-prompts", "4", "--max-new-tokens", "2")
        _, document, _ = run_client(server.url, *argv, "--warmup", "0")
    assert document["summary"]["max_concurrent_requests"] == 4


def test_for_a_duration_ended_streams_are_replaced(run_client):
    requests, duration_s = [], 0.1
    with StandIn(Behaviour(itl_s=0.002)) as server:
        while len(requests) <= 4 and duration_s < 100:  # a busy machine has fewer in that time
            duration_s *= 2
            argv = ("--concurrency", "2", "--duration", str(duration_s), "--max-new-tokens", "10")
            status, document, _ = run_client(server.url, *argv)
            requests = document["requests"]
    assert status == 0
    assert len(requests) > 4
    assert {request["tokens"] for request in requests} == {10}
    begin_ns = min(request["start_ns"] for request in requests)
    # when it was due: the machine may be busy between that and its start
    assert all(request["intended_ns"] - begin_ns < duration_s * 1e9 for request in requests)
    assert document["summary"]["steady_state"] is not None


def test_openai_usage_at_the_end_alone_still_gives_the_total(run_client):
    with StandIn(Behaviour(continuous_usage=False)) as server:
        argv = ("--backend", "openai", "--batch", "1", "--max-new-tokens", "6")
        status, document, _ = run_client(server.url, *argv)
        (payload, _) = generated(server, "/v1/completions")
    assert payload["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    assert (payload["model"], payload["ignore_eos"]) == ("stand-in/tiny", True)
    assert (status, document["summary"]["token_counts"]) == (0, "final_usage")
    assert [count for _, count in document["requests"][0]["events"]] == [1, 2, 3, 4, 5, 6]


def test_openai_chunks_are_not_taken_for_tokens(run_client):
    with StandIn(Behaviour(continuous_usage=False, tokens_a_chunk=4)) as server:
        argv = ("--backend", "openai", "--batch", "1", "--max-new-tokens", "12")
        _, document, _ = run_client(server.url, *argv)
    (request,) = document["requests"]
    counts = [count for _, count in request["events"]]
    # three events; whether the first came alone is the machine's affair
    assert (request["tokens"], counts in ([1, 12], [12])) == (12, True)


def test_an_openai_batch_counted_as_one_is_refused_with_the_way_out(run_client):
    with StandIn(Behaviour(continuous_usage=False)) as server:
        argv = ("--backend", "openai", "--batch", "2", "--max-new-tokens", "3")
        status, document, _ = run_client(server.url, *argv)
    assert status == 1
    assert all("use --batch 1" in request["error"] for request in document["requests"])


def test_bench_serving_lines_are_appended(run_client, tmp_path):
    path = tmp_path / "runs.jsonl"
    with StandIn() as server:
        for tokens in ("3", "5"):
            argv = ("--batch", "2", "--max-new-tokens", tokens, "--bench-serving-json", str(path))
            run_client(server.url, *argv)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["total_output_tokens"] for line in lines] == [6, 10]
    assert [line["random_output_len"] for line in lines] == [3, 5]


def test_no_ignore_eos_lets_an_answer_end_early(run_client):
    with StandIn(Behaviour(fault="short", fault_after=3)) as server:
        status, document, _ = run_client(server.url, "--no-ignore-eos", "--batch", "2")
        assert generated(server)[0]["sampling_params"]["ignore_eos"] is False
    assert status == 0
    assert [request["tokens"] for request in document["requests"]] == [3, 3]


def test_the_report_fits_80_columns_and_is_plain_text(run_client):
    with StandIn(Behaviour(itl_s=0.001)) as server:
        argv = ("--num-prompts", "40", "--max-new-tokens", "3", "--batch", "20")
        _, _, lines = run_client(server.url, *argv)
    assert all(len(line) <= 80 and "\x1b" not in line for line in lines)
    text = "\n".join(lines)
    assert "TTFT ms" in text
    assert "40 completed, 0 failed" in text


@pytest.mark.parametrize(("backend", "warned"), [("sglang", False), ("openai", True)])
def test_prompts_that_repeat_are_warned_of_where_the_server_may_hide_a_cache(
    backend, warned, run_client
):
    """sglang says how many tokens came from its cache: none did."""
    with StandIn(Behaviour(itl_s=0.001)) as server:
        argv = ("--num-prompts", "40", "--max-new-tokens", "3", "--batch", "20")
        _, document, _ = run_client(server.url, *argv, "--backend", backend)
    assert any("prefix cache" in text for text in document["summary"]["warnings"]) is warned


def test_the_api_key_is_sent_and_never_shown(run_client, monkeypatch):
    with StandIn() as server:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
        options = parse_options(["--base-url", server.url])
        assert Server(options).headers["Authorization"] == "Bearer sk-secret"
        _, document, lines = run_client(server.url, "--batch", "1", "--max-new-tokens", "1")
    assert "sk-secret" not in json.dumps(document) + "\n".join(lines)


def test_a_proxy_from_the_environment_is_not_used_for_loopback(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert Server(parse_options([])).plain()
    remote = parse_options(["--base-url", "http://203.0.113.9:30000"])
    assert not Server(remote).plain()


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["--prompts", "no_such_file.txt"], "no_such_file.txt"),
        (["--prompts", os.devnull], "holds no prompt"),
        (["--prompts", sys.executable], "not UTF-8"),
        (["--output", "no_such_folder/x.json"], "create it first"),
        (["--output", "."], "--output .: it is a folder"),
        (["--output", f"{__file__}/x.json"], "Not a directory"),
        (["--bench-serving-json", "no_such_folder/x.jsonl"], "--bench-serving-json no_such_folder"),
        (["--bench-serving-json", "."], "it is a folder"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_sent(
    argv, complaint, capsys, run_client, monkeypatch
):
    monkeypatch.setattr("repro_pp_graphs.client.measure.Server", None)
    assert main(argv) == 2
    said = capsys.readouterr().err
    assert max(map(len, said.splitlines())) <= 80 or " " not in complaint
    assert said.startswith("client_benchmark.py: ") and complaint in " ".join(said.split())


def test_trying_the_places_of_results_leaves_what_is_there(tmp_path):
    old, new = tmp_path / "old.jsonl", tmp_path / "new.jsonl"
    old.write_text("one run\n")
    for path, draft_of in ((old, Path), (new, Path), (old, part_of), (new, part_of)):
        check_writable("--output", path, draft_of)
    assert [path.name for path in tmp_path.iterdir()] == ["old.jsonl"]
    assert old.read_text() == "one run\n"


def test_a_device_is_written_in_place(run_client):
    with StandIn() as server:
        argv = ["--base-url", server.url, "--batch", "1", "--output", os.devnull]
        assert main(argv) == 0
    assert Path(os.devnull).is_char_device()


def unread(port: int) -> int:
    """Bytes that came over connections to a local port and that nobody has read yet."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(int(row[4][9:], 16) for row in rows if row[2].endswith(f":{port:04X}"))


@LINUX
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_and_keeps_what_arrived(stop, tmp_path):
    output = tmp_path / "out.json"
    with StandIn(Behaviour(fault="stall", fault_after=2)) as server:
        argv = ["--base-url", server.url, "--batch", "2", "--warmup", "0", "--output", str(output)]
        process = subprocess.Popen(
            [sys.executable, str(CLIENT), *argv], stdout=subprocess.PIPE, text=True
        )
        assert server.stalled.wait(LIMIT_S)
        port = int(server.url.rpartition(":")[2])
        wait_until(lambda: not unread(port))
        process.send_signal(stop)
        text, _ = process.communicate(timeout=600)
    assert process.returncode == 130
    document = json.loads(output.read_text())
    assert document["summary"]["interrupted"] is True
    for request in document["requests"]:
        assert request["error"].startswith("interrupted")
        assert request["tokens"] == 2
    assert "interrupted: the figures cover" in text
    assert "failed: 2 x interrupted: stopped by a signal" in text


def test_progress_is_drawn_on_a_terminal_and_wiped():
    ours, theirs = pty.openpty()
    drawn = threading.Event()
    with StandIn(Behaviour(hold=lambda _: not drawn.is_set())) as server:
        argv = [sys.executable, str(CLIENT), "--base-url", server.url, "--batch", "2"]
        argv += ["--max-new-tokens", "30", "--warmup", "0"]
        with subprocess.Popen(argv, stdout=theirs) as process:
            os.close(theirs)
            shown = b""
            with contextlib.suppress(OSError):  # its end
                while more := os.read(ours, 4096):
                    shown += more
                    if b"measuring: 0/1 streams" in shown:
                        drawn.set()
    os.close(ours)
    assert process.returncode == 0 and drawn.is_set()
    assert b"\r\x1b[Ksglang" in shown
