"""Why a server died, by its log: the first fatal message, never a remark that was survived."""

from __future__ import annotations

import functools
import re
from collections import Counter

import pytest
import server_logs
from server_logs import DeadServer

from repro_pp_graphs.run.launch import failure
from repro_pp_graphs.server.log import log_lines
from repro_pp_graphs.server.log.causes import RULES
from repro_pp_graphs.server.log.diagnosis import Diagnosis, diagnose, telling_lines

BY_CAUSE = [one for one in server_logs.ALL if not one.name.startswith(("reported", "outside"))]
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
# what the other ranks say when one has gone
LOST_PEERS = """\
[2026-11-20 09:02:39 PP{0}] Scheduler hit an exception: Traceback (most recent call last):
  File "/opt/x/sglang/srt/distributed/parallel_state.py", line 1438, in recv_object
    work.wait()
RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:598] Read error \
[127.0.0.1]:23151: Connection reset by peer
[rank{0}]:[W1120 09:02:39.078 TCPStore.cpp:125] [c10d] recvValue failed on SocketImpl(fd=52)
Exception raised from recvBytes at /pytorch/torch/csrc/distributed/c10d/Utils.hpp:682 (most recent \
call first):
frame #0: c10::Error::Error(c10::SourceLocation, std::__cxx11::basic_string<char>) + 0x9d
"""
SIGKILL, SIGSEGV = 128 + 9, 128 + 11


@functools.cache
def known(dead: DeadServer) -> Diagnosis:
    return diagnose(dead.text)


def of_kind(kind: str) -> list[DeadServer]:
    return [one for one in server_logs.ALL if one.name.startswith(kind)]


@pytest.mark.parametrize("dead", server_logs.ALL, ids=str)
def test_a_dead_server_is_told_by_its_cause_and_the_line_it_rests_on(dead: DeadServer):
    found = diagnose(dead.text)
    assert found.cause.startswith(dead.cause)
    if found.line is not None:
        shown = dead.text.split("\n")[found.line.number - 1]
        assert shown.endswith(found.line.text)


def test_every_cause_has_five_logs_and_every_rule_a_log():
    counts = Counter(one.cause for one in BY_CAUSE)
    assert {cause: count for cause, count in counts.items() if count < 5} == {}
    texts = [line.text for one in server_logs.ALL for line in log_lines.lines(one.text)]
    unseen = [rule.cause for rule in RULES if not any(map(rule.pattern.search, texts))]
    # the rest have tests of their own below
    assert set(unseen) <= {
        "a shim does not suit this release",
        "more PP ranks than the model has layers",
        "a node fell silent: its link is cut, or it is down",
        "triton attention of sglang up to 0.5.17 with more than two PP ranks",
    }


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.cause)
def test_every_remedy_is_one_sentence(rule):
    assert rule.remedy and not rule.remedy.endswith(".")
    assert ". " not in rule.remedy


@pytest.mark.parametrize("dead", BY_CAUSE, ids=str)
def test_an_error_that_its_process_survived_is_never_the_cause(dead: DeadServer):
    if "Load weight end" not in dead.text:
        return  # nothing to survive until
    begin, _, rest = dead.text.partition("\n")
    remarks = {
        # who reports an exit code reports a death
        re.sub("(?i)exit code", "code", found.line.text)
        for found in (known(other) for other in BY_CAUSE if other.cause != dead.cause)
        if found.line and not found.cause.startswith(("unknown", "hang"))
    }
    for rank in ("", " PP1"):
        early = "\n".join(f"[2026-11-20 09:00:02{rank}] remark: {text}" for text in remarks)
        assert diagnose(f"{begin}\n{early}\n{rest}").cause == diagnose(dead.text).cause


@pytest.mark.parametrize("dead", BY_CAUSE, ids=str)
def test_ranks_that_lost_their_peer_do_not_hide_the_cause(dead: DeadServer):
    lines = dead.text.split("\n")
    fatal = next((n for n, line in enumerate(lines) if "hit an exception" in line), None)
    if fatal is None or dead.cause == "unknown":
        return
    expected = diagnose(dead.text).cause
    for where in (fatal, len(lines)):
        peers = "".join(LOST_PEERS.format(rank) for rank in (0, 3)).rstrip().split("\n")
        text = "\n".join([*lines[:where], *peers, *lines[where:]])
        assert diagnose(text).cause == expected


@pytest.mark.parametrize("dead", server_logs.ALL, ids=str)
def test_a_log_that_lacks_lines_names_no_other_cause_but_a_weaker_one(dead: DeadServer):
    lines = dead.text.split("\n")
    own = re.split(" on PP| during graph", known(dead).cause)[0]
    weaker = {rule.cause for rule in RULES if rule.broad}
    # there the rest is an error in itself
    if "sgl-kernel" in dead.name:
        weaker.add("a package is missing or does not match")
    if "an ignored traceback" in dead.name:
        weaker.add("hub access denied")
    for number in range(max(1, len(lines) - 12), len(lines)):
        for text in (lines[:number], lines[:number] + lines[number + 1 :]):
            found = diagnose("\n".join(text))
            cause = re.split(" on PP| during graph", found.cause)[0]
            assert (
                cause in (own, *weaker)
                or not found.known
                or cause.startswith(("crashed", "killed", "hang: no forward step"))
            ), lines[number]


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory.", "RuntimeError: NCCL error: unhandled"),
        ("KeyError: 'model.layers.3.mlp'", "torch.OutOfMemoryError: CUDA out of memory."),
        (
            "OSError: [Errno 28] No space left on device",
            "RuntimeError: CUDA error: invalid device ordinal",
        ),
    ],
)
def test_of_two_ranks_that_fail_the_first_counts(first: str, then: str):
    def by(first: str, then: str) -> str:
        text = f"@loaded\n@sched PP2\n{first}\n@sched PP0\n{then}\n@sigquit\n"
        return diagnose(server_logs.whole(text)).cause

    assert by(first, then) == diagnose(server_logs.whole(f"@loaded\n@sched PP2\n{first}\n")).cause


def test_what_only_failed_gives_way_to_the_reason_that_another_rank_names():
    text = (
        "@start\n@sched PP0\nRuntimeError: NCCL error: unhandled cuda error\n"
        "@sched PP2\ntorch.OutOfMemoryError: CUDA out of memory.\n@sigquit\n"
    )
    found = diagnose(server_logs.whole(text))
    assert (found.cause, found.who) == ("out of GPU memory", "PP2")


def test_what_a_library_prints_is_no_reason_of_a_mistake_in_python():
    remark = "/tmp/x/main.c:5:10: fatal error: Python.h: No such file or directory"
    for exception, known in (("KeyError: 'rotary'", False), ("RuntimeError: launcher: 1", True)):
        text = f"@loaded\n{remark}\n@sched PP1\n{exception}\n@sigquit\n"
        assert diagnose(server_logs.whole(text)).known == known


def test_a_healthy_logs_remarks_are_no_cause():
    text = server_logs.whole(f"@start\n{server_logs.CPU_NOISE}@decoding\n")
    assert not diagnose(text).known
    assert telling_lines(text) == []
    assert not log_lines.is_dying(text)


def test_only_the_exit_status_tells_a_kill_that_the_log_does_not():
    text = server_logs.whole("@loading\n")
    assert not diagnose(text).known
    assert not diagnose(text, exit_status=1).known
    assert diagnose(text, SIGKILL).cause.startswith("killed (SIGKILL")
    assert "dmesg" in diagnose(text, SIGKILL).remedy
    assert diagnose(text, SIGSEGV).cause.startswith("crashed (SIGSEGV")
    assert diagnose(text, 128 + 15).cause.startswith("ended from outside (SIGTERM")


def test_a_main_process_that_ended_itself_was_not_killed_from_outside():
    # sglang kills its process tree and itself by SIGKILL when a rank asks for it
    text = server_logs.whole("@loading\n@sigquit\n")
    assert not diagnose(text, SIGKILL).known


@pytest.mark.parametrize("dead", BY_CAUSE, ids=str)
def test_an_exit_status_takes_nothing_from_what_the_log_tells(dead: DeadServer):
    if diagnose(dead.text).known:
        assert diagnose(dead.text, SIGKILL).cause == diagnose(dead.text).cause


def test_a_living_servers_log_names_only_what_ends_a_process():
    text = server_logs.whole("@start\nh:1:2 [0] NCCL WARN Cuda failure 'out of memory'\n")
    assert diagnose(text).known
    assert not diagnose(text, alive=True).known


def test_the_arguments_that_a_log_repeats_are_no_cause():
    args = server_logs.START.replace("'auto'", "'auto', note='CUDA out of memory, Not enough'")
    assert not diagnose(args).known


def test_an_abort_is_a_crash_but_no_segmentation_fault():
    cause = diagnose(ABORTED).cause
    assert cause.startswith("crashed") and "segmentation" not in cause
    segfault = ABORTED.replace("Python error: Aborted", "Python error: Segmentation fault")
    assert "segmentation" in diagnose(segfault).cause


@pytest.mark.parametrize(("number", "rank"), [(0, "PP0 TP0"), (1, "PP0 TP1"), (2, "PP1 TP0")])
def test_a_crashed_subprocess_is_named_by_its_rank(number: int, rank: str):
    # older releases name TP before PP
    names = ["PP1 TP1", "PP1 TP0", "PP0 TP1", "PP0 TP0"]
    ranks = "".join(f"[2026-11-20 09:00:20 {name}] Load weight begin.\n" for name in names)
    line = (
        f"[2026-11-20 09:04:40] Subprocess scheduler_{number} (pid=7) crashed with exit code -11."
    )
    assert diagnose(ranks + line).who == f"{rank} (scheduler_{number})"


def test_a_hang_names_the_ranks_whose_watchdog_fired():
    dead = next(one for one in of_kind("outside") if "sched_watchdog" in one.name)
    found = diagnose(dead.text)
    assert "300 s on PP0, PP1, PP2, PP3" in found.cause


def test_a_soft_watchdog_ends_nothing():
    text = server_logs.whole(
        "@decoding\n[2026-11-20 09:09:10 PP0] Scheduler watchdog timeout "
        "(self.watchdog_timeout=60, self.soft=True)\n"
    )
    assert not diagnose(text).known


@pytest.mark.parametrize(
    ("frame", "cause", "remedy"),
    [
        (
            "assert not pp_size or num_hidden_layers >= pp_size",
            "more PP ranks than the model has layers",
            "--pp-size",
        ),
        (
            "k = forward_batch.token_to_kv_pool.get_value_buffer(layer.layer_id)",
            "triton attention of sglang up to 0.5.17",
            "--attention-backend",
        ),
    ],
)
def test_some_causes_are_told_by_the_code_that_failed(frame: str, cause: str, remedy: str):
    text = server_logs.whole(
        f'@start\n@sched PP7\n  File "x.py", line 1, in f\n    {frame}\nIndexError'
    )
    assert diagnose(text).cause.startswith(cause)
    assert remedy in diagnose(text).remedy


def test_a_shim_that_refuses_a_release_is_the_cause():
    text = f"{server_logs.START}\nshim sync_send: no send to wait for; leave the case out\n"
    assert diagnose(text).cause == "a shim does not suit this release"


def test_line_numbers_count_as_an_editor_does_also_after_progress_bars():
    bar = "\r".join(f"Loading safetensors checkpoint shards:  {n}% Completed" for n in range(9))
    text = server_logs.whole(f"@start\n{bar}\n@sched PP1\nMemoryError\n")
    line = diagnose(text).line
    assert line is not None
    assert text.split("\n")[line.number - 1] == "MemoryError"


def test_telling_lines_name_the_errors_not_what_the_watchdogs_add():
    told = "\n".join(line.text for line in telling_lines(ABORTED))
    assert "Fatal Python error: Aborted" in told
    assert "Connection closed by peer" in told


def test_telling_lines_are_the_last_few_distinct_ones_in_order():
    errors = [f"ValueError: number {number}" for number in range(6)]
    text = "\n".join(f"[2026-11-23 19:40:33 PP0] {error}\n{error}" for error in errors)
    assert [line.text for line in telling_lines(text)] == errors[-4:]
    assert [line.text for line in telling_lines(text, most=2)] == errors[-2:]


def told(text: str, tmp_path) -> str:
    path = tmp_path / "A_server.log"
    path.write_text(text)
    return "\n".join(failure.lines(*failure.of_dead(path)))


def test_a_failure_is_told_with_cause_evidence_remedy_and_the_logs_name(tmp_path):
    text = server_logs.whole(
        "@loaded\n@sched PP1\ntorch.OutOfMemoryError: CUDA out of memory. Tried " + "x " * 500
    )
    lines = told(text, tmp_path).split("\n")
    assert lines[0] == "    cause: out of GPU memory"
    assert lines[1].startswith(
        "    by:    PP1, line 13: torch.OutOfMemoryError: CUDA out of memory"
    )
    (at,) = (number for number, line in enumerate(lines) if line.startswith("    try:"))
    assert "lower --mem-fraction-static" in lines[at]
    assert lines[at + 1 :].count(f"    log:   {tmp_path / 'A_server.log'}") <= 1
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 80


def test_a_quoted_line_is_not_cut_before_the_address_it_names(tmp_path):
    dead = next(one for one in server_logs.ALL if one.name == "package: flashinfer missing")
    assert "https://docs.flashinfer.ai/installation.html" in told(dead.text, tmp_path)


def test_an_unknown_death_is_told_with_its_own_words(tmp_path):
    for dead in (one for one in server_logs.ALL if one.cause == "unknown"):
        found = diagnose(dead.text)
        if found.line is not None:
            words = found.line.text.split()[:3]
            assert " ".join(words) in " ".join(told(dead.text, tmp_path).split()), dead.name


def test_a_hang_is_told_with_what_each_rank_said_last(tmp_path):
    dead = next(one for one in of_kind("outside") if "sched_watchdog" in one.name)
    lines = told(dead.text, tmp_path).split("\n")
    ranks = [line.split()[0] for line in lines if "Decode batch" in line]
    assert ranks == ["PP0", "PP1", "PP2", "PP3"]  # longest silent first
    assert "09:03:24" in next(line for line in lines if "PP0 " in line and "Decode" in line)


SILENT = "run_repro.sh: node 1 (node1) has not answered for 60 s"


def test_a_silent_node_is_the_cause_of_the_peers_that_it_lost():
    found = diagnose(server_logs.whole("@loaded\n") + LOST_PEERS.format(0) + SILENT + "\n")
    assert found.cause == "a node fell silent: its link is cut, or it is down"
    assert found.line and found.line.text == SILENT


def test_of_several_nodes_logs_that_of_the_process_that_ended_first_counts(tmp_path):
    first = "run_repro.sh: the server on node 1 (node1) ended first, exit 137\n"
    head = tmp_path / "A_server.log"
    head.write_text(server_logs.whole("@loaded\n") + LOST_PEERS.format(0) + first)
    (tmp_path / "A_server_node1.log").write_text(server_logs.whole("@loaded\n"))
    (tmp_path / "A_server_node2.log").write_text(
        server_logs.whole("@loaded\n") + LOST_PEERS.format(2)
    )
    (tmp_path / "exit").write_text("137\n")
    found, path = failure.of_dead(head, tmp_path / "exit")
    assert (found.cause, path.name) == ("killed (SIGKILL, killed)", "A_server_node1.log")
