"""The merged trace: valid, a process group a rank, ids apart, arrows that hold."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from signal import SIGKILL

import pytest

pytest.importorskip("msgspec")

from merged_traces import (
    DATA,
    crossings,
    faults,
    in_order,
    merged,
    merged_real,
    processes,
    thread_names,
)
from trace_maker import TraceMaker, of_two_base_times, ring

from repro_pp_graphs.traces.commands.analyze import main as analyze
from repro_pp_graphs.traces.commands.merge import main as merge
from repro_pp_graphs.traces.read.cases import trace_files


@pytest.mark.slow
@pytest.mark.parametrize(
    "paths",
    [
        *(["h200_case_A"], ["h200_case_B"], ["h200_case_A", "h200_case_B"]),
        ["sglang0516_batched_p2p"],
    ],
)
def test_the_merged_trace_obeys_the_trace_event_format(paths):
    document = merged_real(*paths)
    assert faults(document) == []
    assert crossings(document, "pipeline") == 0


def test_every_track_tells_its_rank_and_where_it_can_be_told_what_runs_there():
    document = merged_real("h200_case_A")
    names, groups = thread_names(document), processes(document)
    used = {(e["pid"], e["tid"]) for e in document["traceEvents"] if e["ph"] == "X"}
    assert all(names[tid].split(" · ")[0] == groups[pid].split(" · ")[0] for pid, tid in used)
    assert len(set(names.values())) == len(names)
    assert {
        "PP3 · main thread",
        "PP3 · stream 45 from PP2",
        "PP3 · stream 49 to PP0",
        "PP3 · stream 21",
        "PP3 · gloo recvs",
    } <= set(names.values())


def test_threads_that_the_file_does_not_name_are_named_by_what_runs_there(tmp_path):
    maker = ring(2)[0]
    maker.add("cuda_runtime", "cudaEventQuery", 10, 1, tid=77)
    maker.add("cuda_runtime", "cudaMemcpyAsync", 10, 1, tid=78)
    maker.write(tmp_path)
    names = set(thread_names(merged(tmp_path / "out.json", tmp_path)).values())
    assert {"PP0 · NCCL watchdog (polls events)", "PP0 · thread 78 (cudaMemcpyAsync, ...)"} <= names


def test_a_stream_with_both_ways_to_a_peer_has_a_name_that_is_not_cut():
    """The viewer shows some 27 characters of a name and cuts the middle of a longer one."""
    document = merged_real("sglang0516_graphs_on")
    found = re.findall(
        r"PP\d · stream \d+ (\w+ PP\d.*)", "\n".join(thread_names(document).values())
    )
    assert set(found) == {"with PP0", "with PP1"}


def test_moments_that_a_file_marks_for_the_whole_trace_stand_on_a_track_of_the_rank(tmp_path):
    maker = ring(2)[0]
    mark = {"ph": "i", "cat": "", "name": "Record Window End", "pid": "", "tid": "", "ts": 9}
    maker.events += [{**mark, "s": "g"}, {**mark, "s": "p"}, mark]
    maker.write(tmp_path)
    document = merged(tmp_path / "out.json", tmp_path)
    marks = [event for event in document["traceEvents"] if event["ph"] == "i"]
    assert [event.get("s") for event in marks] == ["t", "p", None]
    assert {processes(document)[event["pid"]] for event in marks} == {"PP0 · profiler"}


def test_wait_slices_tell_the_peer_the_times_and_how_long_a_message_lay_there(tmp_path):
    first, second = TraceMaker(0, 2), TraceMaker(1, 2)
    for n in range(4):
        first.p2p("send", 1, 10_000 * n, 10, elements=5)
        second.p2p("recv", 0, 10_000 * n + 3_210, 20, elements=5)
        second.p2p("send", 0, 10_000 * n + 4_000, 700, elements=7)
        first.p2p("recv", 1, 10_000 * n + 4_600, 100, elements=7)
    for maker in (first, second):
        maker.write(tmp_path)
    document = merged(tmp_path / "out.json", tmp_path)
    tracks = thread_names(document)
    found = {
        (tracks[e["tid"]], e["name"]): (round(e["dur"]), e["args"])
        for e in document["traceEvents"]
        if e.get("cat") == "pipeline" and tracks[e["tid"]].endswith("(NCCL)")
    }
    assert {key: dur for key, (dur, _) in found.items()} == {
        ("PP0 · to PP1 (NCCL)", "buffered 3.2 ms until recv starts"): 10,
        ("PP1 · from PP0 (NCCL)", "transfer"): 20,
        ("PP1 · to PP0 (NCCL)", "wait for recv"): 600,
        ("PP1 · to PP0 (NCCL)", "transfer"): 100,
        ("PP0 · from PP1 (NCCL)", "transfer"): 100,
    }
    about = found["PP1 · to PP0 (NCCL)", "wait for recv"][1]
    assert about == {
        "from": "PP1",
        "to": "PP0",
        "elements": 7,
        "dtype": "Long",
        "send_wait_us": 600,
        "recv_wait_us": 0,
        "transfer_us": 100,
        "buffered_us": 0,
    }


@pytest.mark.parametrize("case", ["A", "B"])
def test_no_slice_crosses_another_of_its_thread_so_perfetto_drops_none(case):
    document = merged_real(f"h200_case_{case}")
    for category in ("kernel", "gpu_memcpy", "user_annotation", "pipeline"):
        assert crossings(document, category) == 0
    names = thread_names(document)
    gloo = {
        (e["name"], names[e["tid"]].split(" · ")[1][:10])
        for e in document["traceEvents"]
        if e["name"].startswith("gloo:") and e["cat"] == "user_annotation"
    }
    assert gloo == {("gloo:send", "gloo sends"), ("gloo:recv", "gloo recvs")}


@pytest.mark.parametrize("category", ["kernel", "overhead"])
def test_work_that_overlaps_on_a_stream_is_shown_side_by_side(tmp_path, category):
    maker = ring(2)[0]
    for n in range(4):
        maker.add(category, "early", 90_000 + 10 * n, 15, tid=0 if category == "overhead" else 21)
    for event in maker.events[-4:]:
        event["pid"] = -1 if category == "overhead" else 0
    maker.write(tmp_path)
    document = merged(tmp_path / "out.json", tmp_path)
    tids = [e["tid"] for e in document["traceEvents"] if e["name"] == "early"]
    assert tids[0] == tids[2] != tids[1] == tids[3]
    assert crossings(document, category) == 0


def test_the_validator_finds_what_it_looks_for():
    event = {"ph": "X", "name": "a", "pid": 1, "tid": 1, "ts": 1.0, "dur": 1.0}
    flow = {"cat": "p2p", "name": "a", "id": 1, "pid": 1, "tid": 1}
    bad = [
        {**event, "dur": -1},
        {**event, "pid": "Spans"},
        {**event, "ts": None},
        {**event, "ph": "?"},
        {**flow, "ph": "s", "ts": 5.0},
        {**flow, "ph": "s", "ts": 5.0},
        {**flow, "ph": "f", "ts": 4.0},
    ]
    assert len(faults({"traceEvents": bad})) == 6
    crossing = [{**event, "cat": "pipeline"}, {**event, "cat": "pipeline", "ts": 1.5}]
    assert crossings({"traceEvents": crossing}, "pipeline") == 1


def test_process_groups_stand_in_rank_order_with_names_of_rank_and_kind():
    names = in_order(merged_real("h200_case_A"))
    assert names == [
        f"PP{rank} · {kind}" for rank in range(4) for kind in ("pipeline", "CPU", "GPU", "profiler")
    ]


def test_ids_that_ranks_share_in_their_files_are_apart_in_the_merged_trace(tmp_path):
    for maker in ring(3):
        maker.pid = 500
        maker.arrow(7, 1.0, 2.0)
        for event in maker.events:
            event["pid"] = 500 if event["pid"] else 0
        maker.write(tmp_path)
    document = merged(tmp_path / "out.json", tmp_path)
    own = [e for e in document["traceEvents"] if e.get("cat") not in ("pipeline", "p2p")]
    assert faults(document) == []
    assert len({e["id"] for e in own if e["ph"] == "s"}) == 3
    kernels = [e for e in own if e.get("cat") == "kernel"]
    ranks_of = defaultdict(set)
    for event in kernels:
        ranks_of[event["args"]["correlation"]].add(event["pid"])
        ranks_of["tid", event["tid"]].add(event["pid"])
        ranks_of["ext", event["args"]["External id"]].add(event["pid"])
    assert all(len(pids) == 1 for pids in ranks_of.values())
    flows = {(e["id"], e["ph"]) for e in own if e["ph"] in "sf"}
    assert len(flows) == 6


def test_ids_are_apart_also_where_a_rank_s_events_have_to_be_mended(tmp_path):
    for maker in ring(2):
        text = maker.text().replace('"External id": ', '"bandwidth": inf, "External id": ')
        (tmp_path / f"CASE-TP-0-PP-{maker.rank}.trace.json").write_text(text)
    document = merged(tmp_path / "out.json", tmp_path)
    ids = [
        {
            event["args"]["correlation"]
            for event in document["traceEvents"]
            if event["pid"] // 10 == rank and "correlation" in event.get("args", {})
        }
        for rank in (1, 2)
    ]
    assert all(ids)
    assert not ids[0] & ids[1]


def test_every_event_of_every_rank_is_there_unchanged_but_for_its_ids(tmp_path):
    makers = ring(2)
    for maker in makers:
        maker.write(tmp_path)
    document = merged(tmp_path / "out.json", tmp_path)
    key = lambda e: (e["cat"], e["name"], e["ts"], e["dur"])  # noqa: E731
    ours = Counter(key(e) for maker in makers for e in maker.events)
    theirs = Counter(
        key(e) for e in document["traceEvents"] if e["ph"] == "X" and e["cat"] != "pipeline"
    )
    assert ours == theirs


@pytest.mark.slow
def test_an_arrow_leads_from_inside_every_paired_send_to_inside_its_recv():
    document = merged_real("h200_case_B")
    slices = defaultdict(list)
    for event in document["traceEvents"]:
        if event["ph"] == "X":
            slices[event["pid"], event["tid"]].append(event)
    arrows = [e for e in document["traceEvents"] if e.get("cat") == "p2p"]
    pairs = {"nccl send to recv": 3 * 71 + 22, "gloo send to recv": 420}
    assert Counter((e["name"], e["ph"]) for e in arrows if e["ph"] != "t") == {
        (name, ph): count for name, count in pairs.items() for ph in "sf"
    }
    ends = {
        ("nccl send to recv", "s"): "send",
        ("nccl send to recv", "t"): "transfer",
        ("nccl send to recv", "f"): "recv",
        ("gloo send to recv", "s"): "c10d::send",
        ("gloo send to recv", "t"): "transfer",
        ("gloo send to recv", "f"): "gloo:recv",
    }
    begins = defaultdict(list)
    for arrow in arrows:
        around = {
            e["args"].get("Collective name", e["name"]): e["ts"]
            for e in slices[arrow["pid"], arrow["tid"]]
            if e["ts"] <= arrow["ts"] + 0.0005 and arrow["ts"] <= e["ts"] + e["dur"] + 0.0005
        }
        assert ends[arrow["name"], arrow["ph"]] in around
        begins[arrow["id"]].append(around[ends[arrow["name"], arrow["ph"]]])
    # Perfetto draws an arrow from the slice that begins first
    assert all(left <= reached for left, reached, *_ in begins.values())
    assert {len(stops) for stops in begins.values()} == {2, 3}


def test_decode_steps_waits_and_bubbles_have_tracks_and_cudagraph_is_found():
    document = merged_real("h200_case_A")
    added = [e for e in document["traceEvents"] if e.get("cat") == "pipeline"]
    assert Counter(e["name"] for e in added)["step[DECODE bs=11]"] == 4 * 8
    launches = [
        e for e in document["traceEvents"] if "cudagraph" in e["name"].lower() and e["ph"] == "X"
    ]
    assert sum(e["name"] == "cudaGraphLaunch" for e in launches) == 4 * 24
    assert sum(e["name"] == "cudagraph" for e in launches) == 4 * 24
    bubbles = [e for e in document["traceEvents"] if e["ph"] == "C"]
    assert len({e["pid"] for e in bubbles}) == 4
    assert all(-0.1 <= e["args"]["%"] <= 100 for e in bubbles)
    last = {e["pid"]: (e["ts"], e["args"]["%"]) for e in bubbles}
    assert {share for _, share in last.values()} == {0}


def test_ranks_of_different_base_times_are_put_on_one_clock(tmp_path):
    first, second = of_two_base_times()
    for maker in (first, second):
        maker.write(tmp_path)
    document = merged(tmp_path / "out.json", tmp_path)
    assert document["baseTimeNanoseconds"] == second.base_ns
    names = processes(document)
    steps = {
        names[e["pid"]]: e["ts"]
        for e in reversed(document["traceEvents"])
        if e["name"] == "run_batch"
    }
    assert steps["PP0 · CPU"] == 7_000_000 - 60
    assert steps["PP1 · CPU"] == 7_000_000 + 1000 + 100 - 60


def test_two_cases_are_shown_in_one_view_with_their_decode_starts_aligned(tmp_path):
    a, b = tmp_path / "graphs_on", tmp_path / "graphs_off"
    for folder, late in ((a, 0), (b, 3_600_000_000_000)):
        folder.mkdir()
        for maker in ring(2):
            maker.base_ns += late
            maker.write(folder)
    document = merged(tmp_path / "A_vs_B_chrome_trace.json.gz", a, b)
    assert faults(document) == []
    names = processes(document)
    steps = defaultdict(list)
    for event in document["traceEvents"]:
        if event["name"].startswith("step[DECODE") and event["cat"] == "user_annotation":
            steps[names[event["pid"]]].append(event["ts"])
    assert sorted(steps) == [
        f"{case} · PP{rank} · CPU ({name})"
        for case, name in (("A", "graphs_on"), ("B", "graphs_off"))
        for rank in (0, 1)
    ]
    assert steps["A · PP0 · CPU (graphs_on)"] == steps["B · PP0 · CPU (graphs_off)"]


def test_a_damaged_rank_leaves_a_valid_trace_of_the_others(tmp_path, capsys):
    for maker in ring(2):
        maker.write(tmp_path)
    broken = tmp_path / "CASE-TP-0-PP-1.trace.json.gz"
    broken.write_bytes(broken.read_bytes()[:200])
    document = merged(tmp_path / "out" / "merged.json", tmp_path)
    assert faults(document) == []
    assert "PP0 · CPU" in processes(document).values()
    assert broken.name in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["merged.json"]


def test_several_processes_write_what_one_writes(tmp_path, monkeypatch):
    written = []
    for number in (1, 3):
        monkeypatch.setattr(
            "repro_pp_graphs.traces.merge.chrome_trace.workers_for", lambda paths, n=number: n
        )
        out = tmp_path / f"{number}.json"
        assert merge([str(DATA / "sglang052_pp4"), "-o", str(out)]) == 0
        written.append(out.read_bytes())
    assert written[0] == written[1]


def test_a_writing_process_that_is_killed_is_told_in_a_line(tmp_path, capsys, monkeypatch):
    for maker in ring():
        maker.write(tmp_path)
    monkeypatch.setattr("repro_pp_graphs.traces.merge.chrome_trace.workers_for", lambda paths: 2)
    monkeypatch.setattr(
        "repro_pp_graphs.traces.merge.chrome_trace.Numbering",
        lambda *names: os.kill(os.getpid(), SIGKILL),
    )
    assert merge([str(tmp_path), "-o", str(tmp_path / "out" / "merged.json")]) == 1
    assert "has been killed" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def test_merging_nothing_fails_and_writes_nothing(tmp_path, capsys):
    (tmp_path / "a.trace.json").write_text("{}")
    assert merge([str(tmp_path), "-o", str(tmp_path / "out.json")]) == 1
    assert not (tmp_path / "out.json").exists()
    assert merge([str(tmp_path / "nowhere"), "-o", str(tmp_path / "out.json")]) == 2
    assert "no such file" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".json", ".json.gz"])
def test_a_trace_of_all_ranks_is_not_read_as_one_of_a_rank(tmp_path, capsys, suffix):
    alone, ranks = tmp_path / "alone", tmp_path / "ranks"
    for folder in (alone, ranks):
        folder.mkdir()
    for maker in ring(2):
        maker.write(ranks)
    whole = alone / f"whole_trace{suffix}"
    assert merge([str(ranks), "-o", str(whole)]) == 0
    capsys.readouterr()
    for path in (whole, alone):
        assert analyze([str(path)]) == 1
        said = capsys.readouterr()
        assert whole.name in said.err and "all ranks in one" in said.err and not said.out
    assert len(trace_files([ranks])) == 2
    assert trace_files([ranks, alone, whole]) == trace_files([ranks])
