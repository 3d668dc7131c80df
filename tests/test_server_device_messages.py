"""Requests over the device, as in 0.5.2: once the loop has begun, and to their group alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from repro_pp_graphs.server.patching import device_messages


def utils() -> Any:
    calls: list[tuple] = []

    def point_to_point_pyobj(*arguments: Any, **more: Any) -> str:
        calls.append((arguments, more))
        return "own"

    module = SimpleNamespace(point_to_point_pyobj=point_to_point_pyobj, calls=calls)
    device_messages.patch(module)  # type: ignore[arg-type]
    return module


class InPlaceOf:
    """Requests that note what they are asked for."""

    cpu_group = "world cpu"

    def __init__(self) -> None:
        self.sent: list[tuple] = []

    def send(self, data: list, dst: int) -> None:
        self.sent.append((data, dst))

    def receive(self, src: int) -> list:
        return [f"from {src}"]


def test_requests_go_over_the_device_once_the_loop_has_begun(monkeypatch):
    monkeypatch.setattr(device_messages, "_in_use", [])
    module, requests = utils(), InPlaceOf()
    send = module.point_to_point_pyobj
    assert send([1], 0, "world cpu", 0, 1, async_send=True) == "own"
    device_messages.use(requests)  # type: ignore[arg-type]
    assert send([1], 0, "world cpu", 0, 1, async_send=False) == []
    assert send([], 1, "world cpu", 0, 1) == ["from 0"]
    assert send([], 2, "world cpu", 0, 1) == []  # neither end
    assert send([2], 0, "another group", 0, 1) == "own"
    assert requests.sent == [([1], 1)] and len(module.calls) == 2
