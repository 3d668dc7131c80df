"""Which GPUs a run may use: nvidia-smi's list, as CUDA_VISIBLE_DEVICES narrows it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from programs import ran

from repro_pp_graphs.server.machine import gpus
from repro_pp_graphs.server.machine.gpus import Gpu, GpuError, parse, parse_mig, visible

ROOT = Path(__file__).resolve().parents[1]
CSV = """\
0, GPU-8f1c0a3e-0000-0000-0000-000000000000, NVIDIA H200, 143771, 0, Disabled
1, GPU-27d4bb10-1111-1111-1111-111111111111, NVIDIA H200, 143771, 120310, Disabled
2, GPU-27e95c6f-2222-2222-2222-222222222222, NVIDIA H200, 143771, 4, Disabled
"""
A, B = "GPU-8f1c0a3e-0000-0000-0000-000000000000", "GPU-27d4bb10-1111-1111-1111-111111111111"
CUT_CSV = """\
0, GPU-00000000-aaaa-bbbb-cccc-000000000001, NVIDIA A100-SXM4-80GB, [Insufficient Permissions], \
[Insufficient Permissions], Enabled
1, GPU-00000000-aaaa-bbbb-cccc-000000000002, NVIDIA A100-SXM4-80GB, 81920, 12, Disabled
"""
LISTING = """\
GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-00000000-aaaa-bbbb-cccc-000000000001)
  MIG 3g.40gb     Device  0: (UUID: MIG-11111111-1111-2222-3333-000000000001)
  MIG 1g.10gb+me  Device  1: (UUID: MIG-22222222-1111-2222-3333-000000000002)
GPU 1: NVIDIA A100-SXM4-80GB (UUID: GPU-00000000-aaaa-bbbb-cccc-000000000002)
"""
OLD_LISTING = """\
GPU 0: A100-SXM4-40GB (UUID: GPU-00000000-aaaa-bbbb-cccc-000000000001)
  MIG 3g.20gb Device 0: (UUID: MIG-GPU-00000000-aaaa-bbbb-cccc-000000000001/1/0)
"""


def chosen(wanted: str | None, csv: str = CSV, listing: str = "") -> str:
    return "".join(gpu.index for gpu in visible(parse(csv), parse_mig(listing), wanted).gpus)


def test_nvidia_smis_lines_become_gpus():
    first, second, _ = parse(CSV)
    assert first == Gpu("0", A, "NVIDIA H200", 143771, 0)
    assert second.used_mib == 120310
    assert parse("0, GPU-1, OLD, 100, 3\n") == [Gpu("0", "GPU-1", "OLD", 100, 3)]


@pytest.mark.parametrize(
    "text",
    ["", "No devices were found\n", "NVIDIA-SMI has failed because it couldn't communicate\n"],
)
def test_nvidia_smi_without_gpus_is_no_gpu(text):
    assert parse(text) == []


# as the CUDA driver 580.159 counted them on two H100s, by cuDeviceGetCount
@pytest.mark.parametrize(
    ("wanted", "indices"),
    [
        (None, "012"),
        ("", ""),
        (" ", ""),
        ("1", "1"),
        ("01", "1"),
        ("+1", "1"),
        ("2,0", "20"),
        (" 2 , 0 ", "20"),
        ("1,", "1"),
        (",1", ""),
        ("0,,1", "0"),
        ("-1", ""),
        ("0,-1,2", "0"),
        ("0,7,1", "0"),
        (A, "0"),
        (A.upper(), "0"),
        (f"{B},{A}", "10"),
        ("GPU-27e,GPU-8f", "20"),
        (f"{A},GPU-ffff,{B}", "0"),
        # of another kind than the first: the list ends
        (f"0,{B}", "0"),
        (f"{A},1", "0"),
        ("NoDevFiles", ""),
        ("void", ""),
    ],
)
def test_cuda_visible_devices_narrows_and_orders_as_cuda_does(wanted, indices):
    assert chosen(wanted) == indices


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ("7", "lists no such device, but 0, 1, 2"),
        ("7,0", "lists no such device"),
        ("GPU-ffff", "lists no such device, but GPU-8f1c0a3e"),
        ("GPU-27", "more than one device begins with 'GPU-27'"),
        ("GPU-", "is no index, GPU-<uuid> or MIG-<uuid>"),
        ("MIG-8f1c0a3e-0000-0000-0000-000000000000", "but none of that kind"),
        # CUDA reads a number's beginning here, which is not what was meant
        (A.removeprefix("GPU-"), "is no index"),
        ("0;1", "'0;1' is no index"),
        ("0 1", "'0 1' is no index"),
        ("all", "'all' is no index"),
        # CUDA then fails every call
        ("0,0", "named twice"),
        ("0,1,0", "named twice"),
        (f"{A},{A}", "named twice"),
        (f"{A},GPU-8f", "named twice"),
    ],
)
def test_what_names_no_gpu_is_an_error_and_not_no_gpu(wanted, told):
    with pytest.raises(GpuError) as error:
        chosen(wanted)
    assert told in str(error.value)
    assert f"CUDA_VISIBLE_DEVICES={wanted}" in str(error.value)


@pytest.mark.parametrize(
    ("wanted", "remark"),
    [
        (None, ""),
        ("0", ""),
        ("1,", ""),
        ("-1", "hides 3 GPU(s)"),
        ("", "hides 3 GPU(s)"),
        ("0,7,1", "CUDA stops at '7'"),
        (f"0,{B}", f"CUDA stops at '{B}'"),
    ],
)
def test_fewer_gpus_than_there_are_come_with_the_reason(wanted, remark):
    said = visible(parse(CSV), [], wanted).remark
    assert remark in said and bool(said) == bool(remark)


# by NVIDIA's MIG guide; not tried on such a GPU
@pytest.mark.parametrize(
    ("wanted", "names", "remark"),
    [
        ("MIG-11111111-1111-2222-3333-000000000001", ["MIG 3g.40gb"], ""),
        ("MIG-2222", ["MIG 1g.10gb+me"], ""),
        ("MIG-2222,MIG-1111", ["MIG 1g.10gb+me"], "one MIG device"),
        ("0", ["MIG 3g.40gb"], "one MIG device"),
        ("GPU-00000000-aaaa-bbbb-cccc-000000000001", ["MIG 3g.40gb"], "one MIG device"),
        (None, ["MIG 3g.40gb"], "one MIG device"),
        ("1", ["NVIDIA A100"], ""),
    ],
)
def test_mig_devices_count_as_cuda_shows_them(wanted, names, remark):
    seen = visible(parse(CUT_CSV), parse_mig(LISTING), wanted)
    assert [gpu.name.split(" of ")[0].removesuffix("-SXM4-80GB") for gpu in seen.gpus] == names
    assert remark in seen.remark and bool(seen.remark) == bool(remark)


def test_older_drivers_name_mig_devices_by_their_gpu():
    wanted = "MIG-GPU-00000000-aaaa-bbbb-cccc-000000000001/1/0"
    (one,) = visible(parse(CUT_CSV), parse_mig(OLD_LISTING), wanted).gpus
    assert one.name == "MIG 3g.20gb of A100-SXM4-40GB"


@pytest.mark.parametrize("wanted", ["MIG-33333333-1111-2222-3333-000000000003", "MIG-x"])
def test_a_mig_device_that_is_not_there_is_an_error(wanted):
    with pytest.raises(GpuError, match="MIG-11111111"):
        chosen(wanted, CUT_CSV, LISTING)


def test_a_gpu_in_mig_mode_without_a_device_is_an_error_alone_and_left_out_beside_others():
    with pytest.raises(GpuError, match="GPU 0 is in MIG mode without a MIG device"):
        chosen("0", CUT_CSV)
    seen = visible(parse(CUT_CSV), [], None)
    assert [gpu.index for gpu in seen.gpus] == ["1"]
    assert "left out" in seen.remark


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes the only tools on the PATH; its argument is a shell script."""
    for name in ("bash", "sh", "sleep", "env"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpus, "on_the_bus", lambda: 0)

    def make(name: str, script: str) -> None:
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)

    return make


def test_an_nvidia_smi_that_hangs_is_an_error_after_a_limit(tool, monkeypatch):
    monkeypatch.setattr(gpus, "LIMIT_S", 0.3)
    tool("nvidia-smi", "exec sleep 600")
    with pytest.raises(GpuError, match="nvidia-smi has not answered in 0 s"):
        gpus.find()


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18", "mismatch"),
        ("echo 'Insufficient Permissions'; exit 4", "Insufficient Permissions"),
        ("exit 255", "exit 255"),
    ],
)
def test_an_nvidia_smi_that_fails_is_an_error(tool, script, told):
    tool("nvidia-smi", script)
    with pytest.raises(GpuError, match=told):
        gpus.find()


def test_an_nvidia_smi_that_cannot_be_run_is_an_error(tool, tmp_path):
    tool("nvidia-smi", "")
    (tmp_path / "nvidia-smi").write_bytes(b"\x7fELF not really")
    with pytest.raises(GpuError, match="nvidia-smi does not run"):
        gpus.find()


NO_DRIVER = (
    "echo \"NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make "
    'sure that the latest NVIDIA driver is installed and running."; exit 9'
)


def test_no_devices_and_no_driver_without_a_gpu_are_no_gpu(tool, monkeypatch):
    assert gpus.find().gpus == []
    tool("nvidia-smi", "echo 'No devices were found'; exit 6")
    assert gpus.find().gpus == []
    tool("nvidia-smi", NO_DRIVER)
    assert gpus.find().gpus == []
    monkeypatch.setattr(gpus, "on_the_bus", lambda: 1)
    with pytest.raises(GpuError, match="communicate with the NVIDIA driver"):
        gpus.find()


def test_gpus_on_the_bus_without_an_nvidia_smi_are_remarked(tool, monkeypatch):
    monkeypatch.setattr(gpus, "on_the_bus", lambda: 4)
    seen = gpus.find()
    assert seen.gpus == [] and "--gpus all" in seen.remark


def test_a_driver_that_knows_no_mig_mode_is_asked_again_without(tool):
    tool(
        "nvidia-smi",
        "case $1 in *mig.mode*) echo 'Field \"mig.mode.current\" is not a valid field to query.'; "
        "exit 2;; esac\necho '0, GPU-1, OLD, 100, 3'",
    )
    assert [gpu.name for gpu in gpus.find().gpus] == ["OLD"]


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("rocm-smi", "echo 'GPU[0]\t\t: Device Name: AMD Instinct MI300X'"),
        ("amd-smi", "printf 'GPU: 0\\n    BDF: 0000:05:00.0\\n'"),
    ],
)
def test_amd_gpus_are_no_absence_of_gpus(tool, name, script):
    tool(name, script)
    with pytest.raises(GpuError, match=f"{name} lists AMD GPUs"):
        gpus.find()
    # beside a GPU of NVIDIA's they do not matter
    tool("nvidia-smi", "echo '0, GPU-1, H100, 100, 3, Disabled'")
    assert [gpu.name for gpu in gpus.find().gpus] == ["H100"]


def test_rocm_tools_without_a_gpu_are_no_gpu(tool):
    tool(
        "rocm-smi", "echo 'ERROR:root:Driver not initialized (amdgpu not found in modules)'; exit 1"
    )
    assert gpus.find().gpus == []


@pytest.mark.parametrize(
    ("smi", "visible_devices", "kind"),
    [
        ("echo '0, GPU-1, H100, 100, 3, Disabled'", None, "gpu"),
        ("echo '0, GPU-1, H100, 100, 3, Disabled'", "", "cpu"),
        ("echo 'No devices were found'; exit 6", None, "cpu"),
        ("echo 'Driver/library version mismatch'; exit 18", None, ""),
        ("echo '0, GPU-1, H100, 100, 3, Disabled'", "GPU-f", ""),
    ],
)
def test_the_environment_that_is_made_is_for_the_gpus_that_cuda_shows(
    smi: str, visible_devices: str | None, kind: str, tmp_path: Path
):
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{smi}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    script = (
        "set -euo pipefail; here=$PWD; source repro_pp_graphs/sh/step.sh; "
        'source repro_pp_graphs/sh/setup.sh; kind=$(environment_kind) || exit 2; echo "$kind"'
    )
    setting = "" if visible_devices is None else f"export CUDA_VISIBLE_DEVICES={visible_devices};"
    path = f"PATH={tmp_path}:$PATH; unset CUDA_VISIBLE_DEVICES; {setting}"
    done = ran(["bash", "-c", f"{path} {script}"], cwd=ROOT)
    assert done.stdout.strip() == kind
    assert done.returncode == (0 if kind else 2)
    assert ("--cpu for a rehearsal" in " ".join(done.stderr.split())) == (not kind)
