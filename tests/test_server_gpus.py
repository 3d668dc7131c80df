"""Which GPUs a run may use: nvidia-smi's list, as CUDA_VISIBLE_DEVICES narrows it."""

from __future__ import annotations

import pytest

from repro_pp_graphs.server.gpus import Gpu, parse, visible

CSV = """\
0, GPU-8f1c0a3e-0000-0000-0000-000000000000, NVIDIA H200, 143771, 0
1, GPU-27d4bb10-1111-1111-1111-111111111111, NVIDIA H200, 143771, 120310
2, GPU-27e95c6f-2222-2222-2222-222222222222, NVIDIA H200, 143771, 4
"""


def test_nvidia_smis_lines_become_gpus():
    first, second, _ = parse(CSV)
    assert first == Gpu("0", "GPU-8f1c0a3e-0000-0000-0000-000000000000", "NVIDIA H200", 143771, 0)
    assert second.used_mib == 120310


@pytest.mark.parametrize(
    "text",
    ["", "No devices were found\n", "NVIDIA-SMI has failed because it couldn't communicate\n"],
)
def test_nvidia_smi_without_gpus_is_no_gpu(text):
    assert parse(text) == []


@pytest.mark.parametrize(
    ("wanted", "indices"),
    [
        (None, "012"),
        ("", ""),
        ("1", "1"),
        ("2,0", "20"),
        (" 2 , 0 ", "20"),
        ("-1", ""),
        ("0,-1,2", "0"),
        ("0,7,1", "0"),
        ("GPU-27e95c6f-2222-2222-2222-222222222222", "2"),
        ("GPU-27e,GPU-8f", "20"),
        ("GPU-ffff,0", ""),
        ("NoDevFiles", ""),
    ],
)
def test_cuda_visible_devices_narrows_and_orders_as_cuda_does(wanted, indices):
    assert "".join(gpu.index for gpu in visible(parse(CSV), wanted)) == indices
