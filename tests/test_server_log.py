"""Server logs, as sglang 0.5.2 to 0.5.23 write them: stage, decode lines, cause of death."""

from __future__ import annotations

import pytest

from repro_pp_graphs.run.wait_ready import diagnose, failure_lines
from repro_pp_graphs.server import log
from repro_pp_graphs.server.log import DecodeLine

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
# what a healthy CPU server of 0.5.21 says in passing
CPU_NOISE = """\
[2026-11-23 21:26:00 PP1] The total number of ranks (2) is larger than numa node number (1), in \
this case the available memory amount of each rank cannot be determined in prior. Please set \
proper `--max-total-tokens` to avoid the out-of-memory error.
[2026-11-23 21:26:02 PP0] Ignore import error when loading sglang.srt.models.bailing_moe_linear: \
No module named 'vllm'
[2026-11-23 21:26:04] OpenAI Responses API (/v1/responses) disabled: OpenAIServingResponses init \
failed (ModuleNotFoundError: No module named 'openai_harmony')
"""
# 0.5.16: rank 1 aborted; gloo, the store's watchdog and the crash diagnostics follow
ABORTED = """\
free(): invalid next size (fast)
Fatal Python error: Aborted

Thread 0x00007f7b13fff6c0 (most recent call first):
  File "site-packages/sglang/srt/utils/watchdog.py", line 147 in _watchdog_once
[2026-11-23 19:40:36 PP3] Scheduler hit an exception: Traceback (most recent call last):
  File "site-packages/sglang/srt/distributed/parallel_state.py", line 1438, in recv_object
    work.wait()
RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer \
[127.0.0.1]:60041

[rank3]:[W1123 19:40:36.078804148 TCPStore.cpp:125] [c10d] recvValue failed on SocketImpl(fd=52)
Exception raised from recvBytes at /pytorch/torch/csrc/distributed/c10d/Utils.hpp:682 (most recent \
call first):
frame #0: c10::Error::Error(c10::SourceLocation, std::__cxx11::basic_string<char>) + 0x9d
frame #3: c10d::ProcessGroupNCCL::HeartbeatMonitor::runLoop() + 0x4a5
[rank3]:[W1123 19:40:36.081963286 ProcessGroupNCCL.cpp:1826] [PG ID 0 PG GUID 0 Rank 3] Failed to \
check the "should dump" flag on TCPStore, (maybe TCPStore server has shut down too early), with \
error: Failed to recv, got 0 bytes.
Exception raised from sendBytes at /pytorch/torch/csrc/distributed/c10d/Utils.hpp:653 (most recent \
call first):
[rank3]:[W1123 19:40:37.085282352 ProcessGroupNCCL.cpp:1826] [PG ID 0 PG GUID 0 Rank 3] Failed to \
check the "should dump" flag on TCPStore, (maybe TCPStore server has shut down too early), with \
error: Broken pipe
[2026-11-23 19:40:38] Pyspy failed (py-spy dump --native --pid 539). Error: /bin/sh: 1: py-spy: \
not found
[2026-11-23 19:41:38] kill_process_tree called: parent_pid=409, include_parent=True, pid=409
"""


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
    assert log.stage("".join(parts)) == stage


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
    assert log.stage(f"{LOADING}{LOADED}[2026-11-23 21:16:19 PP1] {line}\n").startswith(stage)


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
    assert log.decode_lines(f"{FIRED_UP}{line}\n{line}\n") == [expected, expected]


def test_a_prefill_line_is_no_decode_line():
    line = (
        "[2026-11-23 21:17:16 PP0] Prefill batch, #new-seq: 1, #new-token: 64, #cached-token: 0, "
        "token usage: 0.00, #running-req: 0, #queue-req: 0, cuda graph: True, "
        "input throughput (token/s): 0.75\n"
    )
    assert log.decode_lines(line) == []


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("launch_server.py: error: unrecognized arguments: --no-such 1", "unknown argument"),
        ("launch_server.py: error: argument --port: invalid int value: 'x'", "unknown argument"),
        (
            "ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', 30000): "
            "address already in use",
            "port in use",
        ),
        ("RuntimeError: server port at 30000 is not available in 5 seconds.", "port in use"),
        (
            "OSError: You are trying to access a gated repo.\nMake sure to have access to it at "
            "https://hf.co/m\n401 Client Error. (Request ID: Root=1)",
            "hub access denied",
        ),
        (
            "OSError: We couldn't connect to 'https://hf.co' to load the files, and couldn't find "
            "them in the cached files.",
            "model not reachable",
        ),
        (
            "Exception: Capture cuda graph failed: CUDA out of memory. Tried to allocate 2.00 GiB. "
            "GPU 0 has a total capacity of 79.11 GiB\nPossible solutions:\n1. set "
            "--mem-fraction-static to a smaller value (e.g., 0.8 or 0.7)\n",
            "out of GPU memory during graph capture",
        ),
        (
            "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static. "
            "Current value: mem_fraction_static=0.2",
            "no GPU memory left for the KV cache",
        ),
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 448.00 MiB. GPU 0 has a "
            "total capacity of 139.81 GiB of which 12.00 MiB is free.",
            "out of GPU memory",
        ),
        (
            "torch.AcceleratorError: CUDA error: invalid device ordinal\nCUDA kernel errors might "
            "be asynchronously reported at some other API call",
            "too few GPUs",
        ),
        (
            "Exception: Capture cuda graph failed: unsupported head size\nPossible solutions:\n"
            "1. set --mem-fraction-static to a smaller value\n2. set --cuda-graph-max-bs-decode "
            "to a smaller value (e.g., 16)\n",
            "unsupported graph size",
        ),
        ("ImportError: libcudart.so.12: cannot open shared object file", "a package is missing"),
        (
            "torch.distributed.DistBackendError: NCCL error in: NCCLUtils.cpp:94, unhandled system "
            "error\nncclSystemError: System call failed",
            "NCCL failed",
        ),
    ],
    ids=lambda value: value[:30],
)
def test_a_death_is_named_by_its_cause_whatever_else_the_log_says(line, cause):
    text = f"{START}{CPU_NOISE}{LOADING}{line}\n"
    assert log.diagnose(text).cause.startswith(cause)


def test_a_healthy_logs_remarks_are_no_cause():
    text = START + CPU_NOISE + LOADING + LOADED + UVICORN + FIRED_UP
    assert log.diagnose(text).cause.startswith("killed without a word")
    assert log.telling_lines(text) == []
    assert not log.is_dying(text)


def test_a_killed_server_is_not_blamed_on_a_remark():
    assert log.diagnose(START + CPU_NOISE + LOADING).cause.startswith("killed")


def test_a_rank_killed_while_loading_is_named_as_killed():
    # 0.5.16 and newer; the main process then exits 1
    text = (
        f"{START}{LOADING}RuntimeError: Rank 1 scheduler died during initialization (exit code: "
        "-9). If exit code is -9 (SIGKILL), a common cause is the OS OOM killer. Run `dmesg -T | "
        "grep -i oom` to check.\n"
    )
    assert log.is_dying(text)
    assert log.diagnose(text).cause.startswith("killed")


def test_the_arguments_that_a_log_repeats_are_no_cause():
    args = START.replace("'auto'", "'auto', note='CUDA out of memory, Not enough memory'")
    assert log.diagnose(args).cause == "unknown"


def test_an_abort_is_a_crash_but_no_segmentation_fault():
    cause = log.diagnose(ABORTED).cause
    assert cause.startswith("crashed") and "segmentation" not in cause
    segfault = ABORTED.replace("Python error: Aborted", "Python error: Segmentation fault")
    assert "segmentation" in log.diagnose(segfault).cause


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
    assert log.is_dying(f"{START}[2026-11-23 19:40:33 PP0] {line}\n")


def test_telling_lines_name_the_errors_not_what_the_watchdogs_add():
    told = "\n".join(log.telling_lines(ABORTED))
    assert "Fatal Python error: Aborted" in told
    assert "Connection closed by peer" in told


def test_telling_lines_are_the_last_few_distinct_ones_in_order():
    errors = [f"ValueError: number {number}" for number in range(6)]
    text = "\n".join(f"[2026-11-23 19:40:33 PP0] {error}\n{error}" for error in errors)
    assert log.telling_lines(text) == errors[-4:]
    assert log.telling_lines(text, most=2) == errors[-2:]


def test_a_failure_is_told_with_cause_remedy_and_the_logs_name(tmp_path):
    path = tmp_path / "A_server.log"
    text = START + "torch.OutOfMemoryError: CUDA out of memory. " + "x" * 500 + "\n"
    path.write_text(text)
    lines = failure_lines(diagnose(text), path)
    assert lines[0].strip() == "cause: out of GPU memory"
    assert lines[1].strip().startswith("try:   lower --mem-fraction-static")
    (at,) = (number for number, line in enumerate(lines) if str(path) in line)
    assert lines[at + 1].strip().startswith("| torch.OutOfMemoryError")
    assert max(len(line) for line in lines if "xxx" not in line and str(path) not in line) <= 80


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
    assert log.latest(text).startswith(said)
    assert bool(log.latest(text)) == bool(said)


def test_more_ranks_than_layers_are_told_by_the_assertion_that_every_release_has():
    text = """\
[2026-11-24 01:46:36 PP7] Scheduler hit an exception: Traceback (most recent call last):
  File "sglang/srt/utils/common.py", line 1516, in make_layers
    assert not pp_size or num_hidden_layers >= pp_size
AssertionError
"""
    assert log.diagnose(text).cause == "more PP ranks than the model has layers"
    assert "--pp-size" in log.diagnose(text).remedy
