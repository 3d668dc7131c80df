"""A rank's own batches in the loop: when the GPU is asked for them, and which it missed."""

from __future__ import annotations

import itertools
import time
from types import SimpleNamespace
from typing import Any

from fake_gpu_clock import CUDA
from pp_clock_fakes import Batch, go, kinds, made

from repro_pp_graphs.pp_clock import device
from repro_pp_graphs.server.shims import pp_clock
from repro_pp_graphs.server.shims.pp_clock import clock as clock_module
from repro_pp_graphs.server.shims.pp_clock.clock import Clock

__all__ = ["made"]  # a fixture


class Noted:
    """In place of a DeviceClock: when what of it was called."""

    def __init__(self, order: list[str]) -> None:
        self.order = order
        self.missed: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: self.order.append(name)


def test_what_the_gpu_did_is_read_after_a_launch_never_between_results_and_launch(
    made, monkeypatch
):
    order: list[str] = []
    kind, torch, _ = made

    def device_clock(clock: Clock, torch: Any) -> str:
        clock.device = Noted(order)  # type: ignore[assignment]
        return ""

    monkeypatch.setattr(pp_clock, "_device_clock", device_clock)
    scheduler = kind(torch)
    monkeypatch.setattr(scheduler.event, "synchronize", lambda: order.append("results"))
    runner = scheduler.tp_worker.model_runner
    monkeypatch.setattr(runner, "forward", lambda forward_batch: order.append("first kernel"))
    go(made, *[Batch(True, 1)] * 3, None, None, scheduler=scheduler)
    launch = ["expect", "begin", "first kernel", "end", "read", "renew", "results"]
    # the clocks are tied anew, rarely, after a launch; without one the turn after does what is left
    assert order == [
        *("read", "renew", *launch),
        *("renew", *launch) * 2,  # where none could be after a launch
        *("renew", *("read", "renew") * 3),
    ]


def test_a_gpu_whose_idle_stream_waits_for_its_batches_is_tied_where_it_is_idle(made, monkeypatch):
    for name in ("RENEW_NS", "TRY_AGAIN_NS", "OLDEST_NS"):  # always due, soon too old
        monkeypatch.setattr(device, name, 0)
    for name in ("RENEW_NS", "LATE_NS"):
        monkeypatch.setattr(clock_module, name, 0)
    monkeypatch.setattr(device.DeviceClock.renew, "__defaults__", (0,))
    monkeypatch.setattr(CUDA, "begin_ns", time.monotonic_ns())
    monkeypatch.setattr(CUDA, "stuck", False)

    def device_clock(clock: Clock, torch: Any) -> str:
        clock.device = device.DeviceClock(CUDA, clock.own_batch)
        return ""

    monkeypatch.setattr(pp_clock, "_device_clock", device_clock)
    kind, torch, _ = made
    scheduler = kind(torch)
    runner = scheduler.tp_worker.model_runner
    monkeypatch.setattr(runner, "forward", lambda forward_batch: setattr(CUDA, "stuck", True))
    monkeypatch.setattr(scheduler.event, "synchronize", lambda: setattr(CUDA, "stuck", False))
    ticks = itertools.count(1, 1000)  # of a host that is never held up
    monkeypatch.setattr(device, "time", SimpleNamespace(monotonic_ns=lambda: next(ticks)))
    _, found = go(made, *[Batch(True, 1)] * 3, None, None, scheduler=scheduler)
    assert kinds(found)["own_batch"] == 3


def test_batches_that_the_gpus_clock_missed_are_in_the_header_by_reason(made, monkeypatch):
    monkeypatch.setattr(CUDA, "stuck", True)  # no base passes

    def device_clock(clock: Clock, torch: Any) -> str:
        clock.device = device.DeviceClock(CUDA, clock.own_batch)
        return ""

    monkeypatch.setattr(pp_clock, "_device_clock", device_clock)
    _, found = go(made, *[Batch(True, 1)] * 3, None, None)
    assert found.header["missed"] == {"untied": 3, "unread": 0, "captured": 0}
    assert kinds(found)["launch"] == 3 and "own_batch" not in kinds(found)
