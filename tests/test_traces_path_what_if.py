"""What a decode step would take at least, if; and what the profiler adds to it."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import pytest

pytest.importorskip("msgspec")

from msgspec.structs import replace
from path_cases import DATA, path_of
from trace_changes import explained_of as analysis
from trace_changes import only_case

from repro_pp_graphs.traces.commands.analyze import main
from repro_pp_graphs.traces.explain.analysis_lines import lines
from repro_pp_graphs.traces.path import ring_path, what_if
from repro_pp_graphs.traces.path.ring_path import not_of
from repro_pp_graphs.traces.path.whole_analysis import studied


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


def test_where_usual_lengths_do_not_give_the_step_there_is_no_estimate(monkeypatch):
    study = studied(only_case(DATA / "sglang0516_sync_send_numbered"))
    times = iter([1000.0, 948.0])  # as measured, and timed again
    monkeypatch.setattr(ring_path._Steady, "step_us", lambda *_: next(times))
    path = ring_path.ring_path(study.case, study.followed)
    assert path.what_if == {}
    assert path.what_if_unknown == (
        "its calls and messages vary too much: computed from their median times a step comes out "
        "5.2% shorter than measured, and above 5% no estimate is made"
    )


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
    ranks["PP1"]["profiled"] = {}
    for broken in (
        json.dumps({"loop_size": 2, "ranks": ranks}),
        '{"loop_size": 2, "ranks": {}}',
        "",
    ):
        clock.write_text(broken)
        assert "What-ifs of the pass without the profiler" not in said()
