"""A release as an environment: --release, RELEASE= in a case's file, the locks."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from examples import THOROUGH
from fake_sglang.harness import CHECKOUT, PYTHON, Done, Harness
from plan_harness import BASE, OFF, ON, gpus, plan_of
from quick_venv import pip_for_all

from repro_pp_graphs.run import make_plan, overview, plan_step
from repro_pp_graphs.run.plan import options
from repro_pp_graphs.run.plan.environments import NotMade, releases
from repro_pp_graphs.run.plan.refusal import PlanError
from repro_pp_graphs.server.case import argfile
from repro_pp_graphs.server.case.argfile import ArgFileError
from repro_pp_graphs.server.release.installed import ProbeError, Release

LOCKS = CHECKOUT / "requirements"
NEW = "9.9"


def refusal(done: Done) -> str:
    assert done.status == 2, done.lines
    assert len(done.own_errors) == 1, done.lines
    return done.own_errors[0]


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    with Harness(tmp_path / "r", gpus=[(81559, 3)] * 2) as made:
        yield made


# locks


def test_every_release_has_its_input_and_its_lock():
    folder = LOCKS / "releases"
    assert releases(CHECKOUT) == ["0.5.2", "0.5.6.post2", "0.5.23"]
    assert {path.stem for path in folder.glob("*.in")} == set(releases(CHECKOUT))
    for name in releases(CHECKOUT):
        pins = re.findall(r"^([\w.-]+)==(\S+)", (folder / f"{name}.txt").read_text(), re.M)
        assert dict(pins)["sglang"] == name
        # what the harness itself imports
        assert {"torch", "requests", "msgspec", "numpy", "scipy"} <= dict(pins).keys()


@pytest.mark.parametrize("name", ["0.5.2", "0.5.23", "0.5.6.post2"])
def test_every_pin_of_a_release_has_a_hash(name: str):
    text = (LOCKS / "releases" / f"{name}.txt").read_text().replace("\\\n", " ")
    pins = [line for line in text.splitlines() if "==" in line and not line.startswith("#")]
    assert pins and [line for line in pins if "--hash=sha256:" not in line] == []


def test_the_default_release_has_a_lock():
    text = (CHECKOUT / "repro_pp_graphs" / "sh" / "setup.sh").read_text()
    default = re.search(r"^default_release=(\S+)", text, re.M)
    assert default and default[1] in releases(CHECKOUT)


# case files


def test_an_interpreter_and_a_release_exclude_each_other():
    with pytest.raises(ArgFileError, match="case:2: PYTHON and RELEASE"):
        argfile.parse("PYTHON=/usr/bin/python3\nRELEASE=0.5.2\n", "case")


@pytest.mark.parametrize(
    ("base", "case", "left"),
    [
        ("PYTHON=/p", "RELEASE=1", (None, "1")),
        ("RELEASE=1", "PYTHON=/p", ("/p", None)),
        ("RELEASE=1", "RELEASE=2", (None, "2")),
        ("RELEASE=1", "", (None, "1")),
        ("PYTHON=/p", "", ("/p", None)),
    ],
)
def test_a_case_overrides_which_sglang_the_base_names(base: str, case: str, left: tuple):
    found = argfile.parse(case, "case").over(argfile.parse(base, "base"))
    assert (found.python, found.release) == left


def folder_with(tmp_path: Path, *names: str) -> Path:
    (tmp_path / "requirements" / "releases").mkdir(parents=True)
    for name in names:
        (tmp_path / "requirements" / "releases" / f"{name}.txt").write_text(f"sglang=={name}\n")
    return tmp_path


def make_environment(root: Path, release: str) -> None:
    lock = (root / "requirements" / "releases" / f"{release}.txt").read_bytes()
    (root / f".venv-{release}" / "bin").mkdir(parents=True)
    (root / f".venv-{release}" / "bin" / "python").symlink_to(sys.executable)
    (root / f".venv-{release}" / ".lock").write_text(hashlib.sha256(lock).hexdigest() + "\n")


def test_a_release_runs_in_its_own_environment(tmp_path: Path):
    root = folder_with(tmp_path, "1.0", "2.0")
    make_environment(root, "1.0")
    found = plan_of(root, on=ON + "RELEASE=1.0\n", off=OFF)
    assert [launch.python for launch in found.launches] == [
        f"{root}/.venv-1.0/bin/python",
        "/usr/bin/python3",
    ]
    assert found.launches[0].argv[0] == found.launches[0].python


def test_an_environment_whose_python_is_gone_is_asked_for(tmp_path: Path):
    root = folder_with(tmp_path, "1.0")
    make_environment(root, "1.0")
    (root / ".venv-1.0" / "bin" / "python").unlink()
    (root / ".venv-1.0" / "bin" / "python").symlink_to(tmp_path / "gone")
    with pytest.raises(NotMade):
        plan_of(root, on=ON + "RELEASE=1.0\n", off=OFF)


@pytest.mark.parametrize("stale", [False, True])
def test_an_environment_that_is_not_as_its_lock_is_asked_for(stale: bool, tmp_path: Path):
    root = folder_with(tmp_path, "1.0")
    if stale:
        make_environment(root, "1.0")
        (root / "requirements" / "releases" / "1.0.txt").write_text("sglang==1.0\nnew==1\n")
    with pytest.raises(NotMade) as told:
        plan_of(root, on=ON + "RELEASE=1.0\n", off=OFF)
    assert told.value.release == "1.0"
    assert plan_of(root, "--dry-run", on=ON + "RELEASE=1.0\n", off=OFF).launches


@pytest.mark.parametrize("order", [1, -1])
def test_a_release_that_cannot_run_its_case_is_refused_before_any_is_asked_for(order, tmp_path):
    root = folder_with(tmp_path, "0.5.2", "0.5.23")
    cases = {"sync": "REPRO_SHIMS=sync_send\nRELEASE=0.5.2\n", "on": ON + "RELEASE=0.5.23\n"}
    with pytest.raises(
        PlanError, match=r"^server_args_sync\.txt: shim sync_send on sglang 0\.5\.2"
    ):
        plan_of(root, **dict(list(cases.items())[::order]))


def test_what_else_is_wrong_is_said_before_a_release_is_asked_for(tmp_path: Path):
    root = folder_with(tmp_path, "0.5.23")
    with pytest.raises(PlanError, match="two cases share the label A"):
        plan_of(root, on=ON + "RELEASE=0.5.23\n", off=ON)


def test_the_plan_of_an_environment_that_is_not_whole_asks_nothing_of_it(tmp_path: Path):
    """An install that was cut off left an sglang that cannot be imported: a run completes it."""
    root = folder_with(tmp_path, "0.5.23")
    make_environment(root, "0.5.23")
    (root / ".venv-0.5.23" / ".lock").unlink()

    def ask(python: str, env: dict[str, str]) -> Release:
        raise ProbeError(f"{python} was asked")

    texts = {"base": BASE, "on": ON, "newer": "# label: B\nRELEASE=0.5.23\n"}
    for name, text in texts.items():
        (root / f"server_args_{name}.txt").write_text(text, encoding="utf-8")
    python = f"{root}/.venv-0.5.23/bin/python"
    own = ["--root", f"{root}", "--out", f"{root}/out", "--python", python, "--dry-run"]
    asked = options.parse([*own, "--not-made", "0.5.23", "--", "--cases", "on,newer"])
    found = make_plan.make(asked, gpus(4), None, ask)
    assert [launch.sglang_version for launch in found.launches] == ["0.5.23"] * 2


def test_a_release_without_a_lock_names_those_there_are(tmp_path: Path):
    root = folder_with(tmp_path, "1.0", "2.0")
    with pytest.raises(PlanError, match=r"RELEASE=3\.0: there is no lock for it, only for 1\.0, 2"):
        plan_of(root, on=ON + "RELEASE=3.0\n", off=OFF)


def test_a_rehearsal_runs_no_other_release(tmp_path: Path):
    root = folder_with(tmp_path, "1.0")
    with pytest.raises(PlanError, match=r"RELEASE=1\.0: a rehearsal .* one sglang.* --gpus 4"):
        plan_of(root, "--cpu", count=0, on=ON + "RELEASE=1.0\n", off=OFF)


# run_repro.sh


def test_a_release_and_an_interpreter_are_one_too_many(harness: Harness):
    told = refusal(harness.start_bare("--release", "0.5.2", "--python", PYTHON).end())
    assert "--python and --release both name a sglang" in told


def test_a_release_that_has_no_lock(harness: Harness):
    told = refusal(harness.start_bare("--release", "0.4.0").end())
    assert "0.5.2 0.5.6.post2 0.5.23" in told and "--python" in told


@pytest.mark.parametrize("release", ["0.5.2", "0.5.6.post2"] if THOROUGH else ["0.5.6.post2"])
def test_a_release_that_does_not_start_on_a_cpu(release: str, harness: Harness):
    told = refusal(harness.start_bare("--release", release, "--cpu").end())
    assert "its kernels need a GPU" in told and "0.5.16 or newer" in told


@pytest.mark.launches
@pytest.mark.parametrize("release", ["0.5.2", "0.5.6.post2"] if THOROUGH else ["0.5.2"])
def test_a_dry_run_without_gpus_says_what_the_run_would(release: str, tmp_path: Path):
    with Harness(tmp_path / "none") as none:
        run = none.start_bare("--release", release).end()
        planned = none.start_bare("--release", release, "--dry-run").end()
        assert "its kernels need a GPU" in refusal(run) and planned.out == ""
        assert (planned.status, planned.err) == (run.status, run.err)
        there = none.start_bare("--release", release, "--dry-run", "--gpus", "4").end()
        assert there.status == 0, there.lines


UNFIT = [
    (["--release", "0.5.2", "--sends", "both"], "--sends both: PP sends of sglang 0.5.2 are"),
    (["--release", "0.5.6.post2", "--cases", "sync_send,event_send"], "PP sends block"),
    (["--release", "0.5.2", "--cases", "graphs_on,batched_p2p"], "the probe has this remedy"),
    (
        ["--release", "0.5.2", "--cases", "graphs_on,sync_send,comm_stream"],
        "--release 0.5.23 will not do, as it lacks what comm_stream needs",
    ),
    (["--release", "0.5.2", "--cases", "comm_overlap"], "COMM_OVERLAP needs sglang 0.5.21"),
    (["--release", "0.5.2", "--cases", "async_depth"], "--pp-async-batch-depth needs sglang"),
    (
        ["--release", "0.5.23", "--cases", "sync_send,comm_stream"],
        "the case comm_overlap switches on",
    ),
    (["--cases", "sync_send"], "shim sync_send on sglang 0.5.2: "),  # without sglang: 0.5.2
    (["--cases", "on_old,graphs_on"], "server_args_on_old.txt: shim event_send on sglang 0.5.2"),
    (["--release", "0.5.6.post2", "--cases", "misspelt"], "did you mean --disable-radix-cache?"),
    (["--release", "0.5.23", "--cases", "nosuch"], "there is no server_args_nosuch.txt"),
    (["--release", "0.5.23", "--pp-size", "4"], "2 GPU(s) visible, but tp x pp asks for 4"),
    (["--release", "0.5.23", "--pp-size", "1"], "GB of weights for 86"),
]
# which release it is then is up to the script; the others in this process
BY_THE_SCRIPT = [row for row in UNFIT if "--release" not in row[0]]


def unfit(asked: list[str], says: str, harness: Harness) -> list[str]:
    """The command of a row of UNFIT, of which nothing else is wrong."""
    del harness.env["PYTHONPATH"]  # the stand-in's sglang
    harness.env["FAKE_FREE_KIB"] = str(3 << 20)  # where this fails, nothing is installed either
    harness.case("misspelt", "--disable-radx-cache")
    harness.case("on_old", "REPRO_SHIMS=event_send", "RELEASE=0.5.2")
    if "--pp-size" not in asked:
        asked = [*asked, "--pp-size", "2"]
    if "weights" not in says:
        asked = [*asked, "--dummy-weights", "--layers", "2"]
    return asked


@pytest.mark.launches
@pytest.mark.parametrize(("asked", "says"), BY_THE_SCRIPT)
def test_what_would_stop_the_run_is_said_before_its_release_is_installed(asked, says, harness):
    asked = unfit(asked, says, harness)
    run = harness.start_bare(*asked).end()
    assert says in " ".join(refusal(run).split()), run.lines
    assert not [line for line in run.lines if "making" in line]
    assert not list(harness.root.glob(".venv-*"))
    planned = harness.start_bare(*asked, "--dry-run").end()
    assert planned.status == 2 and says in " ".join(" ".join(planned.lines).split()).replace(
        " # ", " "
    )


@pytest.mark.parametrize(("asked", "says"), [row for row in UNFIT if row not in BY_THE_SCRIPT])
def test_what_would_stop_the_run_is_in_the_plan_that_is_made_ahead_and_in_a_dry_run(
    asked, says, harness, monkeypatch, capsys
):
    """As run_repro.sh has it planned before it installs a release, and for --dry-run."""
    asked = unfit(asked, says, harness)
    monkeypatch.setenv("PATH", harness.env["PATH"])  # the made-up GPUs
    release = asked[asked.index("--release") + 1]
    own = ["--root", str(harness.root), "--out", str(harness.out), "--not-made", release]
    own += ["--python", str(harness.root / f".venv-{release}/bin/python")]
    for how in ("--ahead", "--dry-run"):
        assert plan_step.main([how, *own, "--", *asked]) == 2
        assert says in " ".join(capsys.readouterr().err.split())


def test_a_newer_release_rehearses(harness: Harness):
    port = ("--port", str(harness.port))  # somebody's server may listen at the default one
    done = harness.start_bare("--release", "0.5.23", "--cpu", *port, "--dry-run").end()
    assert done.status == 0, done.lines
    assert "a real run first makes .venv-0.5.23 (sglang 0.5.23)" in done.err


def test_a_dry_run_makes_no_environment(harness: Harness):
    asked = ("--release", "0.5.2", "--pp-size", "2", "--dummy-weights", "--layers", "2")
    port = ("--port", str(harness.port))
    done = harness.start_bare(*asked, *port, "--dry-run").end()
    assert done.status == 0, done.lines
    assert "a real run first makes .venv-0.5.2 (sglang 0.5.2)" in done.err
    assert not (harness.root / ".venv-0.5.2").exists()


@pytest.mark.parametrize("left", ["nothing", "a link to nowhere", "no packages"])
@pytest.mark.parametrize("options", [["--cpu"], ["--cpu", "--dry-run"]])
def test_an_environment_that_is_not_whole_is_one_sentence(left, options, harness: Harness):
    venv = harness.root / ".venv-cpu"
    (venv / "bin").mkdir(parents=True)
    if left != "nothing":
        real = left == "no packages"
        (venv / "bin" / "python").symlink_to(sys._base_executable if real else "/nowhere/python")
    lock = (harness.root / "requirements" / "cpu.txt").read_bytes()
    (venv / ".lock").write_text(hashlib.sha256(lock).hexdigest())
    del harness.env["PYTHONPATH"]  # the stand-in's sglang
    told = refusal(harness.start_bare(*options).end())
    assert ".venv-cpu is not whole" in told and f"rm -rf {venv}, " in told


def test_whose_sglang_runs_is_said_and_how_to_get_the_one_of_the_issue(harness: Harness):
    asked = ["--dry-run", "--gpus", "4"]
    said = " ".join(harness.start_bare(*asked, "--python", PYTHON).end().err.split())
    assert re.search(r"found: the sglang in \S+ \(--python\); --release 0\.5\.2 in place of ", said)
    harness.env["PYTHON"] = PYTHON
    said = " ".join(harness.start_bare(*asked).end().err.split())
    assert "($PYTHON); --release 0.5.2 takes the release that #10865 is of" in said
    assert "found:" not in harness.start_bare(*asked, "--release", "0.5.2").end().err


def test_the_release_of_the_issue_is_the_one_that_is_made_by_default():
    text = (CHECKOUT / "repro_pp_graphs" / "sh" / "setup.sh").read_text(encoding="utf-8")
    assert f"\ndefault_release={overview.ISSUE_RELEASE} " in text


@pytest.mark.launches
def test_a_case_of_a_release_gets_its_environment_made(harness: Harness):
    harness.own()
    site = pip_for_all(harness.root / "site")  # first: its sitecustomize is the one that counts
    harness.env["PYTHONPATH"] = f"{site}:{harness.env['PYTHONPATH']}"
    lock = harness.root / "requirements" / "releases" / f"{NEW}.txt"
    lock.write_text("# nothing to install: the stand-in's sglang is on PYTHONPATH\n")
    lock.with_suffix(".in").write_text("# python: 3.10\n")
    case = harness.case("newer", f"RELEASE={NEW}")
    options = ["--cases", case, "--no-profile", "--no-pp-clock", "--pp-size", "2"]
    room = harness.env["FAKE_FREE_KIB"]
    harness.env["FAKE_FREE_KIB"] = str(3 << 20)
    full = harness.run(*options, "--dummy-weights", "--layers", "2")
    assert full.status == 2 and "3 GiB free, the environment takes" in " ".join(full.err.split())
    harness.env["FAKE_FREE_KIB"] = room
    done = harness.run(*options, "--dummy-weights", "--layers", "2")
    assert done.status == 0, done.lines
    venv = harness.root / f".venv-{NEW}"
    assert sum(f"making {venv.name} from" in line for line in done.lines) == 1
    run = json.loads((harness.logs / "run.json").read_text())
    assert run["launches"][0]["python"] == f"{venv}/bin/python"
    prefix = "import sys; print(sys.prefix)"
    made = subprocess.run(
        [run["launches"][0]["python"], "-c", prefix], capture_output=True, check=False
    )
    assert made.stdout.decode().strip() == str(venv)
    again = harness.run(*options, "--dummy-weights", "--layers", "2")
    assert again.status == 0 and not [line for line in again.lines if "making" in line]


def test_a_dry_run_for_gpus_plans_with_a_release_that_has_no_lock(harness: Harness):
    asked = ("--dry-run", "--release", "0.5.16", "--pp-size", "2", "--dummy-weights")
    gpus = ("--gpus", "2", "--layers", "64", "--cases")
    done = harness.start_bare(*asked, *gpus, "graphs_on,sync_send").end()
    assert done.status == 0, done.lines
    said = " ".join(f"{done.err} {done.out}".split())
    assert "sglang 0.5.16 has no lock in requirements/releases: a real run takes an" in said
    assert "server: sglang 0.5.16, pp 2" in said and "shim sync_send" in said
    assert "checks whether it takes these arguments" in said
    assert "exec PYTHON_WITH_0.5.16 -m" in said
    newer = harness.start_bare(*asked, *gpus, "comm_overlap").end()
    assert newer.status == 2 and "needs sglang 0.5.21 or newer" in " ".join(newer.err.split())
    here = harness.start_bare(*asked).end()  # of this machine: what would run
    assert here.status == 2 and "no lock for it" in " ".join(here.lines)


def test_an_interpreter_that_is_not_there_is_said_as_such(harness: Harness):
    done = harness.run("--dry-run", "--python", "/nonexist/python3")
    assert done.status == 2
    assert "--python /nonexist/python3: no such program" in " ".join(done.lines)
    assert "cannot find" not in " ".join(done.lines)


def test_a_dry_run_for_gpus_plans_what_a_machine_with_gpus_gets(harness: Harness):
    """Not the sglang of a rehearsal, though its environment is there."""
    (harness.root / ".venv-cpu" / "bin").mkdir(parents=True)
    lock = (harness.root / "requirements" / "cpu.txt").read_bytes()
    (harness.root / ".venv-cpu" / ".lock").write_text(hashlib.sha256(lock).hexdigest())
    del harness.env["PYTHONPATH"]  # the stand-in's sglang
    done = harness.start_bare("--dry-run", "--gpus", "8").end()
    assert done.status == 0, done.lines
    assert "taking 0.5.2, the release that #10865 is of" in done.err
    assert "a real run first makes .venv-0.5.2" in done.err
    assert "server: sglang 0.5.2, pp 4 x tp 1" in done.err
    assert f"exec {harness.root}/.venv-0.5.2/bin/python -m" in done.out
    assert "4 of 8 GPUs are used" in done.err
    done = harness.start_bare("--dry-run", "--gpus", "8", "--pp-size", "8").end()
    assert "pp 8 x tp 1" in done.err and "GPUs are used" not in done.err


def test_a_dry_run_names_the_release_of_each_case(harness: Harness):
    """Though none of the environments is made, and none is asked of the hub with it."""
    case = harness.case("newer", "RELEASE=0.5.23")
    done = harness.start_bare("--dry-run", "--gpus", "4", "--cases", f"graphs_on,{case}").end()
    assert done.status == 0, done.lines
    assert "runs sglang 0.5.23" in " ".join(done.err.split()), done.lines
    assert "would stop the run: model" not in done.out
