"""Let a release with asynchronous PP sends (0.5.7 and newer) send as sglang 0.5.2 does.

In 0.5.2 every PP send holds the host. The metadata of a message is pickled, copied from pageable
memory to the GPU (which waits for all work queued on that stream: the rank's own decode graph),
its size goes over gloo (which waits for the receiver), and the message follows over NCCL. Requests
go over NCCL too. This shim restores those steps, the one stream of batches and messages, and
0.5.2's order of a turn, without which a ring of blocking sends deadlocks:

    last rank   receive requests, hidden states; launch; send tokens; receive tokens; process them
    others      receive requests (, hidden states); launch; receive tokens; process them; send the
                tokens of the turn before, then the requests, then the hidden states

What differs still is the release's own work on the host (docs/mechanism.md).
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from repro_pp_graphs.server import shim_names, shims
from repro_pp_graphs.server.patching import device_messages
from repro_pp_graphs.server.patching.after_import import after_import
from repro_pp_graphs.server.patching.device_messages import Messages, PageableCopies, Requests
from repro_pp_graphs.server.release import pp_loop

ACTIVE = shim_names.active("sync_send")

misfit = pp_loop.misfit
Copies = Callable[[Any], PageableCopies]


class _Later:
    """What a turn has to send once its results are processed: tokens, then requests."""

    def __init__(self, send_requests: Callable[..., Any]) -> None:
        self._send_requests = send_requests
        self._requests: object = None
        self._tokens: Callable[[], object] | None = None

    def keep_requests(self, data: object, async_send: bool = False) -> list[Any]:
        """In place of the early send; there is no work to wait for."""
        del async_send
        self._requests = data
        return []

    def keep_tokens(self, send: Callable[[], object]) -> None:
        """`send` sends the tokens that this rank passes on, if there are some."""
        self._tokens = send

    def send(self) -> None:
        """Send what is kept, and wait for the receiver; nothing where that is done already."""
        if self._tokens is None:
            return
        tokens, self._tokens = self._tokens, None
        tokens()
        self._send_requests(self._requests, async_send=False)


def send_synchronously(
    scheduler: Any,  # noqa: ANN401
    copies: Copies = PageableCopies,
    active: str = ACTIVE,
) -> None:
    """Replace one scheduler's sends; call it before its event_loop_pp begins."""
    group = scheduler.pp_group
    messages = Messages(group, copies(group.device))
    group.send_object, group.recv_object = messages.send, messages.receive
    device_messages.use(Requests(scheduler.world_group, copies(group.device)))

    send_dict = scheduler._pp_send_dict_to_next_stage
    send_output = scheduler._pp_send_output_to_next_stage
    process = scheduler._pp_process_batch_result
    exchange = getattr(scheduler, pp_loop.EXCHANGE)
    later = _Later(scheduler._pp_send_pyobj_to_next_stage)

    def send_dict_and_wait(tensor_dict: object, async_send: bool = True, **more: object) -> object:
        del async_send
        return send_dict(tensor_dict, async_send=False, **more)

    def exchange_in_order(*arguments: Any) -> Any:  # noqa: ANN401
        # 0.5.2's order, in which every send finds its receiver waiting
        first, next_mb_id, mbs, _, queue, pp_outputs = arguments
        if scheduler.launch_event is not None:
            scheduler.launch_event.wait()  # one stream, as there: messages follow the own batch
        if group.is_last_rank:
            send_output(first, mbs, queue, pp_outputs)
            return exchange(*arguments)
        received = exchange(*arguments)
        later.keep_tokens(lambda: send_output(first, mbs, queue, pp_outputs))
        # with a batch more in flight the results are processed after the next launch
        if mbs[next_mb_id] is None or scheduler.pp_loop_size > group.world_size:
            later.send()
        return received

    def process_then_send(*arguments: Any, **more: Any) -> Any:  # noqa: ANN401
        result = process(*arguments, **more)
        later.send()
        return result

    scheduler._pp_send_pyobj_to_next_stage = later.keep_requests
    scheduler._pp_send_dict_to_next_stage = send_dict_and_wait
    scheduler._pp_send_output_to_next_stage = lambda *_: []  # exchange_in_order sends
    scheduler._pp_process_batch_result = process_then_send
    setattr(scheduler, pp_loop.EXCHANGE, exchange_in_order)
    shims.announce(active, group, " blocks on every send")


def patch(module: ModuleType, change: Callable[[Any], None] | None = None) -> None:
    """Let every scheduler of that scheduler_pp_mixin begin its event_loop_pp with `change`; with
    send_synchronously where none is given."""
    mixin = module.SchedulerPPMixin
    loop = mixin.event_loop_pp

    def event_loop_pp(self: Any) -> None:  # noqa: ANN401
        (change or send_synchronously)(self)
        loop(self)

    mixin.event_loop_pp = event_loop_pp


def install(change: Callable[[Any], None] | None = None) -> None:
    """Patch sglang's PP loop once it is imported: importing it here would change the order."""
    after_import(pp_loop.module_name(pp_loop.UTILS_FILE), device_messages.patch)
    after_import(pp_loop.module_name(pp_loop.LOOP_FILE), functools.partial(patch, change=change))


def end_if_unfit(shim: str, reason_of: Callable[[Path], str] = misfit) -> None:
    """End the process that spawns the ranks where a shim does not suit the installed release."""
    spec = importlib.util.find_spec("sglang")
    place = Path((spec.submodule_search_locations or [""])[0]) if spec else Path()
    if reason := reason_of(place):
        raise SystemExit(f"shim {shim}: {reason}; leave the case out")


def install_in_server() -> None:
    """In the process that spawns the ranks: end it where the shim does not suit the release."""
    end_if_unfit("sync_send")
