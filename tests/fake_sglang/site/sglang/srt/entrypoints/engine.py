"""Where the ranks get their device: the one_gpu shim replaces this function, as in sglang."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def maybe_reindex_device_id(gpu_id: int) -> Iterator[int]:
    yield gpu_id
