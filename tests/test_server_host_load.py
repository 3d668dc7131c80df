"""What a launch's host does besides it: counters, pinning, and launches unlike the others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import made_up_run
import numpy as np
import pytest
import report_runs

from repro_pp_graphs import launch_record, run_record
from repro_pp_graphs.launch_record import GpuCounters, HostLoad, HostWindow, LaunchRecord, RankLoad
from repro_pp_graphs.report.summary import remarks, run_summary
from repro_pp_graphs.report.tables import launch_table
from repro_pp_graphs.run.launch import measured_host
from repro_pp_graphs.run.launch.measured_host import Host
from repro_pp_graphs.run.plan import options as run_options
from repro_pp_graphs.run_record import Launch, Plan
from repro_pp_graphs.server.machine import host_load, pinning
from repro_pp_graphs.server.machine.host_load import Reading, _Thread
from repro_pp_graphs.server.machine.pinning import PinError
from repro_pp_graphs.stats.unlike import taken, unlike

CORES = sorted(os.sched_getaffinity(0))

# counters


def reading(at_s: float, **more: object) -> Reading:
    return Reading(at_s=at_s, **{"busy_s": 0.0, "ours_s": 0.0, **more})  # type: ignore[arg-type]


def test_what_other_processes_used_is_all_that_is_busy_without_ours():
    first = reading(10.0, busy_s=100.0, ours_s=20.0, steal_s=1.0, pressure_s=4.0)
    last = reading(
        20.0, busy_s=150.0, ours_s=45.0, steal_s=1.0 + len(CORES), pressure_s=9.0,
        runnable=7, load1=5.5, clock_mhz=3400.0,
    )  # fmt: skip
    found = host_load.window(first, last)
    assert found == HostWindow(
        seconds=10.0, cores=len(CORES), other_cores=2.5, steal_share=0.1, pressure_share=0.5,
        runnable=7, load1=5.5, clock_mhz=3400.0,
    )  # fmt: skip


def test_what_the_kernel_does_not_say_is_left_out():
    found = host_load.window(reading(0.0), reading(1.0))
    assert found == HostWindow(seconds=1.0, cores=len(CORES), other_cores=0.0)


def test_a_ranks_main_thread_is_seen_over_the_pass():
    first = reading(0.0, ranks={"PP0": _Thread(10**9, 10**8, 5, 1, 0, "0-3")})
    last = reading(10.0, ranks={"PP0": _Thread(8 * 10**9, 6 * 10**8, 105, 31, 2, "0-3")})
    assert host_load.ranks_between(first, last) == {
        "PP0": RankLoad(
            ran_share=0.7, waited_share=0.05, voluntary=100, involuntary=30, core=2, cores="0-3"
        )
    }
    assert host_load.ranks_between(first, reading(10.0)) == {}  # it has ended


RANK = """
import ctypes, os, sys, time
name = b"sglang::scheduler_PP" + sys.argv[1].encode()
print("up", flush=True)
until = time.monotonic() + float(sys.argv[2])
while time.monotonic() < until:
    pass
time.sleep(600)
"""


@pytest.fixture
def ranks():
    """Processes whose command line is that of a rank, as setproctitle leaves it."""
    begun = []

    def begin(numbers: list[int], busy_s: float = 0.0) -> list[int]:
        for number in numbers:
            # argv[0] is what a title replaces
            words = [f"sglang::scheduler_PP{number}", "-c", RANK, str(number), str(busy_s)]
            made = subprocess.Popen(
                words,
                executable=sys.executable,
                stdout=subprocess.PIPE,
                # a Python that was moved finds its library by the path that it is started with
                env=os.environ | {"PYTHONHOME": sys.base_prefix},
            )
            assert made.stdout is not None and made.stdout.readline() == b"up\n"
            begun.append(made)
        return [each.pid for each in begun]

    yield begin
    for each in begun:
        each.kill()
        each.wait()


def test_the_ranks_of_a_server_are_found_and_read(ranks):
    pids = ranks([0, 1])
    family = {*pids, os.getpid()}
    assert host_load.ranks_of(family) == {"PP0": pids[0], "PP1": pids[1]}
    found = host_load.read(os.getpid())
    assert set(found.ranks) == {"PP0", "PP1"}
    assert found.ranks["PP1"].ran_ns > 0 and found.ranks["PP1"].cores == pinning.spelled(CORES)
    assert found.busy_s > 0 and found.ours_s > 0


# pinning


@pytest.mark.parametrize(
    ("text", "sets"),
    [("0-3:4-7", [{0, 1, 2, 3}, {4, 5, 6, 7}]), ("0,2:5", [{0, 2}, {5}]), ("3", [{3}])],
)
def test_cores_are_named_as_taskset_has_them(text, sets):
    assert pinning.parse(text) == sets
    assert ":".join(map(pinning.spelled, sets)) == text


@pytest.mark.parametrize("text", ["0-3:3-5", "a", "0-3:", "3-1", "", "0:0", "0 1", "-1"])
def test_cores_that_cannot_be_are_refused(text):
    with pytest.raises(PinError):
        pinning.parse(text)


def test_a_core_that_is_not_there_and_a_rank_too_many_are_refused():
    with pytest.raises(PinError, match=f"core {CORES[-1] + 1000} is not usable here"):
        pinning.listed(f"{CORES[-1] + 1000}", 1)
    with pytest.raises(PinError, match="1 sets of cores for 2 ranks"):
        pinning.listed(str(CORES[0]), 2)


PAIRS = [{n, n + 16} for n in range(16)]  # 16 physical cores, two threads each
NODES = [{*range(8), *range(16, 24)}, {*range(8, 16), *range(24, 32)}]


@pytest.mark.parametrize(
    ("near", "sizes"),
    [
        ([NODES[0], NODES[1]], [8, 8]),  # half of a node each, with both threads
        ([NODES[0]] * 2, [4, 4]),  # a third of the node, rounded down to whole cores
        ([NODES[0] | NODES[1]] * 4, [6] * 4),
        ([NODES[0], NODES[0], NODES[1]], [4, 4, 4]),  # all ranks get as many
    ],
)
def test_every_rank_gets_as_many_whole_cores_near_its_gpu(near, sizes):
    found = pinning.share(near, PAIRS)
    assert [len(each) for each in found] == sizes
    assert len(set().union(*found)) == sum(sizes)  # disjoint
    for cores, its in zip(near, found, strict=True):
        assert its <= cores and all(pair <= its or not pair & its for pair in PAIRS)


def test_too_few_cores_are_refused():
    with pytest.raises(PinError, match="too few cores for 4 ranks"):
        pinning.share([{0, 1, 2, 3}] * 4, [{n} for n in range(4)])


def test_the_cores_of_a_gpu_are_those_that_the_kernel_names(tmp_path, monkeypatch):
    for number, cores in enumerate(("0-7,16-23", "8-15,24-31")):
        folder = tmp_path / f"0000:{number}4:00.0"
        folder.mkdir()
        (folder / "local_cpulist").write_text(f"{cores}\n")
    monkeypatch.setattr(pinning, "_PCI", tmp_path)
    monkeypatch.setattr(pinning, "_siblings", lambda core: PAIRS[core % 16])
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(32)))
    found = pinning.automatic(["00000000:04:00.0", "00000000:14:00.0"], 2)
    assert found[0] <= NODES[0] and found[1] <= NODES[1] and len(found[0]) == len(found[1]) == 8
    # of GPUs that are not known all cores are near
    assert len(set().union(*pinning.automatic([], 2))) == 2 * len(pinning.automatic([], 2)[0])


def launch(folder: Path, **more: object) -> tuple[Plan, Launch, Path]:
    one = made_up_run.launch(sglang_version="0.5.16")
    plan = made_up_run.plan(one, profile=False, **more)
    logs = folder / "logs"
    logs.mkdir(exist_ok=True)
    run_record.save(logs, plan)
    launch_record.begin(logs, "A", LaunchRecord("running"))
    return plan, one, logs


def test_the_ranks_of_a_launch_are_pinned_and_what_they_had_is_recorded(tmp_path, ranks):
    pids, core = ranks([0, 1], busy_s=0.2), CORES[0]
    plan, one, logs = launch(tmp_path, pin_cpus=f"{core}")
    plan.launches[0].pp_size = one.pp_size = 1
    host = Host(pids[0])
    assert host.pin(plan, one, logs) == ""
    assert os.sched_getaffinity(pids[0]) == {core}
    assert os.sched_getaffinity(pids[1]) == set(CORES)  # not of this server
    host.begin()
    host.end(logs, "A")
    found = launch_record.load(logs, "A")
    assert found is not None and found.host is not None
    assert found.host.ranks["PP0"].cores == str(core)
    assert found.host.before.seconds >= measured_host.BEFORE_S
    assert found.host.loop_ms is not None and found.host.loop_ms > 0
    # this process is counted as the launch's: give it its cores back
    os.sched_setaffinity(0, CORES)


def test_ranks_that_are_not_found_fail_the_launch(tmp_path):
    plan, one, logs = launch(tmp_path, pin_cpus=":".join(map(str, [CORES[0], CORES[-1]])))
    if len(CORES) == 1:
        pytest.skip("needs two cores")
    why = Host(0).pin(plan, one, logs)
    assert "0 of 2 ranks were found" in why
    found = launch_record.load(logs, "A")
    assert found is not None and found.status == "failed" and found.reason == why


def test_ranks_and_gpus_are_in_the_same_order(tmp_path):
    assert sorted(["TP1 PP0", "TP0 PP10", "TP0 PP2", "TP0 PP0"], key=measured_host._place) == [
        "TP0 PP0", "TP1 PP0", "TP0 PP2", "TP0 PP10",
    ]  # fmt: skip
    _, _, logs = launch(tmp_path)
    rows = [{"index": n, "pci.bus_id": f"0:{n}"} for n in (10, 2, 1)]
    launch_record.amend(logs, "A", gpu_counters=GpuCounters({"gpus": rows}))
    assert measured_host._bus_ids(logs, "A") == ["0:1", "0:2", "0:10"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--pin-cpus", "0-3:3"], "no core twice"),
        (["--pin-cpus", "some"], "auto, off, or the cores of each rank as 0-3:4-7"),
        (["--pin-cpus", "auto", "--attach", "http://127.0.0.1:1"], "--pin-cpus has no effect"),
    ],
)
def test_a_wrong_option_is_said(capsys, words, says):
    with pytest.raises(SystemExit):
        run_options.parse(["--", *words])
    assert says in " ".join(capsys.readouterr().err.split())


def test_off_is_the_default():
    own = ["--root", "/root", "--out", "/results", "--python", "/p", "--"]
    assert run_options.parse(own).pin_cpus == ""
    assert run_options.parse([*own, "--pin-cpus", "off"]).pin_cpus == ""


# launches unlike the others


def ordinary(
    noise: np.random.Generator, launches: int, tail: float = 0.5
) -> list[dict[str, float]]:
    """A quiet machine: other processes take 2 % of the cores, steady clocks. `tail`: of the
    logarithms."""
    return [
        {
            "others": 0.02 * noise.lognormal(0, tail),
            "steal": 0.001 * noise.lognormal(0, tail),
            "waited": 0.002 * noise.lognormal(0, tail),
            "clock_mhz": 3500 * (1 + 0.015 * noise.standard_normal()),
            "loop_ms": 5 * (1 + 0.02 * noise.standard_normal()),
        }
        for _ in range(launches)
    ]


@pytest.mark.parametrize("launches", [4, 8, 16])
@pytest.mark.parametrize(("tail", "most"), [(0.5, 0.01), (0.8, 0.05)])
def test_ordinary_series_raise_hardly_an_alarm(launches, tail, most):
    noise = np.random.default_rng(5)
    # in a whole series, not in a launch
    alarms = [any(unlike(ordinary(noise, launches, tail))) for _ in range(500)]
    assert sum(alarms) <= most * 500


@pytest.mark.parametrize("launches", [4, 8, 16])
@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("others", 0.4, "other processes took 40.0% of the cores' time"),
        ("steal", 0.1, "the hypervisor took 10.0% of the cores' time"),
        ("waited", 0.15, "a rank waited 15.0% of the time for a core"),
        ("clock_mhz", 2200.0, "its cores ran at 2200 MHz"),
        ("loop_ms", 8.0, "a fixed loop of Python took 8.0 ms"),
    ],
)
def test_a_launch_that_was_disturbed_is_named_and_no_other(launches, name, value, says):
    noise = np.random.default_rng(7)
    seen = 0
    for _ in range(100):
        series = ordinary(noise, launches)
        series[1][name] = value
        found = unlike(series)
        seen += bool(found[1]) and found[1][0].startswith(says)
        assert not any(found[:1] + found[2:])
    assert seen >= 95


def test_a_machine_that_is_always_busy_has_no_launch_unlike_the_others():
    noise = np.random.default_rng(9)
    series = [{"others": 0.6 + 0.05 * noise.standard_normal()} for _ in range(8)]
    assert not any(unlike(series))


def test_few_launches_and_facts_that_are_not_there_are_not_judged():
    assert unlike([{"others": 0.0}, {"others": 0.9}, {"others": 0.1}]) == [[]] * 3
    assert unlike([{}] * 5) == [[]] * 5
    faster = [{"clock_mhz": 3000.0}] * 4 + [{"clock_mhz": 4000.0}]
    assert unlike(faster) == [[]] * 5  # a higher clock slows nothing down


def test_the_table_and_the_remarks_name_that_launch(tmp_path):
    run = report_runs.series(tmp_path / "r")
    logs = run / "logs"
    for number, path in enumerate(sorted(logs.glob("*_launch.json"))):
        label = path.name.removesuffix("_launch.json")
        others = 6.0 if number == 2 else 0.1 + number / 100
        during = HostWindow(seconds=60.0, cores=16, other_cores=others)
        before = HostWindow(seconds=0.5, cores=16, other_cores=0.1)
        host = HostLoad(before=before, during=during)
        launch_record.amend(logs, label, host=host)
        if number == 2:
            unlike_others = label
    made = json.loads(json.dumps(run_summary.summarise(logs, run_record.load(logs))))
    assert [each["label"] for each in made["launches"] if each.get("host_unlike")] == [
        unlike_others
    ]
    (said,) = [each for each in remarks.remarks(made) if "host was not like" in each]
    assert said.startswith(f"{unlike_others}: its host was not like the others': other processes")
    lines = [line for line in launch_table.lines(made) if line.startswith("the host")]
    assert len(lines) == 1 and lines[0].endswith(" unlike")


# cores and other work of real launches: most on an H100 machine, a rehearsal on a shared one
QUIET, TAKEN = (32, 0.578), (2, 0.965)


@pytest.mark.parametrize("launches", [1, 2, 8])
def test_a_host_that_others_took_is_named_with_any_number_of_launches(tmp_path, launches):
    made = _with_hosts(tmp_path, launches, TAKEN)
    whole = made["launches"][:launches]
    assert [each["host_taken"] for each in whole] == [
        ["other processes took 48.2% of the cores' time"]
    ] * launches
    (said,) = [each for each in remarks.remarks(made) if "its host had other work" in each]
    assert all(each["label"] in said for each in whole)
    rows = "".join(line for line in launch_table.lines(made) if line.startswith("the host"))
    assert rows.count("busy") == {1: 1, 2: 2, 8: 2}[launches]  # a case whose cells are alike: once


def test_a_quiet_host_is_not_named_and_a_server_of_others_is_not_counted_as_other(tmp_path):
    assert "host_taken" not in str(_with_hosts(tmp_path / "quiet", 2, QUIET))
    assert taken({"others": 0.05, "steal": 0.004, "waited": 0.5, "loop_ms": 9.0}) == []
    assert taken({"steal": 0.06}) == ["the hypervisor took 6.0% of the cores' time"]
    launches = [_measured(TAKEN)]
    run_summary._mark_hosts(launches, attached=True)
    assert "host_taken" not in launches[0]


def test_what_others_took_is_said_once(tmp_path):
    launches = [_measured(QUIET) for _ in range(4)] + [_measured(TAKEN)]
    run_summary._mark_hosts(launches, attached=False)
    (text,) = launches[-1]["host_unlike"]
    assert text == "other processes took 48.2% of the cores' time (1.8% in the others)"
    assert "host_taken" not in launches[-1]


def _measured(load):
    cores, others = load
    return {"status": "ok", "host": {"during": {"cores": cores, "other_cores": others}}}


def _with_hosts(folder, launches, load):
    """The summary of a run of which so many launches have a host with this load."""
    logs = report_runs.series(folder / "r") / "logs"
    cores, others = load
    plan = run_record.load(logs)
    for launch in plan.launches[:launches]:
        window = HostWindow(seconds=12.0, cores=cores, other_cores=others)
        launch_record.amend(logs, launch.label, host=HostLoad(before=window, during=window))
    return json.loads(json.dumps(run_summary.summarise(logs, plan)))


def test_without_such_facts_nothing_is_said(tmp_path):
    run = report_runs.series(tmp_path / "r")
    made = run_summary.summarise(run / "logs", run_record.load(run / "logs"))
    assert not [line for line in launch_table.lines(made) if line.startswith("the host")]
