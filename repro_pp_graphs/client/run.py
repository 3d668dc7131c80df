"""What one run left."""

from __future__ import annotations

from dataclasses import dataclass, field

from .clock import KernelClock
from .stream import Stream
from .warm_up import WarmUpPass


@dataclass
class Run:
    """What one run left, unparsed."""

    streams: list[Stream] = field(default_factory=list)
    begin_ns: int = 0
    end_ns: int = 0
    cpu_s: float = 0.0
    interrupted: bool = False
    reader: str = ""
    clock: KernelClock = field(default_factory=KernelClock)
    warm_up_passes: list[WarmUpPass] = field(default_factory=list)  # that went before it
    control_ttft_ms: list[float] = field(default_factory=list)  # one a control request after it
