"""What run_repro.sh leaves and prints, driven against a stand-in sglang."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_sglang.harness import CHECKOUT, Done, Harness

pytestmark = pytest.mark.launches

A, B = "CASE_A_decode_graphs", "CASE_B_no_graphs"
TWO_GPUS = [(81559, 3)] * 2
SMALL = ("--pp-size", "2", "--dummy-weights", "--layers", "2")


@pytest.fixture(scope="module")
def ab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Harness, Done, Done]]:
    """One A/B on two GPUs with sglang 0.5.2, which names no PP rank in its traces; its dry run."""
    root = tmp_path_factory.mktemp("ab")
    with Harness(root / "r", version="0.5.2", gpus=TWO_GPUS) as made:
        shutil.copy2(CHECKOUT / "collect_env.sh", made.root)
        planned = made.run(*SMALL, "--dry-run")
        assert made.files() == set()
        yield made, made.run(*SMALL), planned


def table(done: Done) -> list[str]:
    """The lines of the table, from the blank line above it to the one below."""
    lines = done.out.splitlines()
    (at,) = (number for number, line in enumerate(lines) if line.startswith("TPOT mean ms"))
    above = max(number for number in range(at) if not lines[number])
    return lines[above + 1 : lines.index("", at)]


def test_an_ab_run_leaves_the_contracts_files_and_exits_0(ab: tuple[Harness, Done, Done]):
    harness, done, _ = ab
    assert done.status == 0, done.lines
    wanted = {"logs/env.txt", "logs/summary.json", "trace/A_vs_B_chrome_trace.json.gz"}
    for label in (A, B):
        wanted |= {f"logs/{label}_{name}" for name in ("server.log", "client.log", "client.json")}
        wanted |= {f"trace/{label}_chrome_trace.json"}
    assert wanted <= harness.files()
    assert harness.left_over() == []


def test_results_are_readable_by_their_owner_alone(ab: tuple[Harness, Done, Done]):
    harness, _, _ = ab
    paths = [harness.out, *harness.out.rglob("*")]
    assert len(paths) > 20
    open_to_others = [str(path) for path in paths if path.stat().st_mode & 0o077]
    assert open_to_others == []


def test_every_rank_leaves_its_trace_where_the_release_names_no_rank(
    ab: tuple[Harness, Done, Done],
):
    harness, _, _ = ab
    for label in (A, B):
        names = sorted(path.name for path in (harness.out / "trace" / label).iterdir())
        assert [name.partition("-TP-")[2] for name in names] == [
            "0-PP-0.trace.json.gz",
            "0-PP-1.trace.json.gz",
        ]


def test_the_merged_trace_is_json_with_every_rank(ab: tuple[Harness, Done, Done]):
    harness, _, _ = ab
    merged = json.loads((harness.out / "trace" / f"{A}_chrome_trace.json").read_text())
    events = merged["traceEvents"] if isinstance(merged, dict) else merged
    launches = [event for event in events if event.get("name") == "cudaGraphLaunch"]
    assert len(launches) == 4
    assert len({event["pid"] for event in launches}) == 2


def test_the_summary_says_what_each_arm_ran(ab: tuple[Harness, Done, Done]):
    harness, _, _ = ab
    summary = harness.summary()
    assert (summary["mode"], summary["complete"]) == ("gpu", True)
    a, b = summary["launches"]
    assert (a["label"], a["status"], b["label"], b["status"]) == (A, "ok", B, "ok")
    assert a["graph_state"]["launches"] == {"0": 2, "1": 2}
    assert b["graph_state"]["launches"] == {"0": 0, "1": 0}
    assert a["graph_state"]["with_graph"] == a["graph_state"]["decode_lines"] > 0
    assert b["graph_state"]["with_graph"] == 0 < b["graph_state"]["decode_lines"]
    assert a["resolved"]["version"] == "0.5.2"
    assert a["sends"] == "blocking"
    assert a["metrics"]["completed"] > 0 and a["metrics"]["failed"] == 0
    assert a["metrics"]["median_ttft_ms"] > 0  # from one token to the next it may be 0


@pytest.mark.parametrize(
    ("schema", "names"),
    [("run", ["run.json"]), ("launch", [f"{A}_launch.json", f"{B}_launch.json"])],
)
def test_plan_and_records_are_what_their_schemas_say(
    schema: str, names: list[str], ab: tuple[Harness, Done, Done]
):
    validator = pytest.importorskip("jsonschema").Draft202012Validator
    form = json.loads((CHECKOUT / f"docs/schemas/{schema}.schema.json").read_text())
    for each in form["$defs"].values():
        each["additionalProperties"] = False
    for name in names:
        found = json.loads((ab[0].logs / name).read_text())
        validator(form).validate(found)
        assert None not in found.values() or schema == "run", "what is not known is absent"


def test_the_table_stands_side_by_side_within_80_columns(ab: tuple[Harness, Done, Done]):
    _, done, _ = ab
    rows = table(done)
    assert rows[0].split() == ["graphs_on", "graphs_off", "better"]
    assert {"TTFT median ms", "output tokens/s"} <= {row[:20].strip() for row in rows}
    assert max(map(len, rows)) <= 80


def test_it_prints_where_the_results_are_and_what_to_do_with_them(ab: tuple[Harness, Done, Done]):
    harness, done, _ = ab
    for path in (harness.logs, harness.out / "trace" / f"{A}_chrome_trace.json"):
        assert str(path) in done.out
    assert "ui.perfetto.dev" in done.out


def test_what_the_server_knows_of_keys_is_stored_nowhere(ab: tuple[Harness, Done, Done]):
    harness, done, _ = ab
    stored = [harness.out / name for name in harness.files() if not name.endswith(".gz")]
    assert not [path for path in stored if "FAKE-SECRET" in path.read_text()]
    assert "FAKE-SECRET" not in done.out + done.err


def test_a_dry_run_names_every_command_and_file_that_the_run_then_has(
    ab: tuple[Harness, Done, Done],
):
    harness, _, planned = ab
    assert planned.status == 0
    listed = planned.out[planned.out.index("# files") :].splitlines()[1:]
    named = [line.removeprefix(f"{harness.out}/") for line in listed]
    folders = tuple(name for name in named if name.endswith("/"))
    unnamed = {name for name in harness.files() - set(named) if not name.startswith(folders)}
    assert unnamed == set()
    for label in (A, B):
        script = (harness.logs / f"{label}_server_command.sh").read_text()
        assert script.partition("exec ")[2].strip() in planned.out


def test_the_load_of_the_profile_says_that_it_was_to_be_interrupted(ab: tuple[Harness, Done, Done]):
    harness, _, _ = ab
    text = (harness.logs / f"{A}_profile_load.log").read_text()
    assert "interrupted: the figures cover what had arrived" in text
    (prompts,) = (line.split() for line in text.splitlines() if line.startswith("prompts "))
    if failed := int(prompts[3]):  # none where the signal came between two requests
        assert f"failed: {failed} x interrupted: stopped by a signal" in text
    assert text.rstrip().endswith("No reported number is from it.)")


def test_what_it_prints_fits_80_columns_but_for_paths(ab: tuple[Harness, Done, Done]):
    for done in ab[1:]:
        wide = [line for line in done.lines if len(line) > 80]
        assert [line for line in wide if max(map(len, line.split())) < 40] == []


def test_an_analysis_goes_by_its_launchs_label(ab: tuple[Harness, Done, Done]):
    harness, _, _ = ab
    for label in (A, B):
        assert (harness.logs / f"{label}_analysis.txt").read_text().startswith(f"{label}: ")
        assert json.loads((harness.logs / f"{label}_analysis.json").read_text())["case"] == label


def test_the_search_hint_names_what_the_traces_hold(ab: tuple[Harness, Done, Done]):
    assert "type cudagraph" in ab[1].out


def test_ranks_that_share_one_gpu_are_said_to(tmp_path: Path):
    with Harness(tmp_path / "r", gpus=[(144000, 0)]) as harness:
        done = harness.run(*SMALL, "--one-gpu", "--cases", "graphs_on", "--no-profile")
        assert done.status == 0, done.lines
        assert harness.summary()["mode"] == "one_gpu"
        assert "time slices" in done.out


def test_rounds_run_abba_and_number_their_labels(harness: Harness):
    first, second = harness.case("one"), harness.case("two_whose_label_is_a_good_deal_longer")
    done = harness.run("--cases", f"{first},{second}", "--rounds", "2", "--no-profile")
    assert done.status == 0, done.lines
    order = [first, second, f"{second}_r2", f"{first}_r2"]
    drawn = [order, [second, first, f"{first}_r2", f"{second}_r2"]]
    assert [line for line in done.out.splitlines() if line in order] in drawn
    plan = json.loads((harness.logs / "run.json").read_text())
    assert isinstance(plan["order_seed"], int)
    assert plan["looks"] == [{"rounds": 2, "planned": True}]
    assert list(harness.statuses().values()) == ["ok"] * 4
    wide = [row for row in table(done) if len(row) > 80]
    assert wide == []
    (head,) = (row for row in table(done) if row.startswith("TPOT mean ms"))
    assert "r1 r2" in " ".join(head.split()), "a column a round"


def test_a_first_round_is_gone_on_with(harness: Harness):
    given = ("--cases", "one,two", "--no-profile")
    for name in ("one", "two"):
        harness.case(name)
    done = harness.run(*given)
    assert done.status == 0, done.lines
    # the stand-in runs as a rehearsal does
    end = " ".join(done.out.split())
    assert (
        "A rehearsal of any number of rounds does not tell how these cases compare on GPUs" in end
    )
    kept = (harness.logs / "one_client.json").read_bytes()
    done = harness.run(*given, "--rounds", "2", "--resume")
    assert done.status == 0, done.lines
    assert list(harness.statuses()) == ["one", "two", "two_r2", "one_r2"]
    assert set(harness.statuses().values()) == {"ok"}
    assert (harness.logs / "one_client.json").read_bytes() == kept
    assert "2 of 4 launches are kept, the others run" in " ".join(done.err.split())
    assert "for 2 launches, as long as those so far" in done.err
    plan = json.loads((harness.logs / "run.json").read_text())
    assert plan["looks"] == [{"rounds": 1, "planned": True}, {"rounds": 2, "planned": True}]
    assert [launch["block"] for launch in plan["launches"]] == [1] * 4
    assert "For a verdict" not in done.out
    refused = harness.run(*given, "--rounds", "1", "--resume")
    assert refused.status == 2 and "the run has 2 already" in refused.own_errors[0]


def test_a_case_against_itself_runs_under_two_labels_and_the_next_run_moves_it_aside(
    harness: Harness,
):
    harness.case("one")
    done = harness.run("--aa", "--cases", "one", "--no-profile")
    assert done.status == 0, done.lines
    assert harness.statuses() == {"one_aa1": "ok", "one_aa2": "ok"}
    assert list((harness.out / "trace").iterdir()) == []
    assert json.loads((harness.logs / "run.json").read_text())["aa"] == "one"
    says = done.out[done.out.index("For the noise floor (4 launches a case") :]
    words = says.replace("\\\n", " ").split()
    assert words[-3:] == ["--rounds", "4", "--resume"] and "--no-profile" in words
    harness.case("two")
    refused = harness.run("--aa", "--cases", "one,two")
    assert refused.status == 2 and "--aa compares one case with itself" in refused.own_errors[0]
    (harness.logs / "one_aa1_client.json").write_text("the earlier run's")
    done = harness.run("--cases", "one", "--no-profile")
    assert done.status == 0, done.lines
    (kept,) = (harness.out / "previous").iterdir()
    assert (kept / "logs" / "one_aa1_client.json").read_text() == "the earlier run's"
    assert (kept / "logs" / "summary.json").exists()
    assert str(kept) in done.err
    assert list(harness.statuses()) == ["one"]
    assert json.loads((harness.logs / "one_client.json").read_text())["schema"] == 1


def test_a_refused_run_leaves_the_earlier_results_where_they_are(harness: Harness):
    harness.case("one")
    harness.logs.mkdir(parents=True)
    (harness.logs / "run.json").write_text("{}")
    done = harness.run("--cases", "one", "--model", str(harness.root))
    assert done.status == 2
    assert (harness.logs / "run.json").read_text() == "{}"


def test_resume_repeats_only_what_had_failed(harness: Harness):
    mended = harness.root / "mended"
    harness.case("good")
    harness.case("bad", "FAKE_FAULT=die:oom", f"FAKE_MENDED={mended}")
    given = ("--cases", "good,bad", "--no-profile")
    assert harness.run(*given).status == 1
    kept = (harness.logs / "good_server.log").read_text()
    began = json.loads((harness.logs / "run.json").read_text())["began"]
    time.sleep(1.1)  # it is told in whole seconds
    mended.touch()
    done = harness.run(*given, "--resume")
    assert done.status == 0, done.lines
    assert (harness.logs / "good_server.log").read_text() == kept
    assert harness.statuses() == {"good": "ok", "bad": "ok"}
    kept_aside = {path.name for path in (harness.out / "previous").glob("*/logs/*")}
    assert "bad_server.log" in kept_aside, "the failed try's log is lost"
    assert "good_server.log" not in kept_aside
    assert harness.summary()["began"] == began, "the time of the resume"
    assert began in done.err
    bad = harness.summary()["launches"][1]
    assert "reason" not in bad, "the failed try's reason is told of a launch that is ok"


def test_a_resumed_launch_takes_no_trace_of_its_failed_try(harness: Harness):
    limits = {"STEPS_LIMIT_S = 180.0": "STEPS_LIMIT_S = 3.0"}
    limits["WRITE_LIMIT_S = 300.0"] = "WRITE_LIMIT_S = 0.5"
    for long, short in limits.items():
        harness.replace("run/profile_step.py", long, short)
    mended = harness.root / "mended"
    harness.case("one", "FAKE_FAULT=truncated", f"FAKE_MENDED={mended}")
    given = ("--cases", "one", "--no-pp-clock")  # the stand-in has no turns to time
    assert harness.run(*given).status == 1
    mended.touch()
    for long, short in limits.items():  # it needs as long as it needs
        harness.replace("run/profile_step.py", short, long)
    done = harness.run(*given, "--resume")
    assert done.status == 0, done.lines
    ids = {path.name.partition("-")[0] for path in (harness.out / "trace" / "one").iterdir()}
    assert len(ids) == 1
    assert harness.summary()["launches"][0]["warnings"] == []


def test_resume_refuses_other_options(ab: tuple[Harness, Done, Done]):
    harness, _, _ = ab
    before = {name: (harness.out / name).read_bytes() for name in harness.files()}
    done = harness.run(*SMALL, "--resume", "--batch", "3")
    assert done.status == 2
    assert len(done.own_errors) == 1 and "--resume" in done.own_errors[0]
    assert {name: (harness.out / name).read_bytes() for name in harness.files()} == before


def test_without_a_gpu_it_is_a_rehearsal_in_folders_with_spaces_from_another_folder_too(
    tmp_path: Path,
):
    with Harness(tmp_path / "a harness") as harness:
        elsewhere = tmp_path / "else where"
        elsewhere.mkdir()
        done = harness.run("--cases", "graphs_on", out=Path("results of mine"), cwd=elsewhere)
        assert done.status == 0, done.lines
        results = elsewhere / "results of mine"
        assert (results / "logs" / f"{A}_client.json").exists()
        assert (results / "trace" / f"{A}_chrome_trace.json").exists()
        summary = json.loads((results / "logs" / "summary.json").read_text())
        assert summary["rehearsal"] is True
        assert "gpu_counters" not in summary["launches"][0]
        assert "REHEARSAL" in done.out and "REHEARSAL" in done.err
