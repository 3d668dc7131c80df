"""What a plan says of remedies, of the time that it takes and of what would stop it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from plan_harness import FLAGS, gpus, plan_of

from repro_pp_graphs.run import estimate, overview
from repro_pp_graphs.run.plan import environments
from repro_pp_graphs.run.plan import options as run_options
from repro_pp_graphs.run.plan.refusal import PlanError
from repro_pp_graphs.server.case.argfile import parse
from repro_pp_graphs.server.case.flags import FlagError, fit
from repro_pp_graphs.server.release.installed import Release

REPO = Path(__file__).resolve().parents[1]
CASES = {
    name: (REPO / f"server_args_{name}.txt").read_text(encoding="utf-8")
    for name in ("graphs_on", "graphs_off", "sync_send", "comm_stream", "event_send", "async_depth")
}


def notes(folder: Path, *cases: str, release: str = "0.5.16", argv: tuple[str, ...] = ()) -> str:
    given = {name: CASES[name] for name in cases}
    return " ".join(overview.notes(plan_of(folder, *argv, release=release, **given)))


@pytest.fixture(autouse=True)
def fitting_sources(monkeypatch):
    """No sources: what a release can do is taken from its number."""
    from repro_pp_graphs.server.case import needs  # noqa: PLC0415

    monkeypatch.setattr(needs, "installed", lambda release: needs.looked_up(release.version))


@pytest.mark.parametrize(
    ("cases", "said"),
    [
        (("comm_stream",), "--cases graphs_on,comm_stream"),
        (("event_send",), "--cases sync_send,event_send"),
        (("async_depth",), "--cases graphs_on,async_depth"),
        (("graphs_off", "async_depth"), "add graphs_on to --cases"),
        (("graphs_on", "event_send"), "add sync_send to --cases"),
        (("graphs_on", "comm_stream"), ""),
        (("comm_stream", "graphs_on"), ""),
        (("graphs_on", "async_depth"), ""),
        (("sync_send", "event_send"), ""),
        (("graphs_on", "graphs_off"), ""),
    ],
)
def test_a_remedy_without_its_baseline_is_told_which_it_is(tmp_path, cases, said):
    text = notes(tmp_path, *cases)
    assert said in text
    assert ("from which it differs in" in text or "two things" in text) == bool(said)


def test_a_remedy_that_is_compared_with_itself_is_not(tmp_path):
    assert "in that alone" not in notes(tmp_path, "comm_stream", argv=("--aa",))


@pytest.mark.parametrize(
    ("case", "release", "said"),
    [
        ("comm_stream", "0.5.2", "0.5.7 to 0.5.20"),
        ("comm_stream", "0.5.23", "or take comm_overlap"),
        ("sync_send", "0.5.2", "use --release 0.5.23"),
        ("async_depth", "0.5.2", "use --release 0.5.23"),
    ],
)
def test_a_case_that_a_release_lacks_is_refused_with_one_that_has_it(tmp_path, case, release, said):
    (tmp_path / "requirements").symlink_to(REPO / "requirements")
    with pytest.raises(PlanError) as refused:
        notes(tmp_path, "graphs_on", case, release=release)
    assert said in str(refused.value)
    assert ("none that --release installs" in str(refused.value)) == (case == "comm_stream")


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("--max-runing-requests", "--max-running-requests"),
        ("--mem-fraction", "--mem-fraction-static"),
        ("--disable-cuda-graphs", "--disable-cuda-graph"),
        ("--attention", "--attention-backend"),
        ("--bogus-arg", ""),
        ("--frobnicate", ""),
        ("--log", ""),
    ],
)
def test_a_name_is_suggested_where_one_is_like_it(tmp_path, word, meant):
    known = FLAGS | {"--log-requests-target", "--use-ray"}
    with pytest.raises(FlagError) as refused:
        fit(parse(word, "case"), Release("0.5.21", known, tmp_path))
    said = str(refused.value).rpartition("; ")[2]
    assert said == (f"did you mean {meant}?" if meant else "see --help of sglang.launch_server")


def test_the_time_of_equal_bounds_is_said_once_and_a_total_says_what_it_rests_on(tmp_path):
    plan = plan_of(tmp_path, count=0)
    even = replace(plan, batch=8)
    for made in (plan, even):
        text = estimate.of_run(made)
        for part in text.split("about ")[1:]:
            first, _, second = part.partition(" to ")
            assert first != second[: len(first)], text
    many = plan_of(tmp_path, "--rounds", "4", "--dummy-weights", "--no-profile")
    said = estimate.of_run(many)
    assert "for 8 servers, one after another. Each server: its load " in said
    assert "a start 30 to 80 s" in said and "a profile" not in said and "loads" not in said
    assert "loads 141 GB of weights" in estimate.of_run(plan_of(tmp_path))
    assert "on one H200" in estimate.of_run(plan_of(tmp_path, "--one-gpu", count=1))


def test_a_plan_of_too_few_rounds_for_a_verdict_says_how_many_give_one(tmp_path):
    dummy, four = ("--dummy-weights",), ("--rounds", "4")
    took = estimate.of_run(plan_of(tmp_path, *dummy, *four)).partition(" for ")[0]
    said = estimate.for_verdict(plan_of(tmp_path, *dummy))
    assert said == (
        f"none from one round; --rounds 4 gives one: 8 servers, {took}; also later, with --resume"
    )
    # 8 times 141 GB
    loading = ", and loading the weights as often, about 19 min at 1 GB/s"
    assert loading in estimate.for_verdict(plan_of(tmp_path))
    assert "at 1 GB/s; 8 starts about 19 min)" in estimate.of_run(plan_of(tmp_path, *four))
    three = plan_of(tmp_path, "--rounds", "2", graphs_on="", graphs_off="", other="# label: C\n")
    assert three.rounds == 3 and estimate.for_verdict(three) == ""  # a block of three
    for none in (four, ("--cases", "graphs_on")):
        assert estimate.for_verdict(plan_of(tmp_path, *none)) == ""
    assert estimate.for_verdict(plan_of(tmp_path, count=0)) == ""  # a rehearsal has none
    options = run_options.parse(["--root", str(tmp_path), "--out", str(tmp_path), "--python", "p"])
    said = overview.lines(plan_of(tmp_path), options, gpus(4))
    assert [line for line in said if line.startswith("  verdict: none from one round")]


def test_a_plan_counts_the_environments_that_are_made_first(tmp_path):
    plan = plan_of(tmp_path)
    missing = tmp_path / ".venv-0.5.2" / "bin" / "python"
    for launch in plan.launches:
        launch.python = str(missing)
    assert "; once, .venv-0.5.2 (8.9 GB on disk) is downloaded and in" in estimate.of_run(plan)
    missing.parent.mkdir(parents=True)
    missing.touch()
    assert ".venv" not in estimate.of_run(plan)


def test_every_environment_with_a_lock_has_a_size_which_the_documents_say():
    names = {f".venv-{name}" for name in ("cpu", *environments.releases(REPO))}
    assert environments.DISK_GB.keys() == names
    text = (REPO / "docs" / "running.md").read_text("utf-8")
    for name, size in environments.DISK_GB.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}`"))
        assert f" {size:g} GB" in row.rpartition("|")[0].rpartition("|")[2]
