"""What a person reads of a run: logs/README.txt, the differences of cases, the dry run."""

from __future__ import annotations

import re
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from plan_harness import plan_of

from repro_pp_graphs.run import guide, options, overview, plan_step, results

FOREIGN = {"README.txt"}


def described(name: str, label: str) -> bool:
    """Whether logs/README.txt has a row for a file of that launch."""
    folder, _, name = name.partition("/")
    rows = {"logs": guide.LOGS, "trace": guide.TRACE}[folder]
    patterns = [pattern for names in rows for pattern in names.split(", ")]
    return any(fnmatchcase(name, pattern.replace("LABEL", label)) for pattern in patterns)


@pytest.mark.parametrize("argv", [[], ["--nsys"], ["--no-profile"]])
def test_every_file_that_a_run_leaves_is_described(tmp_path: Path, argv: list[str]):
    plan = plan_of(tmp_path, *argv)
    for launch in plan.launches:
        for name in results.claimed(launch, plan):
            assert described(
                name.replace(".rows.gz", ".rows").replace(".rows", ".rows.gz"), launch.label
            ), name
    for name in results.of_run(plan):
        assert Path(name).name in FOREIGN or described(name, "-"), name


def test_the_probes_files_are_described(tmp_path: Path):
    plan = replace(plan_of(tmp_path), engine="probe")
    for name in results.of_launch(plan.launches[0], plan):
        assert described(name, plan.launches[0].label), name


def test_the_readme_fits_80_columns():
    assert max(map(len, guide.lines())) <= 80


def shown(folder: Path, plan, *argv: str) -> str:
    asked = options.parse(["--root", str(folder), "--out", str(folder), "--dry-run", *argv])
    return " ".join(" ".join(overview.lines(plan, asked)).split())


def test_a_case_is_shown_by_what_it_differs_in(tmp_path: Path):
    plan = plan_of(
        tmp_path,
        graphs_on="# label: A\n--cuda-graph-max-bs 64\n",
        mine="--chunked-prefill-size 2048\nNAME=x\n",
        flags=frozenset({*plan_of.__kwdefaults__["flags"], "--chunked-prefill-size"}),
    )
    text = shown(tmp_path, plan)
    assert "differ: CASE_mine, against A: " in text
    assert "adds --chunked-prefill-size 2048, NAME=x; lacks --cuda-graph-max-bs 64" in text
    assert "--port" not in text


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_further_cases_are_held_against_case_a_whichever_runs_first(tmp_path: Path, order):
    plan = plan_of(
        tmp_path,
        graphs_on="# label: CASE_A_on\n--cuda-graph-max-bs 64\n",
        graphs_off="# label: CASE_B_off\n--disable-cuda-graph\n",
        mine="# label: CASE_C_mine\n--cuda-graph-max-bs 8\n",
    )
    plan.launches = [plan.launches[at] for at in order]
    said = re.findall(r"differ: (\w+), against (\w+):", shown(tmp_path, plan))
    assert said == [("CASE_B_off", "CASE_A_on"), ("CASE_C_mine", "CASE_A_on")]


def test_names_of_files_are_no_difference_of_cases(tmp_path: Path):
    plan = plan_of(tmp_path)
    for launch in plan.launches:
        launch.args += ["--json", f"{tmp_path}/logs/{launch.label}_probe.json"]
    assert "_probe.json" not in shown(tmp_path, plan)


def test_a_rehearsal_says_what_it_leaves_aside(tmp_path: Path):
    plan = plan_of(tmp_path)
    base = "--model-path some/Model-70B\n--pp-size 3\n--tp-size 2\n"
    (tmp_path / "server_args_base.txt").write_text(base)
    aside = "in place of some/Model-70B, pp 3 x tp 2 (server_args_base.txt)"
    rehearsal = replace(plan, mode="cpu")
    assert aside in shown(tmp_path, rehearsal)
    assert "--dry-run --gpus 6" in shown(tmp_path, rehearsal)
    assert aside not in shown(tmp_path, replace(plan, mode="gpu"))
    assert aside not in shown(tmp_path, rehearsal, "--model", "x/y", "--pp-size", "2")


def test_a_later_round_is_not_printed_again(tmp_path: Path):
    plan = plan_of(tmp_path)
    again = [replace(one, label=f"{one.label}_r2") for one in plan.launches]
    twice = replace(plan, launches=[*plan.launches, *again])
    asked = options.parse(["--root", str(tmp_path), "--out", str(tmp_path), "--dry-run"])
    lines = overview.dry_run_lines(twice, asked)
    assert "# B_r2: as B, with files of its own" in lines
    assert sum(line.startswith("exec ") for line in lines) == 2


def test_a_dry_run_takes_gpus_that_are_not_there(tmp_path: Path):
    asked = options.parse(["--dry-run", "--gpus", "8"])
    seen = plan_step._gpus(asked)
    assert len(seen.gpus) == 8 and "assumed" in seen.remark
    assert len({gpu.uuid for gpu in seen.gpus}) == 8


def test_gpus_are_assumed_in_a_dry_run_only(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as refused:
        options.parse(["--", "--gpus", "8"])
    assert refused.value.code == 2
    assert re.search("--gpus is for --dry-run", capsys.readouterr().err)
