"""As much of torch as the stand-in sglang and the harness's shims touch."""

from types import SimpleNamespace

from torch import profiler  # noqa: F401

__version__ = "0.0+stand-in"


class _Library:
    def __init__(self, *_: object) -> None: ...

    def define(self, _: str) -> None: ...


def _load_library(path: str) -> None:
    raise OSError(f"{path}: a CUDA build")


ops = SimpleNamespace(load_library=_load_library)
library = SimpleNamespace(Library=_Library)
cuda = SimpleNamespace(device_count=lambda: 1)
