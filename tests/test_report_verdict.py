"""The verdict on runs as they lie on disk: a real series, one launch each, what is no evidence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("scipy")

import report_runs
from report_runs import A, B, changed
from trace_changes import analysis_of

from repro_pp_graphs import run_record
from repro_pp_graphs.report import source, summary_step, two_runs
from repro_pp_graphs.report.summary import (
    outcome,
    remarks,
    run_summary,
    sentences,
    summary_record,
)
from repro_pp_graphs.report.summary.verdict import correct_over_pairs
from repro_pp_graphs.report.tables import page_tables, ratio_cells
from repro_pp_graphs.stats.arms import Sample
from repro_pp_graphs.stats.compare import Asked, Metric, pair
from repro_pp_graphs.stats.metric_names import RETURN
from repro_pp_graphs.stats.verdict_record import Estimate, Finding, Pair, Verdict
from repro_pp_graphs.traces.analysis_record import document

pytestmark = pytest.mark.slow


def verdict(run: Path) -> Verdict:
    logs = run / "logs"
    made = json.loads(json.dumps(run_summary.summarise(logs, run_record.load(logs))))
    report_runs.of_summary().validate(made)
    found = summary_record.from_json(made).verdict
    assert found is not None
    return found


def answers(found: Verdict) -> dict[str, str]:
    return {each.name: each.answer for each in found.findings}


def finding(found: Verdict, name: str) -> Finding:
    return next(each for each in found.findings if each.name == name)


@pytest.mark.parametrize(
    ("cases", "unproven"), [((), True), ((A,), False), ((B,), False), ((A, B), True)]
)
def test_ttft_alone_is_no_control_where_prefills_ran_with_graphs_in_one_case(
    tmp_path, cases, unproven
):
    run = report_runs.series(tmp_path / "r")
    for label, usual_ms in ((A, 50.0), (B, 75.0)):
        for number, path in enumerate((run / "logs").glob(f"{label}*_client.json")):
            ms = usual_ms + number % 2
            changed(path, lambda one, ms=ms: one["summary"].update(control_ttft_ms=ms))
    for label in cases:
        for path in (run / "logs").glob(f"{label}*_launch.json"):
            changed(path, lambda one: one["graph_state"].update(prefills_with_graph=7))
    found = verdict(run)
    assert any(limit.startswith("unproven: ") for limit in found.limits) == unproven
    made = run_summary.summarise(run / "logs", run_record.load(run / "logs"))
    said = [text for text in remarks.remarks(made) if "Prefills ran with CUDA graphs in" in text]
    assert bool(said) == (len(cases) == 1)


def test_the_real_series_says_graphs_make_tpot_5_percent_better(tmp_path):
    found = verdict(report_runs.series(tmp_path / "r"))
    assert answers(found) == {"longer": "cannot tell", "idle": "cannot tell", "cost": "no"}
    assert found.headline == "CANNOT TELL" and found.limits == []
    (pair,) = found.pairs
    primary = pair.primary
    assert (pair.a, pair.b, primary.metric) == ("graphs_on", "graphs_off", "mean_tpot_ms")
    assert (primary.word, primary.favours) == ("DIFFERENT", "graphs_on")
    assert f"{primary.estimate.value:.3f}" == "0.949"
    assert f"{primary.estimate.low:.3f} {primary.estimate.high:.3f}" == "0.934 0.964"
    assert primary.exact_p == pytest.approx(0.0286, abs=1e-4) and primary.ranks_separate
    assert "the token return was not timed in this run" in finding(found, "longer").text.lower()


def test_an_answer_stands_beside_the_difference_that_it_rests_on():
    """Of 0.5.2 on two H100s, three launches each: their ratio's interval contains 1."""
    same = {"p": 0.002, "df": 3.1, "spread_a": 0.8, "spread_b": 1.1, "drift": 0.0, "pooled": False}
    found = Finding(
        name="longer",
        question="",
        answer="yes",
        text="by 5% of a decode step without graphs or more",
        a=11.26487,
        b=2.97876,
        ratio=Estimate(scale="ratio", value=4.0078, low=0.7879, high=20.3855, **same),
        difference=Estimate(scale="difference", value=8.1709, low=3.4416, high=12.9002, **same),
    )
    apart = "+8.17 [3.44, 12.9] ms"
    assert ratio_cells.answers([found]) == {RETURN: f"{apart} longer: yes"}
    ratio = "ratio 4.008 [0.788, 20.386]"
    assert sentences.figures(found).startswith(f"11.26 against 2.979 ms, difference {apart} (of")
    assert sentences.figures(found).endswith(f", {ratio}")


def one_launch_each(run: Path) -> Path:
    """The first round with the analyses of the same release's traces."""
    report_runs.traced(run)
    for label, name in report_runs.TRACES.items():
        text = json.dumps(document(analysis_of(name)))
        (run / "logs" / f"{label}_analysis.json").write_text(text)
    return run


def test_one_launch_each_is_too_few_and_its_figures_are_shown(tmp_path, capsys):
    run = one_launch_each(tmp_path / "r")
    found = verdict(run)
    assert set(answers(found).values()) == {"cannot tell"}
    assert all("too few to test" in each.text for each in found.findings)
    # some steps of the traces that gave 21.7, 21.1, 0.55 and 5.2, 0.52 in all their 46 steps
    wanted = {"send": 21.7, "under_own_graph": 21.1, "idle": 0.55, "without_graphs": 5.2}
    for name, ms in (wanted | {"idle_without_graphs": 0.52}).items():
        assert found.ours_ms[name] == pytest.approx(ms, rel=0.1), name
    # as in the findings: a figure that was rounded before would differ in its last digit
    longer = found.findings[0]
    assert (found.ours_ms["send"], found.ours_ms["without_graphs"]) == (longer.a, longer.b)
    assert found.issue_ms == {
        "send": 100, "under_own_graph": 30, "idle": 70, "without_graphs": 3,
    }  # fmt: skip
    assert "own decode graph" in found.reason
    assert summary_step.main([str(run)]) == 0
    printed = capsys.readouterr().out
    # a path stays whole
    assert max(len(line) for line in printed.splitlines() if str(run) not in line) <= 80
    assert "in #10865" in printed and " against 5." in printed


def four_rounds_of(run: Path, a: dict[str, float], b: dict[str, float]) -> Path:
    """The series, each launch with an analysis whose token return is as given, us, and a little
    more in each launch."""
    report_runs.series(run)
    whole = json.loads(json.dumps(document(analysis_of("sglang052_graphs_on"))))
    for number, path in enumerate(sorted((run / "logs").glob("*_client.json"))):
        label = path.name.removesuffix("_client.json")
        host = whole["token_return"]["host_us"]
        for name, us in (a if label.startswith(A) else b).items():
            host[name]["mean"] = us * (1 + 0.01 * (number % 3))
        whole["graph_launches"] = dict.fromkeys(("0", "1"), 47 * label.startswith(A))
        (run / "logs" / f"{label}_analysis.json").write_text(json.dumps(whole))
    changed(run / "logs" / "run.json", lambda value: value.update(profile=True))
    return run


ISSUE = {"send": 100_000, "idle": 70_000, "overlapped_with_graph": 30_000}
WITHOUT = {"send": 3_000, "idle": 2_500, "overlapped_with_graph": 0}
OWN_GRAPH = {"send": 21_700, "idle": 550, "overlapped_with_graph": 21_100}
EAGER = {"send": 5_200, "idle": 520, "overlapped_with_graph": 0}


def tpot(run: Path, factor: float) -> Path:
    """TPOT of arm A by so much longer than it was."""
    for path in (run / "logs").glob(f"{A}*_client.json"):
        changed(path, lambda value: value["summary"].update(
            mean_tpot_ms=value["summary"]["mean_tpot_ms"] * factor))  # fmt: skip
    return run


@pytest.mark.parametrize(
    ("waits", "factor", "headline", "said"),
    [
        ((ISSUE, WITHOUT), 1.3, "REPRODUCED", ["yes", "yes", "yes"]),
        ((ISSUE, WITHOUT), 1.0, "PARTLY", ["yes", "yes", "no"]),
        # waiting for the own graph is longer, and never idle
        ((OWN_GRAPH, EAGER), 1.0, "PARTLY", ["yes", "no", "no"]),
        ((EAGER, EAGER), 1.0, "NOT REPRODUCED", ["no", "no", "no"]),
    ],
)
def test_the_three_findings_make_the_headline(tmp_path, waits, factor, headline, said):
    found = verdict(tpot(four_rounds_of(tmp_path / "r", *waits), factor))
    assert [each.answer for each in found.findings] == said
    assert found.headline == headline
    assert found.findings[0].source == "profile"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"mode": "cpu"}, "rehearsal"),
        ({"mode": "one_gpu"}, "shared a GPU"),
        ({"nsys": True}, "nsys"),
        ({"engine": "probe"}, "ring without sglang"),
        ({"pp_size": 1}, "One pipeline rank"),
    ],
)
def test_a_run_says_at_most_what_it_is_evidence_of(tmp_path, change, says):
    run = four_rounds_of(tmp_path / "r", ISSUE, WITHOUT)

    def made_so(value):
        value.update({key: new for key, new in change.items() if key in value})
        for each in value["launches"]:
            each.update({key: new for key, new in change.items() if key in each})
            each["args"] += ["--send", "blocking"]  # as the probe is called

    changed(run / "logs" / "run.json", made_so)
    found = verdict(run)
    assert found.headline == "CANNOT TELL" and says in found.text
    assert set(answers(found).values()) == {"cannot tell"}
    assert found.pairs[0].primary.word == "DIFFERENT"  # that A and B differ is said all the same


def test_arms_that_are_not_what_they_claim_answer_nothing(tmp_path):
    run = four_rounds_of(tmp_path / "r", ISSUE, WITHOUT)
    path = run / "logs" / f"{B}_r2_launch.json"
    changed(path, lambda value: value["graph_state"].update(with_graph=5))
    found = verdict(run)
    assert found.headline == "CANNOT TELL"
    assert f"{B}_r2 is not what it claims" in found.text


def test_traces_that_are_another_cases_answer_nothing(tmp_path):
    """Put into the folder of the other case: a report is of the traces that lie there."""
    run = report_runs.traced(tmp_path / "r")
    folders = [run / "trace" / label for label in (A, B)]
    folders[0].rename(run / "trace" / "aside")
    folders[1].rename(folders[0])
    (run / "trace" / "aside").rename(folders[1])
    source.read(run)  # makes the analyses
    found = verdict(run)
    assert f"{A} is not what it claims: graphs on, but no cudaGraphLaunch on rank" in found.text
    assert any(f"{B} is not what it claims: graphs off, but the traces" in e for e in found.limits)


def test_traces_of_another_number_of_ranks_are_no_figures_of_the_launch(tmp_path):
    run = report_runs.traced(tmp_path / "r")
    source.read(run)  # makes the analyses
    logs = run / "logs"
    before = summary_record.from_json(run_summary.summarise(logs, run_record.load(logs)))
    changed(logs / f"{A}_analysis.json", lambda value: value.update(pp_size=4))
    after = summary_record.from_json(run_summary.summarise(logs, run_record.load(logs)))
    of_a, of_b = (next(e for e in after.launches if e.label == label) for label in (A, B))
    assert all(each.waits_ms for each in before.launches) and of_b.waits_ms
    assert not of_a.waits_ms
    assert any("traces are of PP 4 x TP 1, the launch of PP 2" in each for each in of_a.warnings)


def test_traces_of_other_sends_than_the_releases_are_named(tmp_path):
    run = report_runs.traced(tmp_path / "r")
    source.read(run)  # makes the analyses
    logs = run / "logs"
    changed(logs / f"{A}_analysis.json", lambda value: value.update(sends="asynchronous"))
    made = summary_record.from_json(run_summary.summarise(logs, run_record.load(logs)))
    warnings = {each.label: " ".join(each.warnings) for each in made.launches}
    assert "other sends than sglang 0.5.2 makes (asynchronous, not on_device)" in warnings[A]
    assert "other sends" not in warnings[B]


def with_gpu_fault(run: Path, label: str) -> None:
    """Let a GPU count an uncorrected error in a launch."""
    rows = [
        {"uuid": "GPU-0", "index": 0, "ecc.errors.uncorrected.volatile.total": n} for n in (0, 1)
    ]
    counters = {"before": {"gpus": rows[:1]}, "after": {"gpus": rows[1:]}}
    changed(
        run / "logs" / f"{label}_launch.json", lambda value: value.update(gpu_counters=counters)
    )


def test_a_launch_whose_gpu_failed_is_left_out_and_named(tmp_path):
    run = report_runs.series(tmp_path / "r")
    with_gpu_fault(run, f"{A}_r3")
    found = verdict(run)
    (left,) = found.pairs[0].left_out
    assert left.label == f"{A}_r3" and "ECC" in left.why
    assert found.pairs[0].alpha == 0.01 and "3 of 4 rounds" in found.pairs[0].alpha_why
    assert f"{A}_r3 is left out" in "\n".join(outcome.lines(found))


def test_means_are_of_the_launches_that_the_ratio_beside_them_is_of(tmp_path):
    run = report_runs.series(tmp_path / "r")
    with_gpu_fault(run, f"{A}_r2")
    slow = run / "logs" / f"{A}_r2_client.json"
    changed(slow, lambda value: value["summary"].update(mean_tpot_ms=99.0))
    primary = verdict(run).pairs[0].primary
    table = page_tables.arms(source.read(run))
    assert table and primary.mean_a and primary.mean_a < 48
    (row,) = [each for each in table.rows if each[0].startswith("TPOT mean")]
    assert float(row[2]) == pytest.approx(primary.mean_a, abs=0.01)
    assert f"Not in the means: {A}_r2" in table.note
    assert "means over 3 to 4 launches" in table.note
    row = next(one for one in two_runs.rows(source.read(run), source.read(run), "graphs_on"))
    assert (row.first.launches, row.first.high < 48) == (3, True)


def test_power_capping_leaves_nothing_out(tmp_path):
    run = report_runs.series(tmp_path / "r")
    name = "clocks_event_reasons_counters.sw_power_cap"
    rows = [{"uuid": "GPU-0", "index": 0, name: n} for n in (0, 9e6)]
    counters = {"before": {"gpus": rows[:1]}, "after": {"gpus": rows[1:]}}
    changed(run / "logs" / f"{A}_r3_launch.json", lambda value: value.update(gpu_counters=counters))
    found = verdict(run)
    assert found.pairs[0].left_out == [] and found.pairs[0].primary.word == "DIFFERENT"


def renamed(run: Path, names: dict[str, str]) -> Path:
    def change(value):
        for each in value["launches"]:
            each["case"] = names[each["case"]]

    changed(run / "logs" / "run.json", change)
    return run


def graphs_in_all(run: Path) -> None:
    """Let every launch of a run be one that is to have graphs."""

    def change(value):
        for each in value["launches"]:
            each["expects_graphs"] = True

    changed(run / "logs" / "run.json", change)


def test_other_cases_are_asked_only_whether_they_differ(tmp_path):
    run = report_runs.series(tmp_path / "r")

    graphs_in_all(run)
    found = verdict(renamed(run, {"graphs_on": "one", "graphs_off": "two"}))
    assert (found.headline, found.findings, found.ours_ms) == ("NOT ASKED", [], {})
    assert "one / two: 0.949" in found.text and "DIFFERENT, one is better" in found.text
    assert not any("10865" in line for line in outcome.lines(found))


def test_two_cases_of_other_names_ask_the_question_by_their_graphs(tmp_path):
    run = renamed(report_runs.series(tmp_path / "r"), {"graphs_on": "one", "graphs_off": "two"})
    assert verdict(run).headline == "CANNOT TELL"


def test_one_case_alone_has_nothing_to_compare(tmp_path):
    run = report_runs.series(tmp_path / "r")

    def only_a(value):
        value["launches"] = [each for each in value["launches"] if each["case"] == "graphs_on"]

    changed(run / "logs" / "run.json", only_a)
    found = verdict(run)
    assert (found.headline, found.pairs) == ("NOT ASKED", [])
    assert outcome.lines(found) == ["One case: nothing to compare."]


def test_a_case_with_asynchronous_sends_is_the_second_leg_of_cost(tmp_path):
    run = report_runs.series(tmp_path / "r")
    plan = json.loads((run / "logs" / "run.json").read_text())
    more = []
    for each in plan["launches"]:
        more.append(each)
        if each["case"] == "graphs_on":
            label = each["label"].replace(A, "CASE_C_comm_overlap")
            more.append({**each, "case": "comm_overlap", "label": label,
                         "env": {**each["env"], "SGLANG_PP_COMM_OVERLAP": "1"}})  # fmt: skip
            for kind in ("client", "launch"):
                text = (run / "logs" / f"{each['label']}_{kind}.json").read_text()
                (run / "logs" / f"{label}_{kind}.json").write_text(text)
    plan["launches"] = more
    (run / "logs" / "run.json").write_text(json.dumps(plan))
    for path in (run / "logs").glob("CASE_C*_client.json"):
        changed(path, lambda value: value["summary"].update(
            mean_tpot_ms=value["summary"]["mean_tpot_ms"] * 0.9))  # fmt: skip
    found = verdict(run)
    sends = {each.case for each in run_record.load(run / "logs").launches}
    assert sends == {"graphs_on", "graphs_off", "comm_overlap"}
    cost = finding(found, "cost")
    assert cost.answer == "yes", cost.text
    assert "against asynchronous sends: worse" in cost.text


def test_a_verdict_without_scipy_is_none_and_the_rest_is_there(tmp_path, monkeypatch):
    run = report_runs.series(tmp_path / "r")
    monkeypatch.setattr(run_summary, "_verdict", lambda *_: None)
    made = run_summary.summarise(run / "logs", run_record.load(run / "logs"))
    assert made["verdict"] is None and len(made["launches"]) == 8
    assert summary_step.said(made)


def as_aa(run: Path, **changes) -> Path:
    """The series as an A/A run, all launches with the TPOT of arm A."""
    names = {"graphs_on": "graphs_on_aa1", "graphs_off": "graphs_on_aa2"}
    changed(run / "logs" / "run.json", lambda value: value.update(aa="graphs_on", **changes))
    for number, path in enumerate(sorted((run / "logs").glob("*_client.json"))):
        changed(path, lambda value, n=number: value["summary"].update(mean_tpot_ms=50 + 0.3 * n))

    graphs_in_all(run)
    return renamed(run, names)


def test_a_case_against_itself_is_the_noise_floor(tmp_path, monkeypatch):
    run = as_aa(report_runs.series(tmp_path / "r"))
    monkeypatch.setattr(run_record.Plan, "aa", "graphs_on", raising=False)
    found = verdict(run)
    estimate = found.pairs[0].primary.estimate
    assert found.headline == "NOT ASKED"
    assert found.floor == pytest.approx(max(estimate.high, 1 / estimate.low) - 1)
    assert "Noise floor" in "\n".join(outcome.lines(found))
    # of three of its four rounds the words may be given, but the interval is wide for want of one
    for path in (run / "logs").glob("*_r4_launch.json"):
        changed(path, lambda value: value.update(status="failed", reason="the server died"))
    early = verdict(run)
    assert early.pairs[0].alpha == 0.01 and early.floor is None


@pytest.mark.parametrize(
    ("earlier", "margin"),
    [
        ({"began": "2026-01-01 00:00:00"}, 0.08),
        ({"began": "2999-01-01 00:00:00"}, 0.05),  # not before this run
        ({"began": "2026-01-01 00:00:00", "batch": 7}, 0.05),  # another load
        ({"began": "2026-01-01 00:00:00", "machine": {"host": "other"}}, 0.05),
        ({"began": "2026-01-01 00:00:00", "aa": ""}, 0.05),  # no A/A run
    ],
)
def test_an_earlier_floor_widens_the_margin_where_the_run_was_alike(tmp_path, earlier, margin):
    run = report_runs.series(tmp_path / "r")
    kept = run / "previous" / "x" / "logs"
    kept.mkdir(parents=True)
    plan = json.loads((run / "logs" / "run.json").read_text())
    plan = {"machine": {}, **plan, "aa": "graphs_on", **earlier}
    (kept / "run.json").write_text(json.dumps(plan))
    (kept / "summary.json").write_text(json.dumps({"verdict": {"floor": 0.08}}))
    found = verdict(run)
    assert found.pairs[0].primary.margin == margin
    assert (found.floor == 0.08) == (margin == 0.08)


def test_a_wide_noise_floor_is_no_answer_to_whether_graphs_cost_something(tmp_path):
    """TPOT 2 to 13 % worse, of launches that spread: within an A/A run's floor of 40 %, and yet it
    may be worse by more than was asked for."""
    run = report_runs.series(tmp_path / "r")
    ms = {A: (52.0, 60.0, 53.0, 58.0), B: (51.0, 52.0, 50.0, 53.0)}
    for case, values in ms.items():
        for number, value in enumerate(values, 1):
            name = case + (f"_r{number}" if number > 1 else "")
            path = run / "logs" / f"{name}_client.json"
            changed(path, lambda each, v=value: each["summary"].update(mean_tpot_ms=v))
    kept = run / "previous" / "x" / "logs"
    kept.mkdir(parents=True)
    plan = json.loads((run / "logs" / "run.json").read_text())
    plan = {"machine": {}, **plan, "aa": "graphs_on", "began": "2026-01-01 00:00:00"}
    (kept / "run.json").write_text(json.dumps(plan))
    (kept / "summary.json").write_text(json.dumps({"verdict": {"floor": 0.4}}))
    found = verdict(run)
    primary = found.pairs[0].primary
    assert primary.word == "NO DIFFERENCE LARGER THAN" and primary.margin == 0.4
    assert primary.estimate and primary.estimate.high > 1.05
    assert answers(found)["cost"] == "cannot tell"
    assert "one of 5% would matter" in finding(found, "cost").text


def test_of_many_pairs_one_that_differs_by_chance_is_borderline():
    """Launches that differ by what is called DIFFERENT in one pair, and in one of seven is not."""
    metrics = (Metric("mean_tpot_ms", "primary"), Metric("output_throughput", "secondary"))

    def pairs(others: str) -> list[Pair]:
        ms = {"A": [50.0, 50.6, 50.1, 50.5], "B": [51.4, 52.6, 51.2, 52.4]}
        order = [(case, at) for at in range(4) for case in ("A" + others)[:: 1 - 2 * (at % 2)]]
        samples = [
            Sample(f"{case}{at}", case, at + 1, dict.fromkeys(METRICS, ms.get(case, ms["A"])[at]))
            for case, at in order
        ]
        return [pair("A", each, samples, metrics, Asked([4])) for each in others]

    METRICS = [each.name for each in metrics]
    alone, many = pairs("B"), pairs("BCDEFGH")
    correct_over_pairs(alone)
    assert alone[0].primary.word == "DIFFERENT" and alone[0].primary.p_holm is None
    before = many[0].primary
    assert before.word == "DIFFERENT" and before.estimate and 0.05 / 7 < before.estimate.p < 0.05
    correct_over_pairs(many)
    assert before.word == "BORDERLINE"
    assert before.why == "not after Holm's correction over 7 pairs of cases"
    assert before.p_holm == pytest.approx(7 * before.estimate.p)
