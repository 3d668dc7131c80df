"""Let a release with asynchronous PP sends (0.5.7 and newer) send as sglang 0.5.2 does.

In 0.5.2 every PP send holds the host. The metadata of a message is pickled, copied from pageable
memory to the GPU (which waits for all work queued on that stream: the rank's own decode graph),
its size goes over gloo (which waits for the receiver), and the message follows over NCCL. This
shim restores those steps, the one stream of batches and messages, and 0.5.2's order of a turn,
without which a ring of blocking sends deadlocks:

    last rank   receive requests, hidden states; launch; send tokens; receive tokens
    others      receive requests (, hidden states); launch; receive tokens; send the tokens of the
                turn before, then the requests, then the hidden states

Two differences remain: the requests go over the CPU group, where 0.5.2 uses NCCL, and the host
processes a batch's tokens after it has sent the older ones on, not before.
"""

from __future__ import annotations

import importlib.util
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from repro_pp_graphs.server.after_import import after_import
from repro_pp_graphs.server.source import ClassSource, text_of

LOOP_FILE = "srt/managers/scheduler_pp_mixin.py"
GROUP_FILE = "srt/distributed/parallel_state.py"
ACTIVE = "repro shim sync_send is active"  # a rank's line in the server's log

_EXCHANGE = "_pp_send_recv_and_preprocess_output_tensors"
_OUTPUT_ARGUMENTS = ("next_first_rank_mb_id", "mbs", "last_rank_comm_queue", "pp_outputs")
# what is replaced or relied on: its parameters after self, the same from 0.5.7 to 0.5.23
_LOOP_SHAPES = {
    "event_loop_pp": (),
    "_pp_send_pyobj_to_next_stage": ("data", "async_send"),
    "_pp_send_dict_to_next_stage": ("tensor_dict", "async_send"),
    "_pp_send_output_to_next_stage": _OUTPUT_ARGUMENTS,
    _EXCHANGE: (_OUTPUT_ARGUMENTS[0], "next_mb_id", "mbs", "mb_metadata", *_OUTPUT_ARGUMENTS[2:]),
}
_GROUP_SHAPES = {
    "send_object": ("obj", "dst", "async_send"),
    "recv_object": ("src",),
    "send_tensor_dict": ("tensor_dict", "dst", "all_gather_group", "async_send"),
    "recv_tensor_dict": ("src", "all_gather_group"),
}
_LATER_PARAMETERS = {"tag", "msg_type", "ready_event"}
# the order of a turn that makes it safe to move the sends of requests and tokens
_TURN = (
    "_pp_send_pyobj_to_next_stage",
    "_pp_recv_proxy_tensors",
    "_pp_commit_send_output_work_and_preprocess_output_tensors",
    "_pp_send_dict_to_next_stage",
)


def misfit(place: Path) -> str:
    """Why the shim does not suit the sglang whose package folder is `place`; empty if it does."""
    loop = ClassSource(text_of(place, LOOP_FILE), "SchedulerPPMixin")
    group = ClassSource(text_of(place, GROUP_FILE), "GroupCoordinator")
    if "async_send" not in loop.parameters("_pp_send_dict_to_next_stage"):
        if text_of(place, GROUP_FILE):
            return "this release already sends synchronously"
        return f"no {GROUP_FILE} in {place}"
    for source, shapes in ((loop, _LOOP_SHAPES), (group, _GROUP_SHAPES)):
        for method, wanted in shapes.items():
            found = source.parameters(method)
            if found[: len(wanted) + 1] != ("self", *wanted) or (
                set(found[len(wanted) + 1 :]) - _LATER_PARAMETERS
            ):
                return f"it does not know this release: {method}({', '.join(found)})"
    # from 0.5.21 the hidden states have a method of their own
    turn = [
        "_pp_send_dict_to_next_stage" if name == "_pp_send_proxy_to_next_stage" else name
        for name in loop.calls("event_loop_pp")
    ]
    if tuple(dict.fromkeys(name for name in turn if name in _TURN)) != _TURN:
        return "it does not know this release: event_loop_pp sends in another order"
    for source, caller, callee in (
        (loop, _EXCHANGE, "_pp_send_output_to_next_stage"),
        (group, "send_tensor_dict", "send_object"),
        (group, "recv_tensor_dict", "recv_object"),
    ):
        if callee not in source.calls(caller):
            return f"it does not know this release: {caller} does not call {callee}"
    return ""


class _Requests:
    """The requests of a turn, kept until 0.5.2 would send them."""

    def __init__(self, send: Callable[..., Any]) -> None:
        self._send = send
        self._kept: object = None

    def keep(self, data: object, async_send: bool = False) -> list[Any]:
        """In place of the early send; there is no work to wait for."""
        del async_send
        self._kept = data
        return []

    def send(self) -> None:
        """Send what is kept, and wait for the receiver."""
        self._send(self._kept, async_send=False)


class _Messages:
    """A pipeline group's pickled messages over the device, as 0.5.2 sends them."""

    def __init__(self, group: Any) -> None:  # noqa: ANN401
        self._group = group
        self._send, self._receive = group.send_object, group.recv_object

    def send(self, obj: object, dst: int, async_send: bool = False, tag: int = 0) -> list[Any]:
        """Pickle, copy from pageable memory, send the size over gloo, then the message."""
        if tag:  # not the PP loop's: the other end expects the release's own way
            works: list[Any] = self._send(obj, dst, async_send=async_send, tag=tag)
            return works
        import torch  # noqa: PLC0415

        group = self._group
        message = torch.frombuffer(bytearray(pickle.dumps(obj)), dtype=torch.uint8)
        message = message.to(group.device)
        size = torch.tensor([message.numel()], dtype=torch.long)
        torch.distributed.send(size, group.ranks[dst], group=group.cpu_group)
        torch.distributed.send(message, group.ranks[dst], group=group.device_group)
        return []

    def receive(self, src: int, tag: int = 0) -> Any:  # noqa: ANN401
        """The mirror image of send."""
        if tag:
            return self._receive(src, tag=tag)
        import torch  # noqa: PLC0415

        group = self._group
        size = torch.empty(1, dtype=torch.long)
        torch.distributed.recv(size, group.ranks[src], group=group.cpu_group)
        message = torch.empty(int(size.item()), dtype=torch.uint8, device=group.device)
        torch.distributed.recv(message, group.ranks[src], group=group.device_group)
        return pickle.loads(message.cpu().numpy().tobytes())


def send_synchronously(scheduler: Any) -> None:  # noqa: ANN401
    """Replace one scheduler's sends; call it before its event_loop_pp begins."""
    group = scheduler.pp_group
    messages = _Messages(group)
    group.send_object, group.recv_object = messages.send, messages.receive

    send_dict = scheduler._pp_send_dict_to_next_stage
    send_output = scheduler._pp_send_output_to_next_stage
    exchange = getattr(scheduler, _EXCHANGE)
    requests = _Requests(scheduler._pp_send_pyobj_to_next_stage)

    def send_dict_and_wait(tensor_dict: object, async_send: bool = True, **more: object) -> object:
        del async_send
        return send_dict(tensor_dict, async_send=False, **more)

    def exchange_in_order(*arguments: Any) -> Any:  # noqa: ANN401
        # 0.5.2's order, in which every send finds its receiver waiting
        first, _, mbs, _, queue, pp_outputs = arguments
        if scheduler.launch_event is not None:
            scheduler.launch_event.wait()  # one stream, as there: messages follow the own batch
        if group.is_last_rank:
            send_output(first, mbs, queue, pp_outputs)
        received = exchange(*arguments)
        if not group.is_last_rank:
            send_output(first, mbs, queue, pp_outputs)
            requests.send()
        return received

    scheduler._pp_send_pyobj_to_next_stage = requests.keep
    scheduler._pp_send_dict_to_next_stage = send_dict_and_wait
    scheduler._pp_send_output_to_next_stage = lambda *_: []  # exchange_in_order sends
    setattr(scheduler, _EXCHANGE, exchange_in_order)
    logging.getLogger(__name__).info(
        "%s: PP rank %d of %d blocks on every send", ACTIVE, group.rank_in_group, group.world_size
    )


def patch(module: ModuleType) -> None:
    """Make every scheduler of that scheduler_pp_mixin send synchronously in its event_loop_pp."""
    mixin = module.SchedulerPPMixin
    loop = mixin.event_loop_pp

    def event_loop_pp(self: Any) -> None:  # noqa: ANN401
        send_synchronously(self)
        loop(self)

    mixin.event_loop_pp = event_loop_pp


def install() -> None:
    """Patch sglang's PP loop once it is imported: importing it here would change the order."""
    after_import("sglang." + LOOP_FILE[:-3].replace("/", "."), patch)


def install_in_server() -> None:
    """In the process that spawns the ranks: end it where the shim does not suit the release."""
    spec = importlib.util.find_spec("sglang")
    place = Path((spec.submodule_search_locations or [""])[0]) if spec else Path()
    if reason := misfit(place):
        raise SystemExit(f"shim sync_send: {reason}; leave the case out")
