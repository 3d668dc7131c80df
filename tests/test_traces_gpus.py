"""Ranks that share a GPU: how that is known, and that idle time is then the GPU's, not a rank's."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("msgspec")

import msgspec
from trace_changes import only_case, whole

from repro_pp_graphs.report.summary import from_traces
from repro_pp_graphs.stats.metric_names import IDLE, OUTSIDE, RETURN
from repro_pp_graphs.traces.analysis_record import Analysis, document
from repro_pp_graphs.traces.explain import side_by_side
from repro_pp_graphs.traces.explain.analysis import hosts_of
from repro_pp_graphs.traces.explain.analysis_lines import lines
from repro_pp_graphs.traces.explain.gpus import RECORDED, SLOWED, slower
from repro_pp_graphs.traces.merge.chrome_trace import merge
from repro_pp_graphs.traces.merge.pipeline_tracks import Additions
from repro_pp_graphs.traces.pair.host_clocks import aligned_edges
from repro_pp_graphs.traces.path.whole_analysis import explained

pytestmark = pytest.mark.slow

DATA = Path(__file__).parent / "data" / "traces"
MPS, ONE_GPU, A_GPU_EACH = "sglang052_pp4", "h200_case_A", "sglang0516_graphs_on"


def text_of(facts: Analysis) -> str:
    return " ".join(" ".join(lines(facts)).split())


def in_a_run(tmp_path: Path, name: str, **run: object) -> Path:
    """The folder of a case's traces in a run's folder, whose record says so much."""
    traces = tmp_path / "trace" / "CASE_A"
    shutil.copytree(DATA / name, traces)
    launch = {"label": "CASE_A", "pp_size": 4, "tp_size": 1, "env": run.pop("env", {})}
    launch |= {"attached": run.pop("attached", False)}
    (tmp_path / "logs").mkdir()
    record = json.dumps({**run, "launches": [launch]})
    (tmp_path / "logs" / "run.json").write_text(record)
    return traces


def test_kernels_that_take_longer_beside_another_ranks_show_that_they_share_a_gpu():
    facts = whole(MPS)
    assert [(gpu.ranks, gpu.shared) for gpu in facts.shared_gpus] == [
        (["0", "2"], True),
        (["1", "3"], True),
    ]
    assert "PP1 and PP3 share a GPU: a decode graph's kernels take" in text_of(facts)


def test_on_a_gpu_each_no_kernel_takes_longer_beside_anothers():
    case = only_case(DATA / A_GPU_EACH)
    first, second = (host.work for host in hosts_of(case, aligned_edges(case)))
    assert max(slower(first, second), slower(second, first)) < (1 + SLOWED) / 2


def test_processes_that_see_one_gpu_each_are_not_taken_to_share_one(tmp_path):
    """CUDA_VISIBLE_DEVICES: every rank's GPU is its number 0. Nothing tells, so nothing is said."""
    for path in (DATA / A_GPU_EACH).glob("*.gz"):
        found = msgspec.json.decode(gzip.decompress(path.read_bytes()))
        for event in found["traceEvents"]:
            if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset"):
                event["pid"] = event["args"]["device"] = 0
        (tmp_path / path.name.removesuffix(".gz")).write_text(json.dumps(found))
    facts = explained(only_case(tmp_path))
    assert [gpu.shared for gpu in facts.shared_gpus] == [None]
    assert "Cannot tell whether PP0 and PP1 share a GPU" in text_of(facts)


def test_idle_is_a_shared_gpu_while_no_rank_on_it_computes():
    """Held against the raw events: the kernels of PP1 and PP3 together, in PP3's token sends."""
    facts = whole(MPS)
    returned = facts.token_return
    assert returned
    assert returned.host_us
    own, of_all = returned.host_us.idle, returned.host_us.idle_of_all
    assert of_all
    assert of_all.mean < 0.1 * own.mean  # PP1 computes nearly all the while
    gpu = facts.shared_gpus[1]
    begin, over = window_of(facts, DATA / MPS)
    marks = sorted(
        mark
        for rank in (1, 3)
        for start, end in kernels(DATA / MPS, rank)
        if end > begin and start < over
        for mark in ((max(start, begin), 1), (min(end, over), -1))
    )
    busy, running, since = 0.0, 0, 0.0
    for moment, change in marks:
        busy += moment - since if running else 0
        running, since = running + change, moment
    assert gpu.busy_fraction == pytest.approx(busy / (over - begin), abs=2e-3)
    assert facts.ring.bubble_fraction == pytest.approx(
        1 - sum(each.busy_fraction or 0 for each in facts.shared_gpus) / 2, abs=1e-3
    )


def kernels(folder: Path, rank: int, *, p2p: bool = False) -> list[tuple[float, float]]:
    """A rank's kernels, copies and sets, us; `p2p`: with NCCL's."""
    (path,) = folder.glob(f"*PP-{rank}.*")
    found = msgspec.json.decode(gzip.decompress(path.read_bytes()))
    return [
        (base + float(event["ts"]), base + float(event["ts"]) + float(event["dur"]))
        for base in [found["baseTimeNanoseconds"] / 1000]
        for event in found["traceEvents"]
        if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")
        and (p2p or "SendRecv" not in event["name"])
    ]


def window_of(facts: Analysis, folder: Path) -> tuple[float, float]:
    """When every rank was recorded: from its first GPU work to its last, us."""
    every = [kernels(folder, rank, p2p=True) for rank in range(facts.pp_size)]
    begin, over = (
        max(min(start for start, _ in each) for each in every),
        min(max(end for _, end in each) for each in every),
    )
    assert over - begin == pytest.approx(facts.window_us, abs=1)
    return begin, over


def test_where_it_cannot_be_told_no_figure_is_called_idle_or_bubble():
    facts = whole(ONE_GPU)
    (gpu,) = facts.shared_gpus
    assert (gpu.ranks, gpu.shared) == (["0", "1", "2", "3"], None)
    assert facts.ring.bubble_fraction is None
    text = text_of(facts)
    assert "bubble: cannot tell" in text
    for word in ("computes nothing", "without compute", "could keep every stage busy", "no loss"):
        assert word not in text
    assert not side_by_side.lines([facts])[1].split()[-1].count(".")  # `-`: not known


def test_a_runs_report_takes_the_gpus_idle_time_or_none():
    known = from_traces.token_return_ms(document(whole(MPS)))
    own = whole(MPS).token_return
    assert own
    assert own.host_us
    assert known[IDLE] < 0.1 * own.host_us.idle.mean / 1000
    assert OUTSIDE in known
    open_ = from_traces.token_return_ms(document(whole(ONE_GPU)))
    assert RETURN in open_
    assert not {IDLE, OUTSIDE} & set(open_)


@pytest.mark.parametrize(
    ("run", "shared"),
    [
        ({"mode": "one_gpu", "env": {"REPRO_GPUS": "1"}}, [["0", "1", "2", "3"]]),
        ({"mode": "one_gpu", "env": {"REPRO_GPUS": "2"}}, [["0", "2"], ["1", "3"]]),
        ({"mode": "one_gpu", "ranks_per_gpu": 2}, [["0", "2"], ["1", "3"]]),
        ({"mode": "gpu"}, []),
    ],
)
def test_a_runs_record_says_who_shares_a_gpu(tmp_path, run, shared):
    facts = explained(only_case(in_a_run(tmp_path, ONE_GPU, **run)))
    assert [gpu.ranks for gpu in facts.shared_gpus] == shared
    assert all(gpu.shared and gpu.why == RECORDED for gpu in facts.shared_gpus)
    assert facts.ring.bubble_fraction is not None


@pytest.mark.parametrize(
    "run", [{"mode": "one_gpu"}, {"mode": "gpu", "attached": True}, {"mode": "gpu", "launches": 1}]
)
def test_a_record_that_does_not_say_it_settles_nothing(tmp_path, run):
    traces = in_a_run(tmp_path, ONE_GPU, **{k: v for k, v in run.items() if k != "launches"})
    if "launches" in run:  # of other launches
        traces = traces.rename(traces.with_name("CASE_B"))
    facts = explained(only_case(traces))
    assert [gpu.shared for gpu in facts.shared_gpus] == [None]


def test_of_a_gpu_of_a_rank_without_a_trace_nothing_is_called_idle(tmp_path):
    """The record says that PP0 and PP2 share one; PP2's file is not there."""
    traces = in_a_run(tmp_path, ONE_GPU, mode="one_gpu", env={"REPRO_GPUS": "2"})
    next(traces.glob("*PP-2*")).unlink()
    facts = explained(only_case(traces))
    assert {tuple(gpu.ranks): gpu.idle_fraction is None for gpu in facts.shared_gpus} == {
        ("0",): True,
        ("1", "3"): False,
    }
    assert facts.ring.bubble_fraction is None


def test_where_some_ranks_share_one_that_seems_alone_may_be_with_a_rank_without_a_trace(tmp_path):
    for path in (DATA / MPS).glob("*PP-[013].*"):
        shutil.copy(path, tmp_path)
    facts = explained(only_case(tmp_path))
    assert [(gpu.ranks, gpu.shared) for gpu in facts.shared_gpus] == [
        (["1", "3"], True),
        (["0"], None),
    ]
    assert "Cannot tell whether PP0 shares its GPU with a rank without a trace." in text_of(facts)
    assert facts.ring.bubble_fraction is None


@pytest.mark.parametrize(
    ("name", "kept", "seen", "open_"),
    [(ONE_GPU, 3, 1, True), (MPS, 0, 2, True), (A_GPU_EACH, 1, 2, False), (A_GPU_EACH, 1, 0, True)],
)
def test_of_one_rank_alone_it_is_open_unless_its_process_sees_a_gpu_for_each(
    tmp_path, name, kept, seen, open_
):
    for path in (DATA / name).glob(f"*PP-{kept}.*"):
        found = msgspec.json.decode(gzip.decompress(path.read_bytes()))
        found["deviceProperties"] = [{"id": number} for number in range(seen)]
        (tmp_path / path.name.removesuffix(".gz")).write_text(json.dumps(found))
    facts = explained(only_case(tmp_path))
    assert [(gpu.ranks, gpu.shared) for gpu in facts.shared_gpus] == [([str(kept)], None)] * open_
    assert (facts.ring.bubble_fraction is None) == open_
    assert ("shares its GPU with a rank without a trace" in text_of(facts)) == open_


def test_of_a_file_that_names_no_rank_neither_batches_nor_idle_are_guessed(tmp_path):
    """Its messages tell how many ranks there are, not which of them are its batches'."""
    (path,) = (DATA / MPS).glob("*PP-3.*")
    found = msgspec.json.decode(gzip.decompress(path.read_bytes()))
    found.pop("distributedInfo", None)
    found["deviceProperties"] = [{"id": 0}]
    (tmp_path / "worker.json").write_text(json.dumps(found))
    facts = explained(only_case(tmp_path))
    assert [gpu.shared for gpu in facts.shared_gpus] == [None]
    assert facts.ring.bubble_fraction is None
    (rank,) = facts.ranks.values()
    assert rank.batches is None and not rank.decode_batch_sizes and rank.kernels_a_batch is None


def test_without_the_hosts_events_nothing_is_called_idle_where_ranks_may_share_a_gpu(tmp_path):
    """GPU activities alone: NCCL's kernels name no peer, but are of a GPU all the same."""
    for path in (DATA / ONE_GPU).glob("*.gz"):
        found = msgspec.json.decode(gzip.decompress(path.read_bytes()))
        events = [e for e in found["traceEvents"] if str(e.get("cat")).startswith(("ker", "gpu_m"))]
        for event in events:
            event["args"] = {"stream": event["tid"], "correlation": event["args"]["correlation"]}
        name = tmp_path / path.name.removesuffix(".gz")
        name.write_text(json.dumps({**found, "traceEvents": events}))
    facts = explained(only_case(tmp_path))
    assert [gpu.shared for gpu in facts.shared_gpus] == [None]
    assert facts.ring.bubble_fraction is None


@pytest.mark.parametrize(
    ("name", "of"),
    [(MPS, "bubble of its GPU (with PP2)"), (ONE_GPU, "no own kernels"), (A_GPU_EACH, "bubble")],
)
def test_the_merged_traces_counter_says_what_it_counts(tmp_path, name, of):
    case = only_case(DATA / name)
    merge([case], [0], Additions([case]), tmp_path / "merged.json")
    events = msgspec.json.decode((tmp_path / "merged.json").read_bytes())["traceEvents"]
    counters = {event["name"] for event in events if event["ph"] == "C"}
    assert f"PP0 · {of}" in counters
