"""GPU counters of a launch: what nvidia-smi and dmesg tell, what they do not, what it means."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fake_sglang.harness import PYTHON, Harness

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
    assert remarks(before, after) == ["GPU counters are lacking after it: nvidia-smi: no", new]
    assert remarks({**before, "xid_lines": None}, {**before, "xid_lines": [new]}) == []


# as run_repro.sh does it


@pytest.mark.launches
def test_each_launch_has_counters_of_its_own(tmp_path: Path):
    with Harness(tmp_path / "r", gpus=[(81559, 3)] * 2) as harness:
        tools = Tools(harness.root / "fake_tools")
        # while the second launch's server runs GPU-1 is capped, and has an Xid
        program = harness.root / "python_two"
        program.write_text(
            "#!/bin/sh\ncase $* in *server.launch\\ *|*launch_server\\ *)\n"
            f"sed -i 's/^{CAP}=.*/{CAP}=4200000 us/' '{tools.folder}/GPU-1'\n"
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
        assert two["reason"].startswith("NVRM: Xid (PCI:0000:02:00): 31")  # no measurement
        for launch in (one, two):
            rows = launch["gpu_counters"]["before"]["gpus"]
            assert [row["uuid"] for row in rows] == ["GPU-0", "GPU-1"]
        assert one["gpu_counters"]["before"] == one["gpu_counters"]["after"]
        assert two["gpu_counters"]["after"]["gpus"][1][CAP] == 4_200_000
        assert one["warnings"] == []
        capped, xid = two["warnings"]
        assert capped.startswith("GPU 1: clocks held back by power capping for 4.2 s")
        assert xid.startswith("NVRM: Xid (PCI:0000:02:00): 31")
        said = " ".join(done.out.split())
        assert f"! two: {capped}" in said and f"! two: {xid}" in said
        again = harness.run(*given, "--cases", "one,two", "--resume")
        assert again.status == 0, again.lines  # the line is in the kernel's log from before
        assert [each["status"] for each in harness.summary()["launches"]] == ["ok", "ok"]


def counted(xids: list[str] | None = (), **changes: object) -> gpu_counters.Counters:
    row = {"uuid": "GPU-0", "index": 0, "pci.bus_id": "00000000:04:00.0", **changes}
    return {"gpus": [row], "xid_lines": None if xids is None else list(xids)}


ECC = {"ecc.errors.corrected.volatile.total": 0, "ecc.errors.uncorrected.volatile.total": 0}
CAPPED = {"clocks_event_reasons_counters.sw_power_cap": 0}
XID = "NVRM: Xid (PCI:0000:04:00): 79, GPU has fallen off the bus."


@pytest.mark.parametrize(
    ("after", "says"),
    [
        (counted(**ECC), ""),
        (counted(**ECC | {"ecc.errors.uncorrected.volatile.total": 2}), "2 uncorrected ECC errors"),
        (counted(**ECC | {"ecc.errors.corrected.volatile.total": 1}), "1 corrected ECC errors"),
        (counted([XID]), "Xid (PCI:0000:04:00)"),
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
    assert faults(counted([XID]), counted([XID, XID])) == [XID]
    assert faults(counted(None), counted([XID])) == []  # when it came is not known


def test_an_xid_where_our_gpus_addresses_are_not_known_may_be_ours():
    assert faults({"gpus": [{"uuid": "GPU-0"}], "xid_lines": []}, counted([XID])) == [XID]
