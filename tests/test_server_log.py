"""Server logs, as sglang 0.5.2 to 0.5.23 write them: stage, progress, decode lines, ranks."""

from __future__ import annotations

import re

import pytest
from server_logs import CPU_NOISE

from repro_pp_graphs.run.launch import hang
from repro_pp_graphs.server.log import log_lines
from repro_pp_graphs.server.log.log_lines import DecodeLine, Follower

# cut from a run of 0.5.21 on an H200, in the order of its log
START = "[2026-11-23 21:16:00] server_args=ServerArgs(model_path='m', tokenizer_mode='auto')\n"
LOADING = "[2026-11-23 21:16:19 PP3] Load weight begin. avail mem=135.86 GB\n"
LOADED = (
    "[2026-11-23 21:16:19 PP3] Load weight end. elapsed=0.21 s, type=LlamaForCausalLM, "
    "avail mem=108.25 GB, mem usage=27.61 GB.\n"
)
CAPTURING = (
    "[2026-11-23 21:16:19 PP1] Capture target decode CUDA graph begin. backend=full, "
    "num_tokens_per_req=1, bs=[1, 2, 4, 8], avail mem=91.86 GB\n"
)
CAPTURED = (
    "[2026-11-23 21:17:06 PP3] Capture target decode CUDA graph end. elapsed=46.89 s, "
    "mem usage=0.69 GB, avail mem=91.08 GB.\n"
)
UVICORN = (
    "[2026-11-23 21:17:07] INFO:     Uvicorn running on http://127.0.0.1:30000 "
    "(Press CTRL+C to quit)\n"
)
FIRED_UP = "[2026-11-23 21:17:16] The server is fired up and ready to roll!\n"


@pytest.mark.parametrize(
    ("parts", "stage"),
    [
        ([], "starting"),
        ([START], "starting its ranks"),
        ([START, LOADING], "loading weights"),
        ([START, LOADING, LOADED], "weights loaded"),
        ([START, LOADING, LOADED, CAPTURING], "capturing graphs"),
        ([START, LOADING, LOADED, CAPTURING, CAPTURED], "graphs captured"),
        ([START, LOADING, LOADED, CAPTURING, CAPTURED, UVICORN], "warming up"),
        ([START, LOADING, LOADED, UVICORN, FIRED_UP], "ready"),
        ([START, LOADING, LOADED, FIRED_UP, UVICORN], "ready"),  # 0.5.16 says them in this order
    ],
)
def test_the_stage_is_the_last_that_the_log_shows(parts, stage):
    assert log_lines.stage("".join(parts)) == stage


@pytest.mark.parametrize(
    ("line", "stage"),
    [
        # 0.5.2 to 0.5.10
        ("Capture cuda graph begin. This can take up to several minutes.", "capturing graphs"),
        ("Capture cuda graph bs [1, 2, 4]\nCapturing batches (bs=4 avail_mem=9.", "capturing"),
        ("Capture piecewise CUDA graph begin. avail mem=91.86 GB", "capturing graphs"),
        ("Capture cuda graph end. Time elapsed: 4.20 s. mem usage=0.5", "graphs captured"),
        # 0.5.23
        ("Capture target decode CUDA graph end. bs=[1, 2], elapsed=4.20 s", "graphs captured"),
    ],
)
def test_capture_is_seen_in_every_releases_words(line, stage):
    assert log_lines.stage(f"{LOADING}{LOADED}[2026-11-23 21:16:19 PP1] {line}\n").startswith(stage)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (  # 0.5.2, tensor parallel: PP comes last
            "[2025-09-12 10:00:00 TP0 PP3] Decode batch. #running-req: 16, #token: 2071, token "
            "usage: 0.03, cuda graph: True, gen throughput (token/s): 28.22, #queue-req: 0, ",
            DecodeLine(3, 16, True),
        ),
        (  # 0.5.6 and newer: PP comes before TP
            "[2026-11-23 21:17:17 PP2 TP1] Decode batch, #running-req: 4, #token: 2071, token "
            "usage: 0.03, cuda graph: False, gen throughput (token/s): 28.22, #queue-req: 0",
            DecodeLine(2, 4, False),
        ),
        (
            "[2026-11-23 21:17:17 DP1 PP12 ATTN_CP0 MOE_DP3 TP1 EP1] Decode batch, #running-req: "
            "4, #full token: 20, full token usage: 0.03, cuda graph: True, #queue-req: 0",
            DecodeLine(12, 4, True),
        ),
        (  # with SGLANG_LOG_FORWARD_ITERS
            "[2026-11-23 21:17:17 PP1] Decode batch [123], #running-req: 7, #token: 9, token "
            "usage: 0.03, cuda graph: True, gen throughput (token/s): 28.22, #queue-req: 0",
            DecodeLine(1, 7, True),
        ),
        (
            "[2026-11-23 21:26:06 PP1] Decode batch, #running-req: 1, #token: 0, token usage: "
            "0.00, cpu graph: False, gen throughput (token/s): 4.65, #queue-req: 0",
            DecodeLine(1, 1, False),
        ),
        (  # one rank only: no prefix
            "[2026-11-23 21:26:06] Decode batch, #running-req: 2, #token: 0, token usage: 0.00, "
            "accept len: 2.10, accept rate: 0.70, cuda graph: True, #queue-req: 0",
            DecodeLine(0, 2, True),
        ),
    ],
    ids=["tp-pp", "pp-tp", "all-ranks", "iteration", "cpu", "one-rank"],
)
def test_a_decode_line_gives_rank_requests_and_graph(line, expected):
    assert log_lines.decode_lines(f"{FIRED_UP}{line}\n{line}\n") == [expected, expected]


def test_a_prefill_line_is_no_decode_line():
    line = (
        "[2026-11-23 21:17:16 PP0] Prefill batch, #new-seq: 1, #new-token: 64, #cached-token: 0, "
        "token usage: 0.00, #running-req: 0, #queue-req: 0, cuda graph: True, "
        "input throughput (token/s): 0.75\n"
    )
    assert log_lines.decode_lines(line) == []


BAR = "Loading safetensors checkpoint shards:  {}% Completed | {}/30 [00:0{}<01:00,  2.0s/it]"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ""),
        (START, ""),
        (START + CPU_NOISE, ""),
        ("[2026-11-23 21:26:00 PP1] Init torch distributed begin.\n" + CPU_NOISE, "PP1 Init torch"),
        (START + LOADING, "PP3 Load weight begin. avail mem=135.86 GB"),
        (
            START + LOADING + "\r".join(BAR.format(3 * n, n, n) for n in range(5)),
            "Loading safetensors checkpoint shards:  12%",
        ),
        (LOADING + "Capturing batches (bs=64 avail_mem=90.1 GB):  12%|#2  | 3/25", "Capturing"),
        (LOADED + '[2026-11-23 21:17:08] INFO: 127.0.0.1:1 - "GET /health HTTP/1.1" 503\n', "PP3"),
        (LOADED + "/site/awq.py:53: UserWarning: Only CUDA\n  warnings.warn(\n", "PP3 Load weight"),
    ],
)
def test_the_latest_line_tells_what_a_starting_server_is_at(text, said):
    assert log_lines.latest(text).startswith(said)
    assert bool(log_lines.latest(text)) == bool(said)


def test_what_a_server_says_to_people_at_its_terminal_is_not_repeated():
    said = "Uvicorn running on http://[::1]:30000"
    line = f"[2026-11-23 21:26:05] INFO:     {said} (Press CTRL+C to quit)"
    assert log_lines.latest(line) == said


@pytest.mark.parametrize(
    "line",
    [
        "Scheduler hit an exception: Traceback (most recent call last):",
        "Received sigquit from a child process. It usually means the child failed.",
        "Rank 0 scheduler is dead. Please check if there are relevant logs.",
        "RuntimeError: Rank 1 scheduler died during initialization (exit code: 1).",
    ],
)
def test_a_failed_rank_is_noticed_before_the_main_process_ends(line):
    assert log_lines.is_dying(f"{START}[2026-11-23 19:40:33 PP0] {line}\n")


@pytest.mark.parametrize(
    ("raw", "when", "rank", "text"),
    [
        ("[2026-11-23 21:16:19 PP3] Load", "2026-11-23 21:16:19", "PP3", "Load"),
        (
            "[2026-07-05 19:49:44.257 DP1 TP1 EP1] Load",
            "2026-07-05 19:49:44.257",
            "DP1 TP1 EP1",
            "Load",
        ),
        ("[2026-11-23 21:16:19] Load", "2026-11-23 21:16:19", "", "Load"),
        ("[12-16 14:27:10] Exit", "12-16 14:27:10", "", "Exit"),
        ("Traceback", "", "", "Traceback"),
        # NCCL may put a time before its own lines
        (
            "[2025-10-13 09:06:25] pod-0:36:40 [0] a.cc:1 NCCL WARN x",
            "",
            "",
            "pod-0:36:40 [0] a.cc:1 NCCL WARN x",
        ),
    ],
)
def test_a_line_is_read_with_its_time_and_rank(raw, when, rank, text):
    (line,) = log_lines.lines(raw)
    assert (line.when, line.rank, line.text) == (when, rank, text)
    assert line.prefixed == bool(when)


def test_each_ranks_last_step_is_known_longest_silent_first():
    early = "[2026-11-23 21:17:17 PP2] Decode batch, #running-req: 4\n"
    late = "[2026-11-23 21:17:19 PP0] Prefill batch, #new-seq: 1\n"
    watchdog = "[2026-11-23 21:22:19 PP2] Scheduler watchdog timeout (self.watchdog_timeout=300)\n"
    last = log_lines.last_by_rank(log_lines.lines(LOADING + late + early + watchdog))
    assert list(last) == ["PP3", "PP2", "PP0"]
    assert last["PP2"].text.startswith("Decode batch")


def test_no_line_makes_a_pattern_slow():
    # each of these took a pattern that goes back seconds to hours
    size = 200_000
    for word in ("Decode batch ", "#running-req: 1 ", "Capture graph ", "[x PP1", "Loading: 1"):
        line = "[2026-11-23 21:16:19 PP1] " + word * (size // len(word))
        assert log_lines.decode_lines(line) == []
        log_lines.stage(line)
        log_lines.latest(line)
        log_lines.is_dying(line)
        assert all(len(each.text) <= log_lines.LONGEST_LINE for each in log_lines.lines(line))


@pytest.mark.parametrize("rank", ["PP1\x1b[31m", "PP1\x05", "\u202ePP1", "P" * 61])
def test_what_no_rank_is_called_is_no_rank(rank):
    (found,) = log_lines.lines(f"[2026-11-23 21:17:07 {rank}] Load weight begin.")
    assert (found.prefixed, found.rank) == (False, "")


def test_what_a_rank_said_last_cannot_move_the_terminal():
    text = "[2026-11-23 21:17:07 PP1] Load weight begin.\x1b[2J\x05 avail"
    assert not re.search("[\x00-\x1f]", "".join(hang.rank_lines(text)))


WHOLE = (
    START + LOADING + LOADED + CAPTURING + BAR.format(3, 1, 1) + "\r" + BAR.format(12, 4, 4) + "\n"
    f"{CAPTURED}{UVICORN}{FIRED_UP}[2026-11-23 21:17:17 PP2 TP1] Decode batch, #running-req: 4, "
    "cuda graph: True, wörd\n[2026-11-23 19:40:33 PP0] Scheduler hit an exception: x\n"
)


@pytest.mark.parametrize("step", [1, 3, 50, 10_000])
def test_a_log_that_is_followed_is_known_as_one_that_is_read_whole(tmp_path, step):
    path, raw = tmp_path / "server.log", WHOLE.encode()
    follower = Follower(path)
    assert (follower.look().stage, follower.latest, follower.decoded) == ("starting", "", 0)
    with path.open("wb", buffering=0) as file:
        for at in range(0, len(raw), step):
            file.write(raw[at : at + step])
            follower.look()
            so_far = raw[: at + step].decode("utf-8", "ignore")
            assert follower.stage == log_lines.stage(so_far)
            assert follower.is_dying == log_lines.is_dying(so_far)
            assert follower.latest == log_lines.latest(so_far)
    assert (follower.decoded, follower.is_dying) == (1, True)


def test_of_a_log_that_is_followed_each_byte_is_read_once(tmp_path, monkeypatch):
    read = []
    take = Follower._take
    monkeypatch.setattr(
        Follower, "_take", lambda self, new: (read.append(len(new)), take(self, new))
    )
    path = tmp_path / "server.log"
    follower = Follower(path)
    line = WHOLE.splitlines(keepends=True)[0]
    with path.open("a") as file:
        for _ in range(300):
            file.write(line)
            file.flush()
            follower.look().look()
    assert sum(read) == path.stat().st_size


def test_a_line_without_an_end_is_kept_no_longer_than_it_is_looked_at(tmp_path):
    path = tmp_path / "server.log"
    path.write_bytes(b"[2026-11-23 21:16:19 PP1] Load weight begin " + b"x" * (3 << 20))
    follower = Follower(path).look()
    assert len(follower._line) == log_lines.LONGEST_LINE
    assert len(follower._recent) <= 100_000


LOADED_FIRST = LOADED.replace("PP3", "PP0")


@pytest.mark.parametrize(
    ("parts", "stage", "shown"),
    [
        ([START], "starting its ranks", "starting its ranks"),
        ([START, LOADED_FIRST, LOADING], "weights loaded", "loading weights"),
        (
            [START, LOADING, LOADED_FIRST, BAR.format(40, 12, 9)],
            "weights loaded",
            "loading weights",
        ),
        ([START, CAPTURED, CAPTURING], "graphs captured", "capturing graphs"),
        (
            [START, LOADED, "[2026-11-23 21:16:19 PP1] KV Cache is allocated.\n"],
            "weights loaded",
            "weights loaded",
        ),
    ],
)
def test_the_stage_shown_is_that_of_the_line_beside_it_where_a_rank_is_behind(
    tmp_path, parts, stage, shown
):
    path = tmp_path / "A_server.log"
    path.write_text("".join(parts))
    log = log_lines.ServerLogs(path).look()
    assert (log.stage, log.stage_of_latest) == (stage, shown)
