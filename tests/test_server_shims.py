"""The named shims: each changes one thing, and undoes or announces it."""

from __future__ import annotations

import json
import os
import pkgutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from programs import ran

from repro_pp_graphs.server import shim_names, shims
from repro_pp_graphs.server.shims import cpu, even_router, one_gpu, trace_rank

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("name", "ranked"),
    [
        # 0.5.2: profile id, TP rank, stage
        ("1757671200.1-TP-0.trace.json.gz", "1757671200.1-TP-0-PP-3.trace.json.gz"),
        ("1757671200.1-TP-10.trace.json.gz", "1757671200.1-TP-10-PP-3.trace.json.gz"),
        ("1757671200.1-TP-0-DECODE.trace.json.gz", "1757671200.1-TP-0-PP-3-DECODE.trace.json.gz"),
        ("1757671200.1-TP-1-EXTEND.trace.json.gz", "1757671200.1-TP-1-PP-3-EXTEND.trace.json.gz"),
        # newer releases say it themselves
        ("CASE_A-TP-0-PP-1.trace.json.gz", "CASE_A-TP-0-PP-1.trace.json.gz"),
        ("1-TP-0-DP-1-PP-2-EP-0.trace.json.gz", "1-TP-0-DP-1-PP-2-EP-0.trace.json.gz"),
        # not a rank's trace
        ("other.json", "other.json"),
    ],
)
def test_a_trace_without_its_pp_rank_gets_it(name, ranked):
    assert trace_rank.ranked_name(f"/out-PP-9/x-TP-0.d/{name}", 3, 4) == (
        f"/out-PP-9/x-TP-0.d/{ranked}"
    )
    assert trace_rank.ranked_name(name, 3, 4) == ranked


def test_without_pipeline_ranks_a_trace_keeps_its_name():
    assert trace_rank.ranked_name("1-TP-0.trace.json.gz", 0, 1) == "1-TP-0.trace.json.gz"


def test_names_stay_distinct_over_all_ranks():
    names = {
        trace_rank.ranked_name(f"1-TP-{tp}{stage}.trace.json.gz", pp, 4)
        for tp in range(2)
        for pp in range(4)
        for stage in ("", "-EXTEND")
    }
    assert len(names) == 16


@pytest.fixture
def two_gpus(monkeypatch):
    fake = SimpleNamespace(cuda=SimpleNamespace(device_count=lambda: 2))
    monkeypatch.setitem(sys.modules, "torch", fake)


@pytest.mark.parametrize(
    ("listed", "shown"), [(None, ["0", "1", "0", "1"]), ("GPU-a,GPU-b", ["GPU-a", "GPU-b"] * 2)]
)
def test_ranks_share_the_devices_round_robin(two_gpus, monkeypatch, listed, shown):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if listed:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    seen = []
    for rank in range(4):
        with one_gpu.share_device(rank) as device:
            seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
            assert device == 0  # the rank sees one device only
    assert seen == shown
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == listed


def test_a_failed_spawn_restores_the_devices(two_gpus, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    with pytest.raises(OSError, match="spawn"), one_gpu.share_device(1):
        raise OSError("spawn")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1,0"


def test_a_run_may_use_fewer_devices_than_there_are(two_gpus, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6,7")
    monkeypatch.setenv(one_gpu.GPUS_ENV, "2")
    seen = []
    for rank in range(4):
        with one_gpu.share_device(rank):
            seen.append((os.environ["CUDA_VISIBLE_DEVICES"], os.environ["NCCL_HOSTID"][-1]))
    assert seen == [("5", "0"), ("6", "0"), ("5", "1"), ("6", "1")]
    assert "NCCL_HOSTID" not in os.environ


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_no_two_ranks_of_one_host_are_on_one_device(devices):
    places = [(one_gpu.host_of(rank, devices, 77), rank % devices) for rank in range(8)]
    assert len(set(places)) == 8


# a release before 0.5.4 and one since, as far as the shim takes hold of them
SCHEDULER_SOURCE = """
import os
def run_scheduler_process(server_args, port_args, gpu_id, tp_rank, *rest):
    rest[-1].send((gpu_id, os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ["NCCL_HOSTID"]))
"""
OLD_ENGINE = """
import multiprocessing
from sglang.srt.managers.scheduler import run_scheduler_process
def launch(ranks):
    spawn, found = multiprocessing.get_context("spawn"), []
    for gpu_id in range(ranks):
        reader, writer = spawn.Pipe(duplex=False)
        args = (None, None, gpu_id, 0, writer)
        spawn.Process(target=run_scheduler_process, args=args).start()
        found.append(reader.recv())
    return found
"""
NEW_ENGINE = (
    OLD_ENGINE.replace("for gpu_id in", "for wanted in")
    .replace(
        "        reader,",
        "        with maybe_reindex_device_id(wanted) as gpu_id:\n         reader,",
    )
    .replace("        args =", "         args =")
    .replace("        spawn.P", "         spawn.P")
    .replace("        found.a", "         found.a")
    + "def maybe_reindex_device_id(gpu_id): ...\n"
)


@pytest.mark.parametrize(
    ("engine", "seen"),
    [
        (OLD_ENGINE, [[0, None], [1, None], [0, None], [1, None]]),
        (NEW_ENGINE, [[0, "0"], [0, "1"], [0, "0"], [0, "1"]]),
    ],
)
def test_every_release_gives_its_spawned_ranks_their_device_and_host(tmp_path, engine, seen):
    for name, text in {
        "sglang/srt/managers/scheduler.py": SCHEDULER_SOURCE,
        "sglang/srt/entrypoints/engine.py": engine,
        "torch.py": "class cuda:\n    device_count = staticmethod(lambda: 2)\n",
        "sglang/launch_server.py": "import json\nfrom sglang.srt.entrypoints.engine import launch\n"
        "if __name__ == '__main__':\n    print(json.dumps(launch(4)))\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if path.parent != tmp_path:
            (path.parent / "__init__.py").touch()
    for package in ("sglang", "sglang/srt"):
        (tmp_path / package / "__init__.py").touch()
    env = {key: value for key, value in os.environ.items() if not key.startswith("CUDA_")}
    env |= {"PYTHONPATH": f"{tmp_path}:{ROOT}", shim_names.ENV_NAME: "one_gpu"}
    done = ran([sys.executable, "-m", "repro_pp_graphs.server.launch"], env=env)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [each[:2] for each in found] == seen
    hosts = [each[2] for each in found]
    assert hosts[0] == hosts[1] != hosts[2] == hosts[3]


@pytest.fixture
def absent_kernels(monkeypatch):
    finder = cpu._AbsentKernels()
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "sgl_kernel"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("init", "loads"),
    [
        (None, False),
        ("", True),
        # the CUDA build on a machine without a driver
        ("from sgl_kernel import loader", False),
        ("import ctypes; ctypes.CDLL('libno-such-driver.so.1')", False),
    ],
)
def test_kernels_that_do_not_load_here_are_as_absent(init, loads, tmp_path, monkeypatch):
    if init is not None:
        (tmp_path / "sgl_kernel").mkdir()
        (tmp_path / "sgl_kernel" / "__init__.py").write_text(init)
        (tmp_path / "sgl_kernel" / "loader.py").write_text("raise ImportError('libcuda.so.1')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "sgl_kernel", raising=False)
    assert cpu._kernels_load() == loads
    assert ("sgl_kernel" in sys.modules) == loads
    sys.modules.pop("sgl_kernel", None)


def test_absent_kernels_import_but_refuse_to_run(absent_kernels):
    import sgl_kernel  # noqa: PLC0415
    from sgl_kernel import rmsnorm  # noqa: PLC0415
    from sgl_kernel.flash_attn import flash_attn_varlen_func  # noqa: PLC0415

    for kernel in (rmsnorm, flash_attn_varlen_func):
        with pytest.raises(NotImplementedError, match="CPU rehearsal"):
            kernel(1, out=2)
    assert not hasattr(sgl_kernel, "__wrapped__")


def test_the_kernel_part_whose_absence_is_an_answer_stays_absent(absent_kernels):
    with pytest.raises(ImportError):
        import sgl_kernel.scalar_type  # noqa: F401, PLC0415


def test_other_missing_packages_stay_missing(absent_kernels):
    with pytest.raises(ImportError):
        import sgl_kernel_of_another_kind  # noqa: F401, PLC0415


def test_an_unknown_shim_ends_the_server_with_its_name():
    done = ran(
        [sys.executable, "-c", "from repro_pp_graphs.server import shims; shims.install_all()"],
        cwd=ROOT,
        env={**os.environ, shim_names.ENV_NAME: "keep_profiler"},
    )
    assert done.returncode == 1
    assert "keep_profiler'" in done.stderr and "keep_profilers" in done.stderr


def test_every_shim_has_a_module_and_a_reason():
    modules = {module.name for module in pkgutil.iter_modules(shims.__path__)}
    assert modules == set(shim_names.REASONS)


def test_keep_profilers_holds_on_to_a_finished_profiler(monkeypatch):
    from repro_pp_graphs.server.shims import keep_profilers  # noqa: PLC0415

    started = []

    class Profile:
        def start(self):
            started.append(self)

    fake = SimpleNamespace(profiler=SimpleNamespace(profile=Profile))
    monkeypatch.setitem(sys.modules, "torch", fake)
    monkeypatch.setattr(keep_profilers, "_kept", [])
    keep_profilers.install()
    one = Profile()
    one.start()
    assert started == [one] and keep_profilers._kept == [one]


@pytest.mark.parametrize("loads", [True, False])
def test_torchvisions_operators_are_declared_only_where_its_library_does_not_load(
    monkeypatch, tmp_path, loads
):
    (tmp_path / "_C.so").touch()
    asked, declared = [], []

    def load(path: str) -> None:
        asked.append(path)
        if not loads:
            raise OSError("libcudart.so.13: cannot open shared object file")

    class Library:
        def __init__(self, *_): ...

        def define(self, schema):
            declared.append(schema.partition("(")[0])

    fake = SimpleNamespace(
        ops=SimpleNamespace(load_library=load), library=SimpleNamespace(Library=Library)
    )
    monkeypatch.setitem(sys.modules, "torch", fake)
    cpu._declare_torchvision_operators([str(tmp_path)])
    assert asked == [str(tmp_path / "_C.so")]
    assert declared == ([] if loads else ["nms", "qnms"])


def test_the_router_s_biases_are_0_after_the_dummy_weights_are_filled():
    torch = pytest.importorskip("torch")
    model = torch.nn.Module()
    model.gate = torch.nn.Module()
    model.gate.weight = torch.nn.Parameter(torch.empty(4, 2))
    model.gate.e_score_correction_bias = torch.nn.Parameter(torch.empty(4))
    kept = model.gate.e_score_correction_bias.data  # as the choice of experts keeps it

    def fill(module):
        for each in module.state_dict().values():
            each.uniform_(1, 2)

    loader = ModuleType("loader")
    loader.initialize_dummy_weights = fill
    even_router._patch(loader)
    loader.initialize_dummy_weights(model)
    assert kept.tolist() == [0, 0, 0, 0]
    assert model.gate.weight.min() >= 1
