"""The critical path of real decode steps: it adds up, little is unexplained, and timed again
unchanged it is what was measured. (test_traces_path_truth.py holds it against known rings.)"""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("msgspec")

import msgspec
from kept_traces import case_of, ranks_of
from msgspec.structs import replace
from trace_changes import explained_of as analysis
from trace_changes import only_case, texts

from repro_pp_graphs.traces.analysis_record import Analysis, PathPart, RingPath
from repro_pp_graphs.traces.commands import case_pairs as differences_of
from repro_pp_graphs.traces.commands.analyze import main
from repro_pp_graphs.traces.commands.case_pairs import pairs
from repro_pp_graphs.traces.explain import step_path
from repro_pp_graphs.traces.explain.analysis_lines import lines
from repro_pp_graphs.traces.explain.step_path import TITLES
from repro_pp_graphs.traces.merge.chrome_trace import merge
from repro_pp_graphs.traces.merge.pipeline_tracks import Additions
from repro_pp_graphs.traces.path import difference_words, followed, what_if
from repro_pp_graphs.traces.path.clock_leads import CannotTell
from repro_pp_graphs.traces.path.difference import differences
from repro_pp_graphs.traces.path.path_slices import path_slices
from repro_pp_graphs.traces.path.ring_path import not_of
from repro_pp_graphs.traces.path.whole_analysis import explained, studied

DATA = Path(__file__).parent / "data" / "traces"
A_GPU_EACH = [
    "sglang0516_graphs_on",
    "sglang0516_sync_send",
    "sglang0516_sync_send_numbered",
    "sglang0516_event_send_numbered",
    "sglang052_graphs_on",
    "sglang052_graphs_off",
    "sglang056_graphs_on",
]
IN_TIME_SLICES = ["h200_case_A", "h200_case_B"]
SHARED = [*IN_TIME_SLICES, "sglang052_pp4"]  # the last: two ranks a GPU, under MPS


def path_of(name: str) -> RingPath:
    path = analysis(name).ring_path
    assert path is not None, analysis(name).ring_path_unknown
    return path


@pytest.mark.parametrize("name", [*A_GPU_EACH, *SHARED])
def test_categories_add_up_and_little_is_unexplained(name):
    path = path_of(name)
    whole = path.step_us.mean
    parts = {category: part.mean for category, part in path.categories.items()}
    assert sum(parts.values()) == pytest.approx(whole, rel=1e-3)
    assert sum(us for row in path.ranks.values() for us in row.values()) == pytest.approx(whole)
    assert sum(path.host.values()) == pytest.approx(parts["host"], rel=1e-3)
    assert min(parts.values()) >= 0
    assert parts["unexplained"] < 0.05 * whole


@pytest.mark.parametrize("name", [*A_GPU_EACH, *SHARED])
def test_the_step_is_the_one_found_by_following_messages(name):
    step = analysis(name).decode_step
    path = path_of(name)
    assert step is not None
    assert path.micro_batches == step.micro_batches
    assert path.step_us.mean == pytest.approx(step.mean, rel=0.05)  # other steps at the edges


@pytest.mark.parametrize("name", A_GPU_EACH)
def test_timed_again_unchanged_a_step_is_what_was_measured_and_no_remedy_makes_it_longer(name):
    path = path_of(name)
    assert path.retimed_us == pytest.approx(path.steady_us, rel=0.02)
    assert path.what_if
    assert all(0 < us <= path.steady_us + 0.001 for us in path.what_if.values())


@pytest.mark.parametrize("name", IN_TIME_SLICES)
def test_what_ranks_wait_for_while_another_has_the_gpu_is_a_part_of_its_own(name):
    path = path_of(name)
    assert path.categories["shared_gpu"].mean > 0.1 * path.step_us.mean


@pytest.mark.parametrize("name", SHARED)
def test_where_ranks_may_share_a_gpu_there_is_no_what_if_but_a_reason(name):
    assert not path_of(name).what_if
    known = name == "sglang052_pp4"
    reason = "ranks share a GPU" if known else "the GPU of several ranks has the same number"
    assert reason in " ".join(" ".join(lines(analysis(name))).split())


def test_the_graph_on_the_path_is_as_long_as_the_graph_is():
    path = path_of("sglang0516_graphs_on")
    graph_us = analysis("sglang0516_graphs_on").ranks["1"].graph_us
    assert path.ranks["1"]["graph"] == pytest.approx(graph_us, rel=0.01)
    assert path.ranks["1"]["queueing"] == pytest.approx(graph_us, rel=0.01)  # the other batch's


@pytest.mark.parametrize("name", A_GPU_EACH)
def test_whose_graph_is_on_the_path_of_how_many_steps_is_what_its_mean_is_made_of(name):
    path = path_of(name)
    assert path.graph_steps is not None and set(path.graph_steps) == set(path.ranks)
    for label, row in path.ranks.items():
        graph_us = analysis(name).ranks[label].graph_us or 0
        whole = path.graph_steps[label] * graph_us / path.steps
        assert row.get("graph", 0) == pytest.approx(whole, rel=0.05)


@pytest.mark.parametrize(
    ("graph_steps", "said"),
    [
        (
            {"0": 5, "1": 40},
            "of some of the 44 steps: PP0's of 5, PP1's of 40, of at least 1 both.",
        ),
        ({"0": 0, "1": 44}, ""),
        ({"0": 0, "1": 0}, ""),
        (None, ""),
        ({str(n): n + 3 for n in range(8)}, "44 steps: each of 8 ranks' of 3 to 10."),
    ],
)
def test_a_graph_on_the_path_of_some_steps_is_said_to_be(graph_steps, said):
    path = replace(path_of("sglang052_graphs_on"), steps=44, graph_steps=graph_steps)
    text = " ".join(" ".join(step_path.lines(_with(path))).split())
    assert said in text
    assert ("Own decode graphs are on the path of some" in text) == bool(said)
    assert "+-: 95 % interval of the mean, over the steps" in text


def _with(path: RingPath) -> Analysis:
    return replace(analysis("sglang052_graphs_on"), ring_path=path)


def test_without_graphs_what_a_graph_would_be_is_kernels_and_launching():
    path = path_of("sglang052_graphs_off")
    assert path.categories["graph"].mean == 0
    assert path.categories["eager"].mean > 0.3 * path.step_us.mean
    assert path.what_if["launch=0"] < 0.98 * path.steady_us


def test_blocking_sends_without_their_cost_are_asynchronous_sends():
    """Both measured, two launches on the same GPUs: the same release with the sends of 0.5.2."""
    blocking, released = path_of("sglang0516_sync_send"), path_of("sglang0516_graphs_on")
    assert blocking.what_if["send=0"] == pytest.approx(released.steady_us, rel=0.1)
    assert blocking.what_if["send=0"] <= released.steady_us
    assert blocking.what_if["send=0"] < 0.9 * blocking.steady_us


@pytest.mark.parametrize("ahead_us", [250, -400, 3000])
def test_a_rank_whose_clock_is_ahead_on_another_host_changes_nothing(ahead_us):
    name = "sglang0516_graphs_on"
    ranks = ranks_of(name)
    for file, document in ranks.items():
        document["host_name"] = f"host of {file}"
        if "PP-1" in file:
            document["baseTimeNanoseconds"] += ahead_us * 1000
    moved = explained(case_of(name, ranks))
    assert moved.ring_path is not None, moved.ring_path_unknown
    for category, part in path_of(name).categories.items():
        there = moved.ring_path.categories[category].mean
        assert there == pytest.approx(part.mean, abs=0.02 * path_of(name).step_us.mean), category


@pytest.mark.parametrize("name", ["cpu_prefill", "sglang0516_async_depth"])
def test_where_steps_cannot_be_followed_there_is_a_reason_instead(name):
    found = analysis(name)
    assert found.ring_path is None
    assert found.ring_path_unknown


def test_a_missing_rank_is_the_reason(tmp_path):
    (name, text), *_ = texts("sglang052_graphs_on").items()
    (tmp_path / name).write_text(text)
    assert explained(only_case(tmp_path)).ring_path_unknown == "not every rank has a trace"


@pytest.mark.parametrize("name", [*A_GPU_EACH, *SHARED, "sglang0516_batched_p2p"])
def test_the_path_is_one_thing_at_a_time_without_a_gap(name):
    """Slices that overlap would stand on top of one another in the merged trace."""
    followed = studied(only_case(DATA / name)).followed
    assert not isinstance(followed, CannotTell)
    slices = path_slices(followed)
    ahead = {line.host.rank.rank: line.ahead_ns for line in followed.ring.ranks}
    for one, other in pairwise(slices):
        assert one.start_ns < one.end_ns
        assert one.end_ns - ahead[one.rank] == other.start_ns - ahead[other.rank]


def test_the_merged_trace_shows_the_path_as_a_track_of_every_rank_with_arrows(tmp_path):
    case = only_case(DATA / "sglang0516_sync_send")
    merged = tmp_path / "merged.json"
    merge([case], [0], Additions([case]), merged)
    events = msgspec.json.decode(merged.read_bytes())["traceEvents"]
    lanes = {
        (event["pid"], event["tid"]): event["args"]["name"]
        for event in events
        if event["ph"] == "M" and "critical path" in str(event["args"].get("name"))
    }
    assert sorted(lanes.values()) == ["PP0 · critical path", "PP1 · critical path"]
    slices = [
        event for event in events if event["ph"] == "X" and (event["pid"], event["tid"]) in lanes
    ]
    slices.sort(key=lambda event: event["ts"])
    # one thing at a time, from the first launch to the last: without a gap
    for one, other in pairwise(slices):
        assert one["ts"] + one["dur"] == pytest.approx(other["ts"], abs=0.01)
    assert {"graph", "host", "launch", "transfer"} <= {event["name"] for event in slices}
    assert {TITLES[event["name"]] for event in slices} == {e["args"]["what"] for e in slices}
    hops = sum(one["pid"] != other["pid"] for one, other in pairwise(slices))
    flows = [event for event in events if event.get("cat") == "path"]
    assert [event["ph"] for event in flows] == ["s", "f"] * hops
    assert hops > 10


@pytest.mark.parametrize("name", ["sglang0516_sync_send", "sglang052_graphs_off", *SHARED])
def test_each_arrow_of_the_path_binds_to_the_slice_it_leaves_and_the_one_it_arrives_at(
    name, tmp_path
):
    """As Perfetto binds flows: a start to the slice on its track that holds its time, an end with
    bp=e likewise; a slice holds its begin and not its end."""
    case = only_case(DATA / name)
    merged = tmp_path / "merged.json"
    merge([case], [0], Additions([case]), merged)
    events = msgspec.json.decode(merged.read_bytes())["traceEvents"]
    flows = [event for event in events if event.get("cat") == "path"]
    lanes = {(flow["pid"], flow["tid"]) for flow in flows}
    slices = [e for e in events if e["ph"] == "X" and (e["pid"], e["tid"]) in lanes]
    slices.sort(key=lambda event: event["ts"])

    def bound(flow: dict[str, object]) -> list[int]:
        return [
            number
            for number, each in enumerate(slices)
            if (each["pid"], each["tid"]) == (flow["pid"], flow["tid"])
            and each["ts"] <= flow["ts"] < each["ts"] + each["dur"]
        ]

    assert len(flows) > 20
    for start, end in zip(flows[::2], flows[1::2], strict=True):
        assert (start["ph"], end["ph"], end["bp"]) == ("s", "f", "e")
        assert start["id"] == end["id"]
        assert start["pid"] != end["pid"]
        assert start["ts"] <= end["ts"]
        (left,), (arrived,) = bound(start), bound(end)
        assert arrived == left + 1  # the path's next slice, of another rank
    ids = [flow["id"] for flow in flows[::2]]
    assert len(set(ids)) == len(ids)


def test_several_what_ifs_at_once_save_no_less_than_each_of_them(tmp_path, capsys):
    out, name = tmp_path / "A.json", "sglang0516_sync_send_numbered"
    joined = ["send=0+host=0.6", "token_send+host=0.6", "transfer=0.5+transfer=0.5"]
    alone = ["host=0.6", "transfer=0.25"]
    asked = [f"--what-if={text}" for text in (*joined, *alone)]
    assert main([str(DATA / name), "--json", str(out), *asked]) == 0
    assert "send=0+host=0.6" in capsys.readouterr().out
    us = json.loads(out.read_text())["ring_path"]["what_if"]
    for text in joined[:2]:
        assert us[text] < min(us[part] for part in text.split("+"))
    assert us[joined[0]] < us[joined[1]]
    assert us[joined[2]] == pytest.approx(us["transfer=0.25"], abs=5)
    with pytest.raises(SystemExit):
        main([str(DATA / name), "--what-if", "send=0+"])
    assert "none of" in capsys.readouterr().err


def test_what_if_is_printed_and_written(tmp_path, capsys):
    folder, out = DATA / "sglang052_graphs_on", tmp_path / "A.json"
    asked = ["--what-if", "transfer=0.5", "--what-if", "compute=2", "--what-if", "event_send"]
    assert main([str(folder), "--json", str(out), *asked]) == 0
    text = capsys.readouterr().out
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "One token's way round" in " ".join(text.split())
    assert json.loads(out.read_text())["what_if_not_given"] == {}
    predicted = json.loads(out.read_text())["ring_path"]["what_if"]
    steady = json.loads(out.read_text())["ring_path"]["steady_us"]
    assert predicted["transfer=0"] <= predicted["transfer=0.5"] <= steady
    assert 1.5 * steady < predicted["compute=2"] < 2 * steady
    assert f"{predicted['compute=2'] / 1000:.2f}" in text
    # the remedies by name, and what such a figure is
    assert {"comm_stream", "event_send", "batched_p2p"} <= predicted.keys()
    assert predicted["send=0"] < predicted["token_send"] < steady, "one send is not all messages"
    assert predicted["token_send"] <= predicted["comm_stream"], "its own stream keeps its calls"
    assert "token_send: sending token ids took no time" in text
    told = " ".join(text.split())
    assert "saves: at most so much" in told
    assert "busy with another micro-batch (it works, this one queues: no loss)" in told
    assert (
        "batched_p2p: send=0, and no receive waits for the size of what comes, which goes ahead "
        "over gloo as sglang has it: it may save more than send=0." in told
    )
    assert f"Savings are counted from {steady / 1000:.2f} ms, " in told


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cpu_prefill", "the way round the ring is not known: "),
        ("sglang0516_async_depth", "the way round the ring is not known: "),
        ("sglang052_pp4", "ranks share a GPU"),
    ],
)
def test_every_what_if_that_was_asked_for_and_cannot_be_given_is_named(
    name, reason, tmp_path, capsys
):
    out = tmp_path / "A.json"
    asked = ["--what-if", "transfer=0.5", "--what-if", "send=0"]
    assert main([str(DATA / name), "--json", str(out), *asked]) == 0
    text = capsys.readouterr().out
    assert all(len(line) <= 80 for line in text.splitlines())
    found = json.loads(out.read_text())
    why = found["what_if_not_given"]
    assert list(why) == ["transfer=0.5", "send=0"]
    assert all(reason in text for text in why.values())
    assert f"no what-if for transfer=0.5, send=0: {why['send=0']}" in " ".join(text.split())
    # whoever asks for none is told of none
    assert main([str(DATA / name), "--json", str(out)]) == 0
    assert json.loads(out.read_text())["what_if_not_given"] == {}
    assert "no what-if for" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "groups", "sent_in", "reason"),
    [
        ("batched_p2p", 0, None, what_if.ON_A_CPU),
        ("sync=0+host=0.5", 0, None, what_if.ON_A_CPU),
        ("send=0+host=0.5", 0, None, ""),
        ("batched_p2p", 3, None, ""),
        ("batched_p2p", 3, "a batch", what_if.IN_A_BATCH),
        ("event_send", 3, "a batch", ""),
    ],
)
def test_what_if_asks_of_ranks_only_what_they_have(name, groups, sent_in, reason):
    host = SimpleNamespace(of=lambda *_: [SimpleNamespace(exchange=sent_in)])
    line = SimpleNamespace(groups=range(groups), host=host)
    assert not_of(SimpleNamespace(ring=SimpleNamespace(ranks=[line])), name) == reason


@pytest.mark.parametrize(("factor", "said"), [(1, False), (4, True)])
def test_launching_of_which_little_would_be_saved_is_said_to_be_and_why(factor, said):
    path = path_of("sglang052_graphs_off")
    part = path.categories["launch"]
    categories = {**path.categories, "launch": replace(part, mean=factor * part.mean)}
    path = replace(path, categories=categories)
    saves = (path.steady_us - path.what_if["launch=0"]) / 1000
    spent = path.categories["launch"].mean / 1000
    found = replace(analysis("sglang052_graphs_off"), ring_path=path)
    told = " ".join(" ".join(lines(found)).split())
    text = f"launch=0 saves {saves:.2f} of the {spent:.2f} that the step spends in launching: "
    assert (f"{text}another path becomes the longest" in told) == said


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("speed=0", "none of"),
        ("send=0.5", "0 or 1"),
        ("launch=-1", "0 or more"),
        ("launch=nan", "0 or more"),
        ("sync", "sync=0"),
        ("transfer=half", "give a number"),
        ("stream", "comm_stream"),
        ("event_send=0.5", "without a factor"),
        ("", "none of"),
    ],
)
def test_a_what_if_that_cannot_be_is_refused_with_what_to_give(asked, says, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([str(DATA / "sglang052_graphs_on"), "--what-if", asked])
    assert stopped.value.code == 2
    assert says in capsys.readouterr().err


def test_the_difference_of_two_cases_is_shared_out_and_adds_up():
    released, blocking = path_of("sglang0516_graphs_on"), path_of("sglang0516_sync_send")
    found = differences([released], [blocking])
    assert found.over == "steps"
    assert found.step.mean == pytest.approx(blocking.step_us.mean - released.step_us.mean, abs=1)
    total = sum(part.mean for part in found.categories.values())
    assert total == pytest.approx(found.step.mean, abs=0.1)
    host = found.categories["host"]
    assert host.low is not None
    assert host.low > 0.5 * found.step.mean  # what blocking sends cost is the hosts' time


@pytest.mark.parametrize(
    ("slower", "said"), [(1.05, ""), (1.3, "1.30 times as long on PP1"), (0.5, "0.50")]
)
def test_hosts_that_were_not_equally_fast_are_named_beside_a_difference(slower, said):
    first = analysis("sglang0516_sync_send_numbered")
    assert first.ranks["1"].next_batch_us == pytest.approx(400, rel=0.3)
    ranks = dict(first.ranks)
    ranks["1"] = replace(ranks["1"], next_batch_us=slower * ranks["1"].next_batch_us)
    second = replace(first, case="another", ranks=ranks)
    text = " ".join(" ".join(differences_of.lines([first, second])).split())
    assert ("The hosts were not equally fast" in text) == bool(said)
    assert said in text
    # not shown by the trace: nothing is said of it
    ranks["1"] = replace(ranks["1"], next_batch_us=None)
    assert "equally fast" not in " ".join(differences_of.lines([first, second]))


def test_of_several_cases_the_first_is_held_against_each_of_the_others(capsys):
    names = ["sglang0516_graphs_on", "sglang0516_sync_send", "sglang052_graphs_on"]
    assert main([str(DATA / name) for name in names]) == 0
    text = capsys.readouterr().out
    _, *tables = text.split("2nd less 1st")
    assert len(tables) == 2
    assert all(len(line) <= 80 for table in tables for line in table.splitlines())
    released, blocking = map(path_of, names[:2])
    assert f"{(blocking.step_us.mean - released.step_us.mean) / 1e3:+.2f}" in tables[0]
    assert "another pair: python -m repro_pp_graphs analyze ON OFF" in tables[1]


def pairs_of(**graphs: bool) -> list[tuple[str, str]]:
    """The pairs of cases of these names, as names; whether each has graphs."""
    made = [
        replace(analysis("sglang052_graphs_on"), case=case, graph_launches={"0": 47 * on})
        for case, on in graphs.items()
    ]
    return [(made[first].case, made[second].case) for first, second in pairs(made)]


def test_of_several_cases_graphs_off_is_held_against_graphs_on_of_the_same_name():
    a_on, a_off, b_on, b_off = "r1_graphs_on", "r1_graphs_off", "r2-no-graphs", "r2"
    several = {a_off: False, a_on: True, b_on: False, b_off: True, "r3_graphs_on": True}
    assert pairs_of(**several) == [(a_on, a_off), (b_off, b_on)]
    # two cases are what was asked for; without a pair alike, and on a CPU, the first is the base
    assert pairs_of(r1_graphs_off=False, r1_graphs_on=True) == [(a_off, a_on)]
    assert pairs_of(x_on=True, y_off=False, z_on=True) == [("x_on", "y_off"), ("x_on", "z_on")]
    assert pairs_of(x_on=False, x_off=False, z=False) == [("x_on", "x_off"), ("x_on", "z")]


def test_the_difference_of_two_cases_without_graphs_is_not_put_down_to_them():
    off = [analysis("sglang052_graphs_off"), replace(analysis("sglang052_graphs_off"), case="b")]
    assert "neither has decode graphs" in " ".join(differences_of.lines(off))
    assert "neither" not in " ".join(differences_of.lines([analysis("sglang052_graphs_on"), *off]))


def test_cases_of_a_run_go_by_their_letters_in_whatever_order_they_are_named():
    names = "CASE_A_decode_graphs", "CASE_B_no_graphs", "CASE_C_sync_send"
    a, b, c = names
    assert pairs_of(**dict.fromkeys(names[::-1], True)) == [(a, b), (a, c)]
    assert pairs_of(**{b: False, a: True}) == [(a, b)]
    path = path_of("sglang052_graphs_on")
    head, columns, *_ = difference_words.lines(a, path, c, path)
    assert head == "CASE_C_sync_send (C) less CASE_A_decode_graphs (A)"
    assert columns.split()[-6:] == ["A", "C", "C", "less", "A", "+-"]
    again = difference_words.lines(a, path, f"{a}_r2", path)[:2]
    assert again[0] == f"{a}_r2 (2nd) less {a} (1st)"
    assert "2nd less 1st" in again[1]


@pytest.mark.parametrize(
    ("tpot_ms", "says"), [(50.0, "longer"), (90.0, "shorter"), (None, ""), ("x", "")]
)
def test_beside_the_path_stands_what_the_profiler_adds_where_the_run_measured_it(
    tpot_ms, says, tmp_path, capsys
):
    traces = tmp_path / "trace" / "CASE_A"
    shutil.copytree(DATA / "sglang0516_graphs_on", traces)
    (tmp_path / "logs").mkdir()
    client = {"summary": {"mean_tpot_ms": tpot_ms}}
    (tmp_path / "logs" / "CASE_A_client.json").write_text(json.dumps(client))
    assert main([str(traces)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert ("Without the profiler a token took" in text) == bool(says)
    assert f"% {says}" in text
    assert ("by its critical path) is" in text) == bool(says)
    assert "The row longer when profiled" not in text, "nothing but the traces was timed"
    assert ("No profiler makes a step shorter" in text) == (says == "shorter")


def turns(turn: float, launch: float, process: float, untimed: float) -> dict[str, object]:
    parts = {"launch": launch, "process": process, "recv_tokens": 20.0}
    decode = {"turn": {"mean": turn}, "untimed": {"mean": untimed}, "parts": parts}
    return {"decode": decode}


def test_where_pp_clock_timed_both_passes_what_to_ask_of_the_one_without_the_profiler_is_said(
    tmp_path, capsys
):
    traces = tmp_path / "trace" / "CASE_A"
    shutil.copytree(DATA / "sglang0516_graphs_on", traces)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "CASE_A_client.json").write_text('{"summary": {"mean_tpot_ms": 50.0}}')
    clock = tmp_path / "logs" / "CASE_A_pp_clock.json"
    ranks = {
        "PP0": {"measured": turns(24, 1, 0.5, 1.5), "profiled": turns(30, 3, 1, 2)},
        "PP1": {"measured": turns(25, 1, 1, 1), "profiled": turns(30, 2, 1, 1)},
    }

    def said() -> str:
        assert main([str(traces)]) == 0
        text = capsys.readouterr().out
        assert all(len(line) <= 80 for line in text.splitlines())
        return " ".join(text.split())

    clock.write_text(json.dumps({"loop_size": 2, "ranks": ranks}))
    text = said()  # 3 of 6 and 3 of 4 ms; without launches 2 of 3 and 2 of 2
    assert "the hosts' own work takes 0.62 times as long as here (by pp_clock), so" in text
    assert "--what-if send=0+host=0.62; work other than launching 0.83 times as long, so" in text
    assert "--what-if launch=0+host=0.83. Hold what they give against 50.00 ms" in text
    assert "(The row longer when profiled, of pp_clock, is of the last rank's turns.)" in text
    ranks["PP1"]["profiled"] = {}
    for broken in (
        json.dumps({"loop_size": 2, "ranks": ranks}),
        '{"loop_size": 2, "ranks": {}}',
        "",
    ):
        clock.write_text(broken)
        assert "What-ifs of the pass without the profiler" not in said()


def test_a_sentence_names_the_difference_and_what_it_is_made_of():
    released, blocking = path_of("sglang0516_graphs_on"), path_of("sglang0516_sync_send")
    found = differences([released], [blocking])
    text = difference_words.sentence("A", "B", found)
    assert f"B is {found.step.mean / 1e3:.2f} ms longer than one of A" in text
    assert f"{TITLES['host']} {found.categories['host'].mean / 1e3:+.2f} ms" in text
    back = difference_words.sentence("B", "A", differences([blocking], [released]))
    assert f"A is {found.step.mean / 1e3:.2f} ms shorter than one of B" in back
    assert "say nothing of how launches differ" in text


def test_with_several_launches_the_interval_is_over_launches():
    one = path_of("sglang0516_graphs_on")
    launches = [
        replace(one, categories=one.categories | {"host": PathPart(us, None)})
        for us in (4000.0, 4200.0, 4400.0, 5000.0, 5100.0, 5200.0)
    ]
    found = differences(launches[:3], launches[3:])
    host = found.categories["host"]
    assert found.over == "launches"
    assert host.mean == pytest.approx(900)
    # Welch: variances 40,000 and 10,000 of three values each, t(0.975; 2.94) = 3.22
    assert (host.low, host.high) == pytest.approx((900 - 416, 900 + 416), abs=5)
    assert found.categories["graph"].low == found.categories["graph"].high == 0
    with pytest.raises(ValueError, match="nothing to compare"):
        differences([], launches)


def test_of_a_long_trace_the_steps_in_the_middle_are_followed_and_it_is_said(monkeypatch):
    whole = path_of("sglang052_graphs_on")
    monkeypatch.setattr(followed, "MOST", 8)
    found = explained(only_case(DATA / "sglang052_graphs_on"))
    part = found.ring_path
    assert part is not None, found.ring_path_unknown
    assert part.steps < whole.steps
    assert part.batches_there == whole.batches_there
    assert f"in the middle of {part.batches_there} batches" in " ".join(
        " ".join(lines(found)).split()
    )
    assert part.categories["graph"].mean == pytest.approx(whole.categories["graph"].mean, rel=0.05)


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("sglang0516_sync_send", "cudaStreamSynchronize"),
        ("sglang052_graphs_on", "cudaStreamSynchronize"),
        ("sglang0516_graphs_on", "cudaEventSynchronize"),
        ("sglang0516_sync_send", "gloo:recv"),
        ("sglang0516_sync_send", "gloo:send"),
        ("sglang052_graphs_on", "c10d::send"),
        ("sglang052_graphs_on", "cudaGraphLaunch"),
        ("sglang052_graphs_off", "cudaLaunchKernel"),
        ("sglang052_graphs_off", "cudaStreamSynchronize"),
    ],
)
def test_events_missing_from_a_trace_change_little_or_are_the_reason_that_there_is_no_path(
    name, missing
):
    ranks = ranks_of(name)
    for rank in ranks.values():
        rank["traceEvents"] = [e for e in rank["traceEvents"] if e.get("name") != missing]
    found = explained(case_of(name, ranks))
    if found.ring_path is None:
        assert found.ring_path_unknown
        return
    whole, path = path_of(name), found.ring_path
    lost = path.categories["peer_late"].mean + path.categories["unexplained"].mean
    for category, part in whole.categories.items():
        off = abs(path.categories[category].mean - part.mean)
        assert off <= 0.05 * whole.step_us.mean + lost, category
    assert not path.what_if or path.what_if["send=0"] == pytest.approx(
        whole.what_if["send=0"], rel=0.05
    )


def test_beside_a_case_of_several_launches_a_single_one_is_taken_to_spread_as_these_do():
    """sglang 0.5.2 on four H200s: decode steps of 90.8 ms with graphs, 81.0 and 125.8 without."""
    one = path_of("sglang0516_graphs_on")

    def launch(step_us: float) -> RingPath:
        parts = dict.fromkeys(one.categories, PathPart(0.0, 0.0))
        return replace(one, categories=parts | {"host": PathPart(step_us, 100.0)}, step_error=100.0)

    found = differences([launch(90_763)], [launch(81_011), launch(125_781)])
    assert found.over == "launches"
    # a spread of 31.66 ms in both, t(0.975; 1) = 12.71
    half = 12.706 * 31_657 * 1.5**0.5
    assert (found.step.low, found.step.high) == pytest.approx(
        (12_633 - half, 12_633 + half), rel=1e-3
    )
    text = difference_words.sentence("A", "B", found)
    assert "which is longer cannot be told" in text and "over launches" in text
