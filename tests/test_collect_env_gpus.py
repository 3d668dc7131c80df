"""What is collected of GPUs: eight in one line a fact, what failed, and what is to be looked at."""

from __future__ import annotations

from pathlib import Path

import pytest
from collect_env_harness import NVIDIA_SMI, bare, collect, tool

pytestmark = pytest.mark.launches


def test_eight_gpus_are_told_in_one_line_a_fact(tmp_path: Path) -> None:
    facts = collect(env=bare(tool(tmp_path, "nvidia-smi", NVIDIA_SMI)))
    gpus = facts["gpus"]
    assert facts["summary"]["GPUs"] == "8 x NVIDIA H100 80GB HBM3"
    assert facts["summary"]["driver"] == "570.86.15"
    assert facts["summary"]["topology"] == "28 x NV18"
    assert gpus["clocks.sm"] == "1980 MHz (0,1,2,3,4,5,6), 345 MHz (7)"
    assert gpus["clocks_event_reasons.active"] == (
        "none (0,1,2,3,4,5,6), hardware slowdown + hardware thermal (7)"
    )
    assert gpus["pci.bus_id"].startswith("00000000:00:00.0, 00000000:01:00.0, ")
    assert facts["summary"]["look at"].count("throttled") == 1
    assert "fabric.state" not in gpus  # this driver does not know it
    assert gpus["topology"].splitlines()[1].split()[:3] == ["GPU0", "X", "NV18"]
    assert "Legend" not in gpus["topology"]
    assert gpus["NVLinks, all GPUs"] == "143 x 26.562 GB/s, 1 x <inactive>"
    assert "/home/<user>/bin/python" in gpus["processes"]
    assert gpus["remapped rows, pending"] == "No (0,1,2,3,4,5,7), Yes (6)"
    assert gpus["remapped rows, correctable error"] == "0"
    assert gpus["held back, sw power capping"].endswith("600 us, 700 us")
    assert not [key for key in gpus if "max" in key and "remapped" in key]
    assert "remapped rows, pending" in facts["summary"]["look at"]

    for worry in ("throttled", "uncorrected ECC errors: 0 (0,1,2,4,5,6,7), 2 (3)", "persistence"):
        assert worry in facts["summary"]["look at"]


def test_amd_gpus_are_told_by_rocm_smi(tmp_path: Path) -> None:
    said = "GPU[0] : Card Series: AMD Instinct MI300X"
    path = tool(tmp_path, "rocm-smi", f'#!/bin/bash\necho "{said}"\n')
    assert collect(env=bare(path))["gpus"]["AMD tools"] == said
    assert collect()["gpus"]["AMD tools"] == "amd-smi, rocm-smi: not found"


def test_nvidia_smi_that_fails_is_quoted(tmp_path: Path) -> None:
    said = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
    path = tool(tmp_path, "nvidia-smi", f'#!/bin/bash\necho "{said}"\nexit 9\n')
    assert collect(env=bare(path))["gpus"]["nvidia-smi"] == said


def test_xid_lines_of_the_kernel_log_are_shown_and_noted(tmp_path: Path) -> None:
    tool(tmp_path, "nvidia-smi", NVIDIA_SMI)
    xid = "[12.3] NVRM: Xid (PCI:0000:01:00): 79, pid=77, GPU has fallen off the bus."
    path = tool(tmp_path, "dmesg", f'#!/bin/bash\necho "[1.0] boot"\necho "{xid}"\n')
    facts = collect(env=bare(path))
    assert facts["gpus"]["Xid lines"] == xid
    assert "Xid" in facts["summary"]["look at"]
