"""GPU counters of a launch: what nvidia-smi and dmesg tell, what they do not, what it means."""

from __future__ import annotations

import os
from pathlib import Path

import made_up_run
import pytest
from fake_sglang.harness import PYTHON, Harness

from repro_pp_graphs import launch_record
from repro_pp_graphs.run.finish_step import Ending
from repro_pp_graphs.server.machine import gpu_counters
from repro_pp_graphs.server.machine.gpu_counters import FIELDS, faults, parse, remarks

# answers a query field by field, as the driver whose fields are in fields.txt; a row a GPU
SMI = """#!/usr/bin/env bash
here=$(dirname "${BASH_SOURCE[0]}")
[[ $* != *--query-gpu=index,uuid* ]] || { cat "$here/gpus.csv" 2>/dev/null; exit; }
[[ ! -e $here/hangs ]] || exec sleep 600
fields=${*#*--query-gpu=} && fields=${fields%% *}
while IFS= read -r gpu; do
  row=""
  for field in ${fields//,/ }; do
    value=$(sed -n "s/^$field=//p" "$here/$gpu")
    [[ -n $value ]] ||
      { echo "Field \\"$field\\" is not a valid field to query." && exit 2; }
    row+="$value, "
  done
  echo "${row%, }"
done <"$here/list"
"""
BASE = {
    **{"index": "0", "clocks.sm": "1980 MHz", "clocks.mem": "2619 MHz", "power.draw": "71.20 W"},
    **{"power.limit": "700.00 W", "temperature.gpu": "31"},
    "clocks_event_reasons.active": "0x0000000000000001",
    "ecc.errors.corrected.volatile.total": "0",
    "ecc.errors.uncorrected.volatile.total": "[N/A]",
    **{name: "0 us" for name in FIELDS if "counters" in name},
}


class Tools:
    """A folder with a made-up nvidia-smi and dmesg."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.write("nvidia-smi", SMI)
        self.say("")
        (folder / "list").write_text("GPU-0\nGPU-1\n")
        for number, name in enumerate(("GPU-0", "GPU-1")):
            self.gpu(name, index=str(number))

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)
        (self.folder / name).chmod(0o755)

    def say(self, kernel_log: str) -> None:
        (self.folder / "kernel.log").write_text(kernel_log)
        self.write("dmesg", f'#!/bin/sh\ncat "{self.folder}/kernel.log"\n')

    def gpu(self, uuid: str, **changes: str) -> None:
        values = {"uuid": uuid, **BASE, **changes}
        (self.folder / uuid).write_text("".join(f"{k}={v}\n" for k, v in values.items() if v))


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    made = Tools(tmp_path / "tools")
    monkeypatch.setenv("PATH", f"{made.folder}:{os.environ['PATH']}")
    return made


def test_every_field_is_read_as_what_it_is(tools: Tools):
    found = gpu_counters.read(["GPU-1"])
    (row,) = found["gpus"]
    assert (row["uuid"], row["index"]) == ("GPU-1", 1)
    assert (row["clocks.sm"], row["power.draw"], row["temperature.gpu"]) == (1980, 71.2, 31)
    assert row["clocks_event_reasons.active"] == "0x0000000000000001"
    assert "ecc.errors.uncorrected.volatile.total" not in row, "[N/A] is no number"
    assert row["clocks_event_reasons_counters.sw_power_cap"] == 0
    assert found["xid_lines"] == [] and not [key for key in found if key.endswith("why")]


def test_where_none_of_the_gpus_is_known_all_are_read(tools: Tools):
    assert len(gpu_counters.read([])["gpus"]) == len(gpu_counters.read(["MIG-x"])["gpus"]) == 2


def test_an_older_driver_is_asked_for_what_it_knows(tools: Tools):
    older = {name: "" for name in FIELDS if "reasons" in name}
    older["clocks_throttle_reasons.active"] = "0x0000000000000004"
    for name in ("GPU-0", "GPU-1"):
        tools.gpu(name, **older)
    row = gpu_counters.read(["GPU-0"])["gpus"][0]
    assert row["clocks_event_reasons.active"] == "0x0000000000000004"
    assert row["clocks.sm"] == 1980
    assert not [name for name in row if "counters" in name]


def test_tools_that_hang_fail_or_are_not_there_are_told_and_waited_for_no_longer(
    tools: Tools, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(gpu_counters, "LIMIT_S", 600.0)
    tools.write("dmesg", "#!/bin/sh\necho 'dmesg: read kernel buffer failed' >&2\nexit 1\n")
    found = gpu_counters.read([])
    assert found["xid_lines"] is None and "read kernel buffer failed" in found["xid_why"]
    monkeypatch.setattr(gpu_counters, "LIMIT_S", 0.2)
    (tools.folder / "hangs").touch()
    found = gpu_counters.read([])
    assert found["gpus"] is None and "gave no answer" in found["gpus_why"]
    monkeypatch.setenv("PATH", "/nowhere")
    found = gpu_counters.read([])
    assert "nvidia-smi: No such file" in found["gpus_why"]
    assert remarks(found, found) == []


@pytest.mark.parametrize(
    "text", ["", "No devices were found\n", "a, b\n", "Unable to determine the device handle\n"]
)
def test_what_is_no_row_is_no_gpu(text: str):
    assert parse(text, list(FIELDS)) == []


CAP = "clocks_event_reasons_counters.sw_power_cap"
HOT = "clocks_event_reasons_counters.hw_thermal_slowdown"
CORRECTED = "ecc.errors.corrected.volatile.total"
UNCORRECTED = "ecc.errors.uncorrected.volatile.total"


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({}, {}, []),
        ({CAP: 10, HOT: 5}, {CAP: 10, HOT: 5}, []),
        ({CAP: 0}, {CAP: 90_000}, []),  # under a tenth of a second
        ({CAP: 0}, {CAP: 12_300_000}, ["clocks held back by power capping for 12.3 s"]),
        ({HOT: 7}, {HOT: 2_000_007}, ["by temperature (hardware) for 2.0 s"]),
        ({CORRECTED: 1}, {CORRECTED: 4}, ["3 corrected ECC errors"]),
        ({UNCORRECTED: 0}, {UNCORRECTED: 1}, ["1 uncorrected ECC errors"]),
        ({CORRECTED: 5}, {CORRECTED: 0}, []),  # the driver was loaded anew
        ({}, {CAP: 12_300_000, CORRECTED: 3}, []),  # since when is not known
        ({CAP: 0}, {}, []),
        ({CAP: "[Unknown]"}, {CAP: 5_000_000}, []),
        ({"power.limit": 700.0}, {"power.limit": 500.0}, ["power limit 700.0 W -> 500.0 W"]),
        ({"clocks.sm": 1980}, {"clocks.sm": 345}, []),  # idle, before or after
    ],
)
def test_what_was_counted_in_between_is_told(before, after, told):
    sides = [{"gpus": [{"uuid": "GPU-0", "index": 3, **row}]} for row in (before, after)]
    found = remarks(*sides)
    assert len(found) == len(told)
    assert all(
        line.startswith("GPU 3: ") and text in line for line, text in zip(found, told, strict=True)
    )


def test_only_new_xids_are_told_and_gpus_that_vanished_are():
    old, new = "NVRM: Xid (PCI:0000:01:00): 31, pid=7", "NVRM: Xid (PCI:0000:01:00): 79, GPU has"
    before = {"gpus": [{"uuid": "a"}], "xid_lines": [old]}
    after = {"gpus": None, "gpus_why": "nvidia-smi: no", "xid_lines": [old, new]}
    assert remarks(before, after) == ["GPU counters are lacking after it: nvidia-smi: no"]
    assert faults(before, after) == ["Xid 79 (GPU has fallen off the bus) on PCI 0000:01:00"]
    lines = {"xid_lines": [new]}
    assert remarks({**before, "xid_lines": None}, {**before, **lines}) == []
    assert faults({**before, "xid_lines": None}, {**before, **lines}) == []


# as run_repro.sh does it


@pytest.mark.launches
def test_each_launch_has_counters_of_its_own(tmp_path: Path):
    with Harness(tmp_path / "r", gpus=[(81559, 3)] * 2) as harness:
        tools = Tools(harness.root / "fake_tools")
        # while the second launch's server runs GPU-1 is capped, corrects errors and has an Xid
        program = harness.root / "python_two"
        program.write_text(
            "#!/bin/sh\ncase $* in *server.launch\\ *|*launch_server\\ *)\n"
            f"sed -i 's/^{CAP}=.*/{CAP}=4200000 us/; s/^{CORRECTED}=.*/{CORRECTED}=9/' "
            f"'{tools.folder}/GPU-1'\n"
            f"echo '[9.1] NVRM: Xid (PCI:0000:02:00): 31, pid=7' >'{tools.folder}/kernel.log'\n"
            f'esac\nexec "{PYTHON}" "$@"\n'
        )
        program.chmod(0o755)
        harness.case("one", "--disable-cuda-graph")
        harness.case("two", "--disable-cuda-graph", f"PYTHON={program}")
        given = ("--pp-size", "2", "--dummy-weights", "--layers", "2", "--no-profile")
        given += ("--no-pp-clock",)  # the stand-in has no turns to time
        done = harness.run(*given, "--cases", "one,two")
        assert done.status == 1, done.lines
        one, two = harness.summary()["launches"]
        assert (one["status"], two["status"]) == ("ok", "failed")
        xid = "Xid 31 (GPU memory page fault) on PCI 0000:02:00"
        assert two["reason"] == xid  # no measurement
        counters = [launch["gpu_counters"] for launch in (one, two)]
        assert [len(each["passes"]["xid_lines"]) for each in counters] == [0, 1]
        for launch in (one, two):
            rows = launch["gpu_counters"]["before"]["gpus"]
            assert [row["uuid"] for row in rows] == ["GPU-0", "GPU-1"]
        assert one["gpu_counters"]["before"] == one["gpu_counters"]["after"]
        assert two["gpu_counters"]["after"]["gpus"][1][CAP] == 4_200_000
        assert one["warnings"] == []
        corrected, capped = two["warnings"]  # what the reason says is said once
        assert corrected == (
            "GPU 1: 9 corrected ECC errors during the launch: what it computed is right; have this "
            "GPU looked at"
        )
        assert capped.startswith("GPU 1: clocks held back by power capping for 4.2 s")
        said = " ".join(done.out.split())
        assert f"! two: {capped}" in said and f"! two: {xid}" in said
        assert "try: --resume, which runs it again; where it comes back leave that GPU out" in said
        again = harness.run(*given, "--cases", "one,two", "--resume")
        assert again.status == 0, again.lines  # the line is in the kernel's log from before
        assert [each["status"] for each in harness.summary()["launches"]] == ["ok", "ok"]


def counted(xids: list[str] | None = (), **changes: object) -> gpu_counters.Counters:
    row = {"uuid": "GPU-0", "index": 0, "pci.bus_id": "00000000:04:00.0", **changes}
    return {"gpus": [row], "xid_lines": None if xids is None else list(xids)}


ECC = {"ecc.errors.corrected.volatile.total": 0, "ecc.errors.uncorrected.volatile.total": 0}
CAPPED = {"clocks_event_reasons_counters.sw_power_cap": 0}
FALLEN = "Xid 79 (GPU has fallen off the bus) on GPU 0"
XID = "NVRM: Xid (PCI:0000:04:00): 79, GPU has fallen off the bus."


@pytest.mark.parametrize(
    ("after", "says"),
    [
        (counted(**ECC), ""),
        (counted(**ECC | {"ecc.errors.uncorrected.volatile.total": 2}), "2 uncorrected ECC errors"),
        (counted(**ECC | {"ecc.errors.corrected.volatile.total": 3_657_420}), ""),
        (counted([XID]), "Xid 79 (GPU has fallen off the bus) on GPU 0"),
        (counted([XID.replace(":04:", ":84:")]), ""),  # of another GPU of the machine
        (counted(["NVRM: Xid of no address"]), "of no address"),
        (counted(uuid="GPU-1"), "GPU 0 was lost"),
        ({"gpus": None, "gpus_why": "nvidia-smi: GPU is lost. Reboot"}, "GPU 0 was lost"),
        ({"gpus": None, "gpus_why": "nvidia-smi gave no answer in 10 s"}, ""),
        (counted(**CAPPED | {"clocks_event_reasons_counters.sw_power_cap": 9e6}), ""),
    ],
)
def test_only_what_a_gpu_of_its_own_lost_makes_a_launch_no_measurement(after, says):
    found = faults(counted(**ECC, **CAPPED), after)
    assert says in " ".join(found) and bool(found) == bool(says)


def test_an_xid_from_before_the_launch_is_not_its_own_and_a_second_one_is():
    assert faults(counted([XID]), counted([XID])) == []
    assert faults(counted([XID]), counted([XID, XID])) == [FALLEN]
    assert faults(counted(None), counted([XID])) == []  # when it came is not known


def test_an_xid_where_our_gpus_addresses_are_not_known_may_be_ours():
    assert faults({"gpus": [{"uuid": "GPU-0"}], "xid_lines": []}, counted([XID])) == [
        "Xid 79 (GPU has fallen off the bus) on PCI 0000:04:00"
    ]


PAGE_FAULT = (  # of a kernel's log, as it came
    "NVRM: Xid (PCI:0000:00:07): 31, pid=21200, name=nvidia-cuda-mps, channel 0x0000000a, intr "
    "00000000. MMU Fault: ENGINE GRAPHICS GPC1 GPCCLIENT_GCC faulted @ 0x7ef7_2d754000. Fault is "
    "of type FAULT_PDE ACCESS_TYPE_VIRT_READ"
)
PAIR = [PAGE_FAULT, PAGE_FAULT.replace(":07)", ":06)")]


def two(xids: list[str], first: int = 6) -> gpu_counters.Counters:
    """Two GPUs whose PCI devices are `first` and the next one."""
    buses = [f"00000000:00:{bus:02X}.0" for bus in (first, first + 1)]
    rows = [{"uuid": bus, "index": at, "pci.bus_id": bus} for at, bus in enumerate(buses)]
    return {"gpus": rows, "xid_lines": xids}


def test_an_xid_after_the_last_measured_pass_is_a_warning_and_no_fault():
    """As of a server that was ended: all that counts had been measured."""
    passes: gpu_counters.Counters = {"xid_lines": []}
    assert faults(two([]), two(PAIR), passes) == []
    what = "Xid 31 (GPU memory page fault) on GPU 0, GPU 1: nvidia-cuda-mps"
    assert remarks(two([]), two(PAIR), passes) == [f"after its last measured pass, {what}"]


@pytest.mark.parametrize("number", [63, 92])
def test_an_xid_of_corrected_errors_is_a_remark_whenever_it_came(number):
    lines = [f"NVRM: Xid (PCI:0000:00:07): {number}, pid=21, name=python", *PAIR[1:]]
    assert faults(two([]), two(lines)) == [
        "Xid 31 (GPU memory page fault) on GPU 0: nvidia-cuda-mps"
    ]
    (said,) = remarks(two([]), two(lines))
    assert said.startswith(f"Xid {number} (") and said.endswith(" on GPU 1: python")
    passes: gpu_counters.Counters = {"xid_lines": []}
    assert faults(two([]), two(lines[:1]), passes) == []
    assert len(remarks(two([]), two(lines[:1]), passes)) == 1


@pytest.mark.parametrize("passes", [None, {"xid_lines": None, "xid_why": "dmesg: no"}])
def test_an_xid_of_which_it_is_not_known_when_it_came_is_a_fault(passes):
    assert len(faults(two([]), two(PAIR), passes)) == 1
    assert remarks(two([]), two(PAIR), passes) == []


def test_an_xid_before_the_last_measured_pass_had_ended_is_a_fault_and_a_later_one_a_warning():
    passes: gpu_counters.Counters = {"xid_lines": PAIR[:1]}
    assert faults(two([]), two(PAIR), passes) == [
        "Xid 31 (GPU memory page fault) on GPU 1: nvidia-cuda-mps"
    ]
    (late,) = remarks(two([]), two(PAIR), passes)
    assert late.startswith("after its last measured pass, Xid 31") and "on GPU 0:" in late


@pytest.mark.parametrize("passes", [None, {"xid_lines": []}, {"xid_lines": PAIR}])
def test_xids_of_other_gpus_of_the_machine_are_one_line_and_no_fault(passes):
    """A run on two of four GPUs, beside another one."""
    assert faults(two([], 8), two(PAIR, 8), passes) == []
    assert remarks(two([], 8), two(PAIR, 8), passes) == [
        "of GPUs that are not its own: Xid 31 (GPU memory page fault) on PCI 0000:00:06, PCI "
        "0000:00:07: nvidia-cuda-mps"
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("NVRM: Xid (PCI:0000:00:06): 154, GPU recovery action", "Xid 154 on GPU 0"),
        (
            "NVRM: Xid (PCI:0000:00:06): 43, pid='<unknown>', name=<unknown>, Ch 8",
            "Xid 43 (GPU stopped processing) on GPU 0",
        ),
        ("NVRM: Xid of no form " + "x" * 200, ("NVRM: Xid of no form " + "x" * 200)[:100]),
    ],
)
def test_every_xid_is_a_few_words(line: str, said: str):
    assert faults(two([]), two([line])) == [said]


@pytest.mark.parametrize(("late", "status"), [(True, "ok"), (False, "failed")])
def test_how_a_launch_ended_follows_from_when_its_xid_came(
    tools: Tools, tmp_path: Path, late: bool, status: str
):
    one = made_up_run.launch(pp_size=1, tp_size=1)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/A_server.log").write_text("")
    before = gpu_counters.read(["GPU-1"])
    (tools.folder / "kernel.log").write_text(f"[9.1] {XID.replace(':04:', ':02:')}\n")
    passes = {"xid_lines": []} if late else gpu_counters.read_log()
    counters = launch_record.GpuCounters(before, passes=passes)
    launch_record.amend(tmp_path / "logs", "A", gpu_counters=counters, status="running")
    ending = Ending(tmp_path, made_up_run.plan(one, gpu_used_mib={"GPU-1": 0}), one)
    ending.changes["status"] = "ok"
    ending.count_gpus()
    if found := ending.faults():
        ending.fail("; ".join(found))
    ending.write()
    known = launch_record.load(tmp_path / "logs", "A")
    assert known is not None and known.status == status
    said = [known.reason or "", *(known.warnings or [])]
    assert len([text for text in said if "Xid 79" in text]) == 1
