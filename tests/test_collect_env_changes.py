"""What changed between the environments before and after a run."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from repro_pp_graphs.environment import changes
from repro_pp_graphs.report.summary import remarks
from repro_pp_graphs.server.machine import gpu_counters

COUNTER = "clocks_event_reasons_counters"  # nvidia-smi's fields begin so
BEFORE: changes.Facts = {
    "summary": {"date": "2026-01-01 10:00:00 UTC", "GPUs": "4 x NVIDIA H100"},
    "system": {
        "memory": "125 GiB, 121 GiB available",
        "/dev/shm": "64G, 64G free",
        "load average": "0.1 0.1 0.1 1/200 10",
        "cgroup throttled periods": "0",
    },
    "gpus": {
        "driver_version": "570.86.15",
        "clocks.sm": "1980 MHz",
        "clocks_event_reasons.active": "none",
        "clocks_throttle_reasons.active": "none",
        "temperature.gpu": "40, 41, 42, 43",
        "memory.used": "3 MiB",
        "power.draw": "77.87 W",
        "ecc.errors.corrected.volatile.total": "0",
        "held back, sw power capping": "100 us",
        "processes": "none seen",
        "Xid lines": "none in dmesg",
    },
    "software": {"torch": "2.9.1"},
    "server": {"port 30000": "nothing answers on 127.0.0.1:30000"},
}


def after(**gpus: str) -> dict[str, Any]:
    facts = copy.deepcopy(BEFORE)
    facts["summary"]["date"] = "2026-01-01 11:00:00 UTC"
    facts["gpus"].update({key.replace("__", "."): text for key, text in gpus.items()})
    return facts


def said(later: changes.Facts) -> list[str]:
    found = changes.between(BEFORE, later)
    assert found is not None
    return changes.lines(found)


def test_nothing_is_said_where_nothing_changed() -> None:
    assert said(after()) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("power.draw", "400.10 W"),
        ("clocks.sm", "1965 MHz"),
        ("memory.used", "3 MiB (0,1,2), 500 MiB (3)"),
        ("temperature.gpu", "55, 55, 55, 62"),
        ("held back, sw power capping", "5000 us"),
        ("clocks_event_reasons.active", "idle"),
        ("clocks_throttle_reasons.active", "idle"),
    ],
)
def test_what_moves_by_itself_is_no_news(key: str, value: str) -> None:
    later = after()
    later["gpus"][key] = value
    later["system"] |= {"load average": "9 9 9 1/200 99", "memory": "125 GiB, 119 GiB available"}
    assert said(later) == []


def test_a_slower_clock_and_its_reason_name_the_gpu() -> None:
    later = after(
        clocks__sm="1980 MHz (0,2,3), 1200 MHz (1)",
        clocks_event_reasons__active="none (0,2,3), software power cap (1)",
    )
    assert said(later) == [
        "GPU 1 SM clock 1980 MHz -> 1200 MHz",
        "GPU 1 throttle none -> software power cap",
    ]


def test_the_clock_of_an_idle_gpu_tells_nothing() -> None:
    assert said(after(clocks__sm="345 MHz", clocks_event_reasons__active="idle")) == []


def test_what_a_run_may_break_is_named() -> None:
    later = after(
        ecc__errors__corrected__volatile__total="0 (0,1,3), 7 (2)",
        memory__used="3 MiB (0,1), 70000 MiB (2,3)",
        temperature__gpu="88, 41, 42, 43",
        processes="00000000:01:00.0, 4242, python, 70000 MiB",
    )
    later["gpus"]["Xid lines"] = "NVRM: Xid 79"
    later["gpus"]["held back, sw power capping"] = "2400000 us"
    later["system"] |= {"cgroup throttled periods": "40", "/dev/shm": "64G, 40G free"}
    later["server"]["process 77"] = "python -m sglang.launch_server"
    found = changes.between(BEFORE, later)
    assert found is not None
    assert changes.lines(found, most=99) == [
        "other sglang processes on this machine, not started by this run, began (PID 77): they may "
        "have disturbed the launches that they overlapped",
        "/dev/shm 64G, 64G free -> 64G, 40G free",
        "cgroup throttled periods 0 -> 40",
        "GPU 0 temperature 40 -> 88",
        "GPUs 2,3 memory used 3 MiB -> 70000 MiB",
        "GPU 2 ecc.errors.corrected.volatile.total 0 -> 7",
        "GPUs 0,1,2,3 held back, sw power capping: 2.4 s more",
        "processes none -> 00000000:01:00.0, 4242, python",
        "Xid lines none -> NVRM: Xid 79",
    ]
    assert changes.lines(found, most=2)[2:] == ["and 7 more"]


def test_software_that_was_exchanged_under_a_run_is_named() -> None:
    later = after(driver_version="580.1")
    later["software"] = {"torch": "2.10.0", "triton": "3.5"}
    assert said(later) == [
        "GPUs 0,1,2,3 driver 570.86.15 -> 580.1",
        "torch 2.9.1 -> 2.10.0",
        "triton none -> 3.5",
    ]


NAME = "LD_LIBRARY_PATH"


def test_what_only_another_shell_or_job_sets_is_no_news() -> None:
    shells = [
        {"PATH": f"/{n}/bin", "VIRTUAL_ENV": f"/{n}", "SLURM_JOB_ID": n, "CONDA_PREFIX": n}
        for n in ("1", "2")
    ]
    before = {**BEFORE, "environment": {**shells[0], "PYTHONPATH": "/a"}}
    found = changes.between(before, {**after(), "environment": {**shells[1], "PYTHONPATH": "/b"}})
    assert found is not None
    assert changes.lines(found) == ["variable PYTHONPATH /a -> /b"]


def test_of_a_long_variable_the_part_that_differs_is_shown() -> None:
    whole = ":".join(f"/usr/local/a_long_place_{number}/bin" for number in range(5))
    before = {**BEFORE, "environment": {NAME: f"{whole}:/gone", "NCCL_DEBUG": "INFO"}}
    for now, text in (
        (f"/come:{whole}:/gone", "is now with /come"),
        (whole, "is now without /gone"),
        (f"{whole}:/come", "is now without /gone, with /come"),
        (f"/gone:{whole}", ": the same in another order"),
    ):
        later = {**after(), "environment": {NAME: now, "NCCL_DEBUG": "WARN"}}
        found = changes.between(before, later)
        assert found is not None
        assert [line.replace("PATH:", "PATH :") for line in changes.lines(found)] == [
            f"variable {NAME} {text}",
            "variable NCCL_DEBUG INFO -> WARN",
        ]


def test_another_sglang_that_has_ended_is_said_to_be_none_of_the_run() -> None:
    before = {**BEFORE, "server": {"process 77": "python -m sglang.launch_server"}}
    found = changes.between(before, after())
    assert found is not None
    (said,) = changes.lines(found)
    assert "processes on this machine, not started by this run, ended (PID 77): they may" in said
    assert "launch_server" not in str(found)  # a command line goes into no summary
    later = after()
    later["server"] = {f"process {pid}": "sglang::scheduler" for pid in range(1, 10)}
    later["software"] = {**BEFORE.get("software", {}), "NCCL in process 1": "2.21 /x/libnccl.so"}
    found = changes.between(before, later)
    assert found is not None
    (said,) = changes.lines(found)
    assert (
        "ended (PID 77) and began (PIDs 1, 2, 3, 4, 5, 6 and 3 more (env.txt, env_after.txt)): "
        in said
    )


def test_what_cannot_be_compared_is_not_called_unchanged() -> None:
    assert changes.between(BEFORE, {}) is None
    assert changes.between({}, BEFORE) is None
    assert changes.between(after(), BEFORE) is None  # left by the run before this one


@pytest.mark.parametrize(
    ("value", "spread"),
    [
        ("a", ["a", "a", "a"]),
        ("a, b, c", ["a", "b", "c"]),
        ("a (0,2), b (1)", ["a", "b", "a"]),
        ("x, y (0,1), z (2)", ["x, y", "x, y", "z"]),
        ("a, b", ["a, b", "a, b", "a, b"]),
    ],
)
def test_one_line_over_all_gpus_is_read_gpu_by_gpu(value: str, spread: list[str]) -> None:
    assert changes.spread_out(value, 3) == spread


def test_the_table_says_what_changed() -> None:
    launch = {
        "label": "A", "case": "a", "round": 4, "status": "ok", "sglang_version": "0.5.16",
        "sends": "asynchronous", "client_warnings": [],
    }  # fmt: skip
    summary = {"rehearsal": False, "mode": "gpu", "nsys": False, "launches": [launch]}
    found = changes.between(BEFORE, after(clocks__sm="1200 MHz"))
    assert found is not None
    changed = {**summary, "environment_changes": [each._asdict() for each in found]}
    text = "environment changed during the run: GPUs 0,1,2,3 SM clock 1980 MHz -> 1200 MHz"
    assert text in remarks.remarks(changed)
    for unchanged in ([], None):
        said = remarks.remarks({**summary, "environment_changes": unchanged})
        assert not [remark for remark in said if "environment" in remark]


@pytest.mark.parametrize(
    ("key", "value", "row"),
    [
        ("held back, sw power capping", "2400000 us", {f"{COUNTER}.sw_power_cap": 2_400_000}),
        ("held back, hw power braking", "2400000 us",
         {f"{COUNTER}.hw_power_brake_slowdown": 2_400_000}),
        ("held back, hw thermal slowdown", "2400000 us",
         {f"{COUNTER}.hw_thermal_slowdown": 2_400_000}),
        ("held back, sw thermal slowdown", "2400000 us",
         {f"{COUNTER}.sw_thermal_slowdown": 2_400_000}),
        ("held back, sync boost", "2400000 us", {f"{COUNTER}.sync_boost": 2_400_000}),
        ("ecc.errors.corrected.volatile.total", "7",
         {"ecc.errors.corrected.volatile.total": 7}),
        ("ecc.errors.uncorrected.volatile.total", "7",
         {"ecc.errors.uncorrected.volatile.total": 7}),
        ("power.limit", "300.00 W", {"power.limit": 300.0}),
    ],
)  # fmt: skip
def test_what_a_launch_counted_itself_is_not_said_again_of_the_machine(key, value, row) -> None:
    zero = value.replace("7", "0").replace("2400000", "0").replace("300", "700")
    before, later = after(), after()
    before["gpus"][key], later["gpus"][key] = zero, value
    found = changes.between(before, later)
    assert found and {each.gpu for each in found} == {0, 1, 2, 3}
    counted = dict.fromkeys(row, 0) | ({"power.limit": 700.0} if "power.limit" in row else {})
    said_by_launch = gpu_counters.remarks(
        {"gpus": [{"uuid": n, "index": n, **counted} for n in range(3)]},
        {"gpus": [{"uuid": n, "index": n, **row} for n in range(3)]},
    )
    launch = {
        "label": "A", "case": "a", "round": 4, "status": "ok", "sglang_version": "0.5.16",
        "sends": "asynchronous", "client_warnings": [], "warnings": said_by_launch,
    }  # fmt: skip
    summary = {"rehearsal": False, "mode": "gpu", "nsys": False, "launches": [launch]}
    summary["environment_changes"] = [each._asdict() for each in found]
    texts = [text for text in remarks.remarks(summary) if "environment" in text]
    (text,) = texts  # of the GPU that no launch ran on
    assert text.startswith("environment changed during the run: GPU 3 "), text


ON_A_BUS = {"pci.bus_id": "00000000:00:06.0, 00000000:00:07.0, 00000000:00:08.0, 00000000:00:09.0"}
OWN = ("00000000:00:08.0", "00000000:00:09.0")


@pytest.mark.parametrize(
    ("fact", "of_another", "of_its_own", "said_of_it"),
    [
        (
            "held back, sw power capping",
            "9000000 us, 100 us, 100 us, 100 us",
            "100 us, 100 us, 9000000 us, 100 us",
            "GPU 2 held back",
        ),
        (
            "memory.used",
            "3 MiB, 68838 MiB, 3 MiB, 3 MiB",
            "3 MiB, 3 MiB, 3 MiB, 68838 MiB",
            "GPU 3 memory used",
        ),
        (
            "processes",
            "00000000:00:06.0, 26441, scheduler, 999 MiB",
            "00000000:00:08.0, 26441, scheduler, 999 MiB",
            "processes",
        ),
        (
            "Xid lines",
            "NVRM: Xid (PCI:0000:00:07): 31, pid=21200",
            "NVRM: Xid (PCI:0000:00:09): 31, pid=21200",
            "Xid lines",
        ),
    ],
)
def test_gpus_of_the_host_that_are_not_the_runs_are_left_out(
    fact: str, of_another: str, of_its_own: str, said_of_it: str
) -> None:
    before = copy.deepcopy(BEFORE)
    before["gpus"].update(ON_A_BUS)
    later = after(**ON_A_BUS, **{fact: of_another})
    assert changes.between(before, later, OWN) == []
    assert changes.between(before, later)  # of a run that may use them all
    found = changes.between(before, after(**ON_A_BUS, **{fact: of_its_own}), OWN)
    assert found is not None
    assert [line[: len(said_of_it)] for line in changes.lines(found)] == [said_of_it]


def test_bus_ids_that_the_facts_do_not_have_leave_nothing_out() -> None:
    later = after(**{"memory.used": "68838 MiB, 3 MiB, 3 MiB, 3 MiB"})
    assert changes.between(BEFORE, later, OWN) == changes.between(BEFORE, later)


@pytest.mark.parametrize("where", ["reason", "warnings"])
def test_xids_that_a_launch_has_told_are_not_said_again_of_the_machine(where: str) -> None:
    later = after()
    later["gpus"]["Xid lines"] = "NVRM: Xid (PCI:0000:00:06): 31, pid=7"
    found = changes.between(BEFORE, later)
    assert found is not None
    told = {"reason": "x; Xid 31 (GPU memory page fault) on GPU 0"}
    if where == "warnings":
        told = {"warnings": ["of GPUs that are not its own: Xid 31 on PCI 0000:00:06"]}
    launch = {
        "label": "A", "case": "a", "round": 4, "status": "ok", "sglang_version": "0.5.16",
        "sends": "asynchronous", "client_warnings": [],
    }  # fmt: skip
    summary = {"rehearsal": False, "mode": "gpu", "nsys": False}
    summary["environment_changes"] = [each._asdict() for each in found]
    alone = [text for text in remarks.remarks({**summary, "launches": [launch]}) if "NVRM" in text]
    assert len(alone) == 1
    both = remarks.remarks({**summary, "launches": [launch | told]})
    assert not [text for text in both if "NVRM" in text]
