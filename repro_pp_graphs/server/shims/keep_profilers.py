"""Keep every torch profiler alive until its process ends."""

from __future__ import annotations

from typing import Any

_kept: list[Any] = []


def install() -> None:
    """Remember each profiler, so that none is garbage-collected while another records."""
    import torch  # noqa: PLC0415 - imported only in a server process

    start = torch.profiler.profile.start

    def start_and_keep(self: Any) -> None:  # noqa: ANN401
        _kept.append(self)
        start(self)

    torch.profiler.profile.start = start_and_keep
