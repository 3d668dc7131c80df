"""--sends both: graphs on and off, as released and blocking, in one run; the interaction."""

from __future__ import annotations

import html
import json
import math
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")

import report_runs
from plan_harness import plan_of
from release_sources import release_of

from repro_pp_graphs import run_record
from repro_pp_graphs.report import source, summary_step
from repro_pp_graphs.report.charts import all_charts
from repro_pp_graphs.report.page import content, html_page, markdown
from repro_pp_graphs.report.summary import outcome, run_summary, summary_record
from repro_pp_graphs.report.tables import launch_table
from repro_pp_graphs.run.plan import options as run_options
from repro_pp_graphs.run.plan import order
from repro_pp_graphs.run.plan.refusal import PlanError
from repro_pp_graphs.server.release import pp_loop
from repro_pp_graphs.stats.compare import Asked, Sample
from repro_pp_graphs.stats.drift import Untestable, factorial, fit, satterthwaite
from repro_pp_graphs.stats.interaction import Cells, interaction

ROOT = Path(__file__).resolve().parents[1]
CASES = ("graphs_on", "graphs_off", "sync_send", "sync_send_no_graphs")
TEXTS = {case: (ROOT / f"server_args_{case}.txt").read_text(encoding="utf-8") for case in CASES}
CELLS = Cells(*CASES)
TPOT = "mean_tpot_ms"
SERIES = report_runs.SERIES


# the option


def parse(*users: str) -> run_options.Options:
    own = ["--root", "/root", "--out", "/results", "--python", "/p"]
    return run_options.parse([*own, "--", *users])


def test_it_names_the_cases():
    assert parse().cases == ["graphs_on", "graphs_off"]
    assert parse("--sends", "as_released").cases == ["graphs_on", "graphs_off"]
    assert parse("--sends", "blocking").cases == ["sync_send", "sync_send_no_graphs"]
    assert tuple(parse("--sends", "both").cases) == CASES


@pytest.mark.parametrize(
    ("users", "says"),
    [
        (["--sends", "none"], "none: one of as_released, blocking, both"),
        (["--sends", "both", "--cases", "graphs_on"], "leave it or --cases out"),
        (["--sends", "both", "--aa"], "leave one of the two out"),
        (["--sends", "both", "--engine", "probe"], "probe --send blocking,async"),
        (["--sends", "both", "--attach", "http://127.0.0.1:1"], "--sends has no effect"),
    ],
)
def test_what_does_not_go_with_it_is_said(capsys, users, says):
    with pytest.raises(SystemExit) as ended:
        parse(*users)
    assert ended.value.code == 2
    assert says in " ".join(capsys.readouterr().err.split())


def test_four_cases_make_blocks_of_four_rounds(tmp_path):
    release_of(tmp_path, "0.5.21")
    plan = plan_of(tmp_path, "--sends", "both", "--rounds", "3", "--cpu", count=0, **TEXTS)
    assert plan.rounds == 4 and len(plan.launches) == 16
    for place in range(4):
        assert {launch.case for launch in plan.launches[place::4]} == set(CASES)


@pytest.mark.parametrize(
    ("version", "says"),
    [("0.5.2", "are blocking as released"), ("0.5.6.post2", "are synchronous as released")],
)
@pytest.mark.parametrize("how", ["blocking", "both"])
def test_a_release_that_blocks_already_is_refused_with_the_reason(tmp_path, version, says, how):
    (release_of(tmp_path, "0.5.7") / pp_loop.LOOP_FILE).unlink()
    with pytest.raises(PlanError) as refused:
        plan_of(tmp_path, "--sends", how, release=version, **TEXTS)
    text = str(refused.value)
    assert text.startswith(f"--sends {how}: PP sends of sglang {version} {says}")
    assert "leave --sends out, or use 0.5.7 or newer" in text


# the statistics


def drawn(seed: int, effect: float = 0.0, spreads: tuple[float, ...] = (0.01,) * 4) -> list[Sample]:
    """Four rounds in balanced order with a drift of 5 %; `effect`: log of the interaction."""
    noise = np.random.default_rng(seed)
    turns = order.turns(order.arms_of(list(CASES), False), 4, seed, False)
    found = []
    for at, turn in enumerate(turns):
        cell = CASES.index(turn.arm.name)
        logs = [0.0, 0.05, 0.2 + effect, 0.25][cell] + 0.05 * at / len(turns)
        value = 50 * math.exp(logs + spreads[cell] * noise.standard_normal())
        found.append(
            Sample(f"{turn.arm.name}{turn.suffix}", turn.arm.name, turn.round, {TPOT: value})
        )
    return found


def test_the_interaction_is_the_difference_of_the_log_ratios():
    found = interaction(CELLS, drawn(1, 0.10, (1e-9,) * 4), TPOT, Asked([4]))
    assert found.estimate is not None
    assert found.estimate.value == pytest.approx(math.exp(0.10), abs=1e-6)
    assert found.ratio_blocking / found.ratio == pytest.approx(math.exp(0.10), rel=0.02)
    assert found.word == "DIFFERENT" and len(found.by_round) == 4


@pytest.mark.parametrize("missing", ["graphs_on_r1", "graphs_off_r4", "sync_send_r4", None])
def test_the_two_ratios_are_those_of_the_interaction_also_where_a_launch_is_missing(missing):
    """With a drift of 2 % a launch: means of unlike rounds would have it in them."""
    logs = dict(zip(CASES, (0.0, 0.05, 0.30, 0.25), strict=True))
    kept = [each for each in drawn(1) if f"{each.case}_r{each.round}" != missing]
    samples = [
        each._replace(values={TPOT: math.exp(logs[each.case] + 0.02 * at)})
        for at, each in enumerate(kept)
    ]
    found = interaction(CELLS, samples, TPOT, Asked([4]))
    assert found.ratio == pytest.approx(math.exp(-0.05))
    assert found.ratio_blocking == pytest.approx(math.exp(0.05))
    assert found.estimate is not None
    assert found.ratio_blocking / found.ratio == pytest.approx(found.estimate.value)


def test_the_model_is_least_squares_of_graphs_sends_both_and_the_index():
    samples = drawn(3, 0.05)
    logs = np.log([s.values[TPOT] for s in samples])
    on = np.array([s.case in ("graphs_on", "sync_send") for s in samples]) - 0.5
    blocking = np.array([s.case.startswith("sync_send") for s in samples]) - 0.5
    index = np.arange(16) - 7.5
    columns = np.column_stack([np.ones(16), on, blocking, on * blocking, index])
    wanted, *_ = np.linalg.lstsq(columns, logs, rcond=None)
    plan = factorial(list(on > 0), list(blocking > 0))
    assert float(fit(plan, logs).value[0]) == pytest.approx(wanted[3])
    assert plan.df == 11


@pytest.mark.slow
@pytest.mark.parametrize(
    "spreads", [(0.013,) * 4, (0.01, 0.03, 0.01, 0.03), (0.005, 0.005, 0.005, 0.04)]
)
def test_equal_ratios_are_rarely_called_apart_and_the_interval_holds_the_truth(spreads):
    missed = words = 0
    for seed in range(400):
        found = interaction(CELLS, drawn(seed, 0.0, spreads), TPOT, Asked([4]))
        assert found.estimate is not None
        missed += not found.estimate.low <= 1 <= found.estimate.high
        words += found.word == "DIFFERENT"
    # 5 % of 400 is 20, with a standard deviation of 4.4
    assert missed <= 34 and words <= missed


def test_a_real_interaction_of_6_percent_is_seen():
    words = [interaction(CELLS, drawn(seed, 0.06), TPOT, Asked([4])).word for seed in range(60)]
    assert words.count("DIFFERENT") >= 50


def test_the_variance_of_four_arms_is_unbiased_and_its_df_are_right():
    turns = order.turns(order.arms_of(list(CASES), False), 4, 7, False)
    cells = np.array([CASES.index(turn.arm.name) for turn in turns])
    plan = factorial(list(cells % 2 == 0), list(cells >= 2))
    spreads = np.array([0.01, 0.02, 0.03, 0.015])[[2, 3, 0, 1]]  # arms: blocking on, off, on, off
    noise = np.random.default_rng(1).standard_normal((40_000, 16)) * (plan.arms @ spreads)
    variances = np.linalg.solve(plan.mixing, ((noise @ plan.residual) ** 2 @ plan.arms).T).T
    assert variances.mean(axis=0) == pytest.approx(spreads**2, rel=0.05)
    of_contrast = variances @ plan.shares
    df = 2 * of_contrast.mean() ** 2 / of_contrast.var()
    assert float(satterthwaite(plan, (spreads**2)[None])[0]) == pytest.approx(df, rel=0.05)


@pytest.mark.parametrize(
    ("keep", "says"),
    [
        (lambda s: s.case != "sync_send", "not measured in sync_send"),
        (lambda s: s.round == 1, "one launch a case: too few to test"),
        (lambda s: s.round < 3, "2 of 4 rounds are measured"),
    ],
)
def test_what_cannot_be_told_says_why(keep, says):
    found = interaction(CELLS, [s for s in drawn(1) if keep(s)], TPOT, Asked([4]))
    assert found.word == "CANNOT TELL" and says in found.why


def test_one_case_after_the_other_is_refused():
    on, blocking = [True, False] * 8, [False] * 8 + [True] * 8
    assert factorial(on, blocking).df == 11  # the interaction is within both halves
    with pytest.raises(Untestable, match="not all of the four cases"):
        factorial([True, False] * 4, [True] * 8)
    with pytest.raises(Untestable, match="drift cannot be told"):
        # the interaction's halves one after the other
        factorial([True] * 4 + [False] * 4 + [True] * 4 + [False] * 4,
                  [True] * 4 + [False] * 4 + [False] * 4 + [True] * 4)  # fmt: skip


# a run on disk, and what is said of it


LABELS = {
    "graphs_on": "CASE_A_decode_graphs",
    "graphs_off": "CASE_B_no_graphs",
    "sync_send": "CASE_E_sync_send",
    "sync_send_no_graphs": "CASE_G_sync_send_no_graphs",
}
FACTORS = {"graphs_on": 1.0, "graphs_off": 1.05, "sync_send": 1.20, "sync_send_no_graphs": 1.15}


def series(to: Path, mode: str = "gpu") -> Path:
    """The real series of 0.5.2 with two cases more, its TPOT times FACTORS, as of 0.5.16."""
    report_runs.series(to)
    logs = to / "logs"
    plan = json.loads((logs / "run.json").read_text(encoding="utf-8"))
    template = {each["round"]: each for each in plan["launches"] if each["case"] == "graphs_on"}
    launches = []
    for turn in order.turns(order.arms_of(list(CASES), False), 4, 11, False):
        label = LABELS[turn.arm.name] + (f"_r{turn.round}" if turn.round > 1 else "")
        before = template[turn.round]
        graphs = turn.arm.name in ("graphs_on", "sync_send")
        shim = {"REPRO_SHIMS": "sync_send"} if turn.arm.name.startswith("sync_send") else {}
        launches.append({
            **before, "label": label, "case": turn.arm.name, "expects_graphs": graphs,
            "env": shim, "sglang_version": "0.5.16", "block": turn.block,
            "args": before["args"] + ([] if graphs else ["--disable-cuda-graph"]),
        })  # fmt: skip
    for each in launches:
        number = each["round"]
        old = f"CASE_A_decode_graphs{f'_r{number}' if number > 1 else ''}"
        facts = json.loads((SERIES / f"{old}_launch.json").read_text(encoding="utf-8"))
        facts.pop("client_sha256", None)
        facts.setdefault("server_info", {})["version"] = "0.5.16"
        client = json.loads((SERIES / f"{old}_client.json").read_text(encoding="utf-8"))
        client["summary"][TPOT] *= FACTORS[each["case"]]
        (logs / f"{each['label']}_launch.json").write_text(json.dumps(facts))
        (logs / f"{each['label']}_client.json").write_text(json.dumps(client))
    plan.update(launches=launches, mode=mode)
    (logs / "run.json").write_text(json.dumps(plan))
    return to


def summarised(run: Path) -> dict:
    logs = run / "logs"
    made = json.loads(json.dumps(run_summary.summarise(logs, run_record.load(logs))))
    report_runs.of_summary().validate(made)
    return made


def test_the_interaction_stands_in_every_report(tmp_path):
    run = series(tmp_path / "r")
    made = summarised(run)
    (found,) = made["verdict"]["interactions"]
    assert found["cases"] == list(CASES) and found["word"] == "DIFFERENT"
    # 1.20 / 1.15 against 1 / 1.05, in each round the same launch times a factor
    assert found["estimate"]["value"] == pytest.approx(1.20 / 1.15 * 1.05, rel=0.02)
    pairs = {(each["a"], each["b"]) for each in made["verdict"]["pairs"]}
    # no two that differ in graphs and in sends
    by_sends = {("graphs_on", "sync_send"), ("graphs_off", "sync_send_no_graphs")}
    assert pairs == by_sends | {("graphs_on", "graphs_off"), ("sync_send", "sync_send_no_graphs")}
    printed = " ".join(outcome.lines(summary_record.from_json(made).verdict))
    assert "graphs x sends: graphs on / off is 0.952 as released and 1.043 with blocking" in printed
    assert "these two ratios, the second by the first (the interaction): " in printed
    lines = launch_table.lines(made)
    assert max(map(len, lines)) <= 80
    assert any("TPOT mean ms" in line and line.endswith("*") for line in lines[-2:])
    said = content.content(source.read(run, made))
    assert said.crossed is not None and said.crossed.rows[-1][-1].endswith("different")
    assert said.crossed.rows[-1][0] == "interaction: blocking / as released"
    assert said.crossed.note.startswith("Interaction: on / off with blocking sends by on / off as ")
    assert "## Graphs by sends" in markdown.text_of(said)


def test_a_rehearsal_shows_no_such_ratio(tmp_path):
    run = series(tmp_path / "r", mode="cpu")
    made = summarised(run)
    assert "blocking / released" not in "\n".join(launch_table.lines(made))
    assert content.content(source.read(run, made)).crossed is None
    printed = " ".join(outcome.lines(summary_record.from_json(made).verdict))
    assert "(This run is no evidence of it.)" in printed


def test_two_cases_have_no_interaction(tmp_path):
    made = summarised(report_runs.series(tmp_path / "r"))
    assert made["verdict"]["interactions"] == []


# what is unusual of a verdict stands in every report


def cut_short(run: Path) -> Path:
    """The fourth round never measured, and one launch of the third unlike the others."""
    for path in (run / "logs").glob("*_r4_*"):
        path.unlink()
    unlike = run / "logs" / "CASE_E_sync_send_r3_client.json"
    report_runs.changed(unlike, lambda value: value["summary"].update({TPOT: 40.0}))
    return run


def told(run: Path) -> dict[str, str]:
    """By place what a run says: on the terminal, in report.md, in report.html."""
    made = summarised(run)
    found = source.read(run, made)
    said = content.content(found)
    page = html_page.text_of(said, found.cases, all_charts.figures(found))
    return {
        "terminal": " ".join(" ".join(summary_step.said(made)).split()),
        "report.md": markdown.text_of(said).replace("\\", ""),
        "report.html": html.unescape(page),
    }


HEADING = (
    "(graphs_on against graphs_off, sends as released; 3 of 4 rounds are measured: an early look, "
    "level 0.01)."
)


def test_the_heading_names_the_pair_and_the_early_look(tmp_path):
    for place, text in told(cut_short(series(tmp_path / "r"))).items():
        assert HEADING in text, place
    whole = told(series(tmp_path / "whole"))
    for place, text in whole.items():
        assert "(graphs_on against graphs_off, sends as released)." in text, place
        assert "early look" not in text, place


def test_cases_that_ask_another_question_name_the_early_look_too(tmp_path):
    run = report_runs.series(tmp_path / "r")

    def others(plan):
        for each in plan["launches"]:
            each.update(case=each["case"].replace("graphs_off", "lof"), expects_graphs=True)

    report_runs.changed(run / "logs" / "run.json", others)
    for path in (run / "logs").glob("*_r4_*"):
        path.unlink()
    for place, text in told(run).items():
        assert "3 of 4 rounds are measured: an early look, level 0.01." in text, place


def test_a_launch_unlike_the_others_is_marked_and_the_ratio_without_it_stands_beside(tmp_path):
    found = told(cut_short(series(tmp_path / "r")))
    for place in ("report.md", "report.html"):
        text = found[place]
        assert "cannot tell, one unlike" in text, place
        assert "sync_send / sync_send_no_graphs: CASE_E_sync_send_r3 (without: 1.0" in text, place
    assert "An empty circle: a launch unlike the others" in found["report.html"]
    assert "40^ " in found["terminal"] and "^ unlike the others" in found["terminal"]
    others = told(series(tmp_path / "whole"))
    assert "unlike" not in "".join(others.values()).replace("host_unlike", "")


def test_a_spread_that_was_estimated_as_0_is_said(tmp_path):
    run = report_runs.series(tmp_path / "r")
    for label, value in (("A", 50.0), ("B", 60.0)):
        name = report_runs.A if label == "A" else report_runs.B
        for number, by in (("", 0), ("_r2", -2), ("_r3", 3), ("_r4", 1)):
            tpot = {TPOT: value + (by if label == "A" else 0)}
            path = run / "logs" / f"{name}{number}_client.json"
            report_runs.changed(path, lambda one, tpot=tpot: one["summary"].update(tpot))
    (first, *_) = summarised(run)["verdict"]["pairs"][0]["comparisons"]
    assert first["estimate"]["spread_b"] < 1e-8 < first["estimate"]["spread_a"]
    found = told(run)
    assert "spread of graphs_off estimated as 0" in found["terminal"]
    for place in ("report.md", "report.html"):
        assert "different, spread 0" in found[place] and "spread 0: that of one" in found[place]
    others = told(report_runs.series(tmp_path / "real"))
    assert "estimated as 0" not in others["terminal"]
