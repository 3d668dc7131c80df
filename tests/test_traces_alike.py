"""Cases held against one another: what differs is named, what makes it meaningless refused."""

from __future__ import annotations

import gzip
import json
import re
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest

pytest.importorskip("msgspec")

import msgspec
from msgspec.structs import replace
from trace_changes import explained_of as facts
from trace_changes import only_case

from repro_pp_graphs.report.charts import bar_charts
from repro_pp_graphs.report.summary import remarks
from repro_pp_graphs.traces.analysis_record import Analysis, Ring
from repro_pp_graphs.traces.commands import case_pairs
from repro_pp_graphs.traces.commands.analyze import main
from repro_pp_graphs.traces.explain import side_by_side, step_path
from repro_pp_graphs.traces.path import alike, host_speed
from repro_pp_graphs.traces.path.alike import said_of_graphs, unlike
from repro_pp_graphs.traces.path.whole_analysis import explained

DATA = Path(__file__).parent / "data" / "traces"
ON, OFF, PP4 = "sglang052_graphs_on", "sglang052_graphs_off", "sglang052_pp4"


def of_ranks(found: Analysis, **changed: object) -> Analysis:
    return replace(
        found, ranks={label: replace(row, **changed) for label, row in found.ranks.items()}
    )


def test_cases_of_other_ranks_get_no_table_but_the_reasons_and_what_to_do(capsys):
    assert main([str(DATA / ON), str(DATA / PP4)]) == 0
    text = capsys.readouterr().out
    assert all(len(line) <= 80 for line in text.splitlines())
    said = " ".join(text[text.index("side by side") :].split())
    assert f"! {PP4} is not comparable with {ON}: other ranks: PP 2 x TP 1 and PP 4 x TP 1" in said
    assert f"{PP4} against {ON}: not comparable - other ranks" in said
    assert "ranks share GPUs otherwise: one each, and shared (PP0 and PP2; PP1 and PP3)" in said
    assert "Hold profiles of one model, one load and one number of ranks" in said
    assert "the whole step" not in said


@pytest.mark.parametrize(
    "name", [ON, "sglang0516_graphs_on", "sglang0516_sync_send", "sglang052_pp4", "h200_case_A"]
)
def test_kernels_of_a_batch_are_those_of_whole_batches(name):
    """As the raw files have them from one graph launch to the next; what is cut is not counted."""
    for path in sorted((DATA / name).iterdir()):
        events = msgspec.json.decode(gzip.decompress(path.read_bytes()))["traceEvents"]
        calls = {
            e["args"]["correlation"]: e["ts"]
            for e in events
            if e.get("cat") in ("cuda_runtime", "cuda_driver") and "correlation" in e["args"]
        }
        begins = sorted(e["ts"] for e in events if e.get("name") == "cudaGraphLaunch")
        posted = [
            calls[e["args"]["correlation"]]
            for e in events
            if e.get("cat") == "kernel"
            and "ncclDevKernel_SendRecv" not in e["name"]
            and e["args"].get("correlation") in calls
        ]
        counts = [sum(a <= each < b for each in posted) for a, b in pairwise(begins)]
        rank = re.search(r"PP-(\d+)", path.name)
        assert rank
        assert abs(facts(name).ranks[rank[1]].kernels_a_batch - median(counts)) <= 1


@pytest.mark.parametrize("name", [ON, "sglang0516_sync_send", "sglang052_graphs_off"])
def test_where_launches_are_not_in_the_trace_kernels_of_a_batch_are_not_known(tmp_path, name):
    """Else a damaged trace would be called one of another model."""
    for path in (DATA / name).iterdir():
        found = msgspec.json.decode(gzip.decompress(path.read_bytes()))
        calls = [e for e in found["traceEvents"] if e.get("cat") in ("cuda_runtime", "cuda_driver")]
        gone = {id(e) for e in calls[::2]}
        found["traceEvents"] = [e for e in found["traceEvents"] if id(e) not in gone]
        (tmp_path / path.name.removesuffix(".gz")).write_text(json.dumps(found))
    damaged = explained(only_case(tmp_path))
    assert [rank.kernels_a_batch for rank in damaged.ranks.values()] == [None, None]
    assert not any("kernels" in text for texts in unlike(facts(name), damaged) for text in texts)


def test_cases_of_one_shape_do_not_differ_in_kernels():
    on, sync = facts("sglang0516_graphs_on"), facts("sglang0516_sync_send")
    assert not any("kernels a batch" in text for text in unlike(on, sync).named)


def test_of_many_cases_unlike_the_first_it_is_said_once():
    first = facts(PP4)
    others = [replace(facts(ON), case=f"case_{n}") for n in range(4)]
    (said,) = [" ".join(case_pairs.not_alike([first, *others]))]
    said = " ".join(said.split())
    assert said.startswith(f"! All below {PP4} are not comparable with it: other ranks (4)")
    assert said.count("not comparable") == 1 and case_pairs.TWO in said
    alike = replace(first, case="again")
    said = " ".join(" ".join(case_pairs.not_alike([first, alike, *others])).split())
    assert said.startswith(f"! 4 of the 5 below {PP4}")
    few = case_pairs.not_alike([first, *others[:3]])
    assert " ".join(few).count("is not comparable with") == 3


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda one: of_ranks(one, decode_batch_sizes={"16": 40}),
            "other micro-batch sizes: 8 and 16",
        ),
        (lambda one: of_ranks(one, kernels_a_batch=300.0), "another model or number of layers"),
        (lambda one: replace(one, hidden_size=4096), "other hidden size: 8192 and 4096"),
        (lambda one: replace(one, ring=Ring(1, 0.1, 0.5)), "under way: 2 and 1"),
        (lambda _: facts("cpu_numbered"), "other kinds of machine: GPUs and a CPU"),
    ],
)
def test_another_load_or_shape_is_refused(change, reason):
    one = facts(ON)
    assert unlike(one, one) == ([], [])
    refused, _ = unlike(one, change(one))
    assert any(reason in text for text in refused)


def test_what_does_not_forbid_it_is_named_before_the_table():
    one = replace(facts(ON), gpu_models=["NVIDIA H100"], hosts=["here"])
    other = replace(facts("sglang0516_graphs_on"), case="graphs_off")
    other = replace(other, gpu_models=["Another GPU"], hosts=["elsewhere"])
    refused, named = unlike(one, other)
    assert not refused
    for part in ("sends: metadata copied", "GPUs: NVIDIA H100", "machines: ", "is named without"):
        assert any(part in text for text in named), part
    text = "\n".join(case_pairs.lines([one, other]))
    assert text.index("differ in:") < text.index("the whole step")
    assert "decode graphs: with and without" in unlike(facts(ON), facts(OFF)).named


def test_a_load_that_is_split_into_other_sizes_is_named_though_their_mean_is_the_same():
    one, mean = facts(ON), "decode steps of other sizes"
    assert unlike(one, of_ranks(one, decode_batch_sizes={"8": 19, "7": 1})).named == []
    said = unlike(one, of_ranks(one, decode_batch_sizes={"7": 10, "9": 10})).named
    assert [text.startswith(mean) for text in said] == [True]
    assert said[0].endswith("at batch 8 in the first; 10 at batch 7, 10 at batch 9 in the second")
    many = of_ranks(one, decode_batch_sizes={str(size): 4 for size in range(5, 12)})
    assert unlike(one, many).named[0].endswith("; 28 at batch 5 to 11 in the second")
    assert alike.split_otherwise(one, of_ranks(one, decode_batch_sizes={"16": 9})) == []  # refused


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("CASE_A_decode_graphs", True),
        ("CASE_B_no_graphs", False),
        ("graphs_off", False),
        ("x", None),
    ],
)
def test_what_a_name_says_of_graphs(name, says):
    assert said_of_graphs(name) is says


def test_no_what_if_is_offered_where_none_can_be_given():
    a, b = (of_ranks(facts(name), next_batch_us=us) for name, us in ((ON, 10.0), (OFF, 20.0)))
    assert a.sends == b.sends == "on_device"
    asked = host_speed.unequal("A", a, "B", b)
    assert "--what-if host=2.00 (the mean of these) tells how long A's step would be on h" in asked
    steady = f"{b.ring_path.steady_us / 1e3:.2f}"
    assert f"as fast as B's: compare that with B's {steady} ms, its mean step" in asked
    began = host_speed.unequal("A", replace(a, sends="asynchronous"), "B", b)
    assert "--what-if host=2.00" in began, "without sends it would be no nearer to B's"
    ended = host_speed.unequal("A", a, "B", replace(b, sends="asynchronous"))
    assert "--what-if send=0+host=2.00" in ended and "without sends that block" in ended
    a = replace(a, ring_path=replace(a.ring_path, what_if={}, what_if_unknown="why"))
    said = host_speed.unequal("A", a, "B", b)
    assert "were not equally fast" in said
    assert "--what-if" not in said


@pytest.mark.parametrize(
    ("factor", "more_us", "says"),
    [
        (2.0, 5000.0, "A part of the difference in host work and launching may be that."),
        (0.5, -5000.0, "A part of the difference in host work and launching may be that."),
        (2.0, -5000.0, "The hosts of B are the slower ones, and yet A spends more in host work"),
        (0.5, 5000.0, "The hosts of A are the slower ones, and yet B spends more in host work"),
        (2.0, -500.0, "A part of the difference"),  # of a step of 51 ms: none that can be told
    ],
)
def test_a_slower_host_explains_more_work_of_its_own_and_no_less(factor, more_us, says):
    a, b = (of_ranks(facts(ON), next_batch_us=us) for us in (10.0, 10.0 * factor))
    host = b.ring_path.categories["host"]
    parts = {**b.ring_path.categories, "host": replace(host, mean=host.mean + more_us)}
    b = replace(b, ring_path=replace(b.ring_path, categories=parts))
    assert says in host_speed.unequal("A", a, "B", b)


def test_where_a_host_is_slower_on_one_rank_and_faster_on_another_neither_is_the_slower():
    a, b = of_ranks(facts(ON), next_batch_us=10.0), of_ranks(facts(ON), next_batch_us=20.0)
    ranks = {**b.ranks, "1": replace(b.ranks["1"], next_batch_us=5.0)}
    host = b.ring_path.categories["host"]
    parts = {**b.ring_path.categories, "host": replace(host, mean=host.mean - 5000.0)}
    b = replace(b, ranks=ranks, ring_path=replace(b.ring_path, categories=parts))
    assert "A part of the difference" in host_speed.unequal("A", a, "B", b)


def test_a_saving_below_what_can_be_told_says_so():
    path = facts(ON).ring_path
    assert path
    small = replace(path, what_if={**path.what_if, "token_send": path.steady_us * 0.99})
    text = step_path.lines(replace(facts(ON), ring_path=small))
    rows = {line.split(":")[0]: line for line in text if " took " in line or "one batch" in line}
    assert rows["token_send"].endswith("?")
    large = replace(path, what_if={**path.what_if, "token_send": path.steady_us * 0.9})
    text = step_path.lines(replace(facts(ON), ring_path=large))
    assert not next(line for line in text if line.startswith("token_send:")).endswith("?")
    titles = {"small": small, "large": large}
    rows = {row[0]: row[1:] for row in bar_charts._what_if_rows(list(titles.items()))}
    cells = rows["at least, if sending token ids took no time"]
    assert [cell.endswith("(?)") for cell in cells] == [True, False]
    assert not any(cell.endswith("(?)") for cell in rows[bar_charts.STEADY])


def test_side_by_side_names_a_wait_for_the_graph_that_is_not_in_the_send():
    text = " ".join(" ".join(side_by_side.lines([facts(ON), facts("sglang056_graphs_on")])).split())
    assert (
        "! sglang056_graphs_on: while its own decode graph runs, that host is in the receive of "
        "token ids ("
    ) in text
    assert "it waits there, for the most part, for a peer not there yet), not in the send." in text
    assert f"! {ON}" not in text


def test_one_pp_rank_sends_nothing_and_nothing_is_said_of_sends():
    launch = {"sglang_version": "0.5.21", "sends": "asynchronous", "label": "A", "round": 1}
    assert not remarks._sends([{**launch, "pp_size": 1}], rehearsal=False)
    assert remarks._sends([{**launch, "pp_size": 2}], rehearsal=False)


def test_of_one_pp_rank_no_ring_is_spoken_of(tmp_path, capsys):
    event = {"ph": "X", "cat": "kernel", "name": "gemm", "pid": 0, "tid": 7, "dur": 5}
    events = [{**event, "ts": 10 * at, "args": {"correlation": at}} for at in range(1, 9)]
    (tmp_path / "1-TP-0.trace.json").write_text(
        json.dumps({"baseTimeNanoseconds": 10**18, "traceEvents": events})
    )
    assert main([str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "Token return: none, there is one PP rank." in text
    assert "not every rank" not in text
    assert "way round the ring" not in text
