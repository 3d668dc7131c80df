"""Let sglang run on a CPU without the CUDA builds of its dependencies."""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any


def _absent_kernel(name: str) -> Callable[..., Any]:
    if name.startswith("__"):
        raise AttributeError(name)

    def call(*_args: object, **_kwargs: object) -> None:
        raise NotImplementedError(f"sgl_kernel.{name} was called; a CPU rehearsal has no kernels")

    return call


class _AbsentKernels:
    """`from sgl_kernel[.part] import anything` succeeds; calling it raises. Finder and loader
    without their classes of importlib.abc, whose import is 16 ms."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        # sglang takes the absence of this one part as an answer
        if fullname == "sgl_kernel.scalar_type" or fullname.partition(".")[0] != "sgl_kernel":
            return None
        loader: Any = self
        return importlib.machinery.ModuleSpec(fullname, loader, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        """As usual."""

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__getattr__"] = _absent_kernel
        module.__dict__["__version__"] = "99.0.0+absent"


def _declare_torchvision_operators(places: Sequence[str]) -> None:
    # torchvision from PyPI is a CUDA build: its library does not load beside a CPU torch, and
    # `import torchvision` fails for want of these two declarations
    import torch  # noqa: PLC0415

    with contextlib.suppress(OSError):
        for path in (path for place in places for path in Path(place).glob("_C*.so")):
            torch.ops.load_library(str(path))
            return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(library)


def _use_sglangs_triton_stub() -> None:
    # releases up to 0.5.16 or so carry a stand-in for triton; newer ones need the package
    if importlib.util.find_spec("triton") is not None:
        return
    root = importlib.util.find_spec("sglang")
    places = root.submodule_search_locations if root else None
    stub = Path(places[0]) / "_triton_stub.py" if places else None
    if stub is None or not stub.exists():
        return
    # torch must conclude "no triton" before the stand-in appears
    import torch._inductor.runtime.triton_compat  # noqa: F401, PLC0415
    from torch.utils._triton import has_triton_package  # noqa: PLC0415

    has_triton_package()
    spec = importlib.util.spec_from_file_location("_sglang_triton_stub", stub)
    if spec and spec.loader:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.install()


_kept: list[object] = []


def _kernels_load() -> bool:
    """Whether sgl_kernel is here for this machine: its CUDA build needs a driver's libcuda."""
    if importlib.util.find_spec("sgl_kernel") is None:
        return False
    try:
        import sgl_kernel  # type: ignore[import-not-found,unused-ignore] # noqa: F401, PLC0415
    except (ImportError, OSError):
        for name in [name for name in sys.modules if name.partition(".")[0] == "sgl_kernel"]:
            del sys.modules[name]
        return False
    return True


def install() -> None:
    """Declare, before sglang is imported, what it looks for and a CPU box lacks."""
    os.environ.setdefault("SGLANG_USE_CPU_ENGINE", "1")
    if not _kernels_load():
        sys.meta_path.insert(0, _AbsentKernels())
    vision = importlib.util.find_spec("torchvision")
    if vision is not None:
        _declare_torchvision_operators(vision.submodule_search_locations or ())
    _use_sglangs_triton_stub()
