"""A turn's sends and receives in one batch_isend_irecv: a remedy for #10865.

From 0.5.7 on a rank sends and receives token ids and hidden states one after another. With this
shim each rank has one exchange a turn with both neighbours, right after it has launched its batch:

    to the next rank       the token ids that it passes on, the hidden states of the batch
    from the rank before   token ids, the hidden states of this rank's next turn

All ranks are in step: in the exchange in which rank 0 is in turn T, rank r is in turn T - r, so
rank r begins with r exchanges in which it has nothing to send. What the tensors look like goes
ahead over the CPU group, from which a receiver knows what to post: each rank sends its own before
it waits for its neighbour's, so no rank waits in a circle. Requests go as released.

The exchange is the group's exchange_tensor_dicts, so that pp_clock times it under its own name, and
recv_tensor_dict hands out what has come.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from repro_pp_graphs.server import shim_names, shims
from repro_pp_graphs.server.patching.after_import import after_import
from repro_pp_graphs.server.release import pp_loop
from repro_pp_graphs.server.shims import sync_send
from repro_pp_graphs.server.shims.batched_p2p.exchange import Dict, Exchange
from repro_pp_graphs.server.shims.batched_p2p.turns import Turns

ACTIVE = shim_names.active("batched_p2p")
_EXCHANGE_OF = "repro_batched_p2p"  # of a pipeline group: its Exchange


def exchange_in_batches(scheduler: Any) -> None:  # noqa: ANN401
    """Replace one scheduler's sends; call it before its event_loop_pp begins. Raises RuntimeError
    with asynchronous batches beyond one a rank, or with tensor parallelism."""
    import torch  # noqa: PLC0415

    group = scheduler.pp_group
    arguments = scheduler.server_args
    if getattr(arguments, "pp_async_batch_depth", 0) or getattr(arguments, "tp_size", 1) > 1:
        raise RuntimeError("batched_p2p: for --pp-async-batch-depth 0 and --tp-size 1 alone")
    exchange = Exchange(group, torch)
    setattr(group, _EXCHANGE_OF, exchange)
    turns = Turns(scheduler, exchange)
    scheduler._pp_launch_batch = turns.launch
    scheduler._pp_send_dict_to_next_stage = turns.send_dict
    scheduler._pp_send_output_to_next_stage = lambda *_: []  # the turn's exchange sends
    setattr(scheduler, pp_loop.EXCHANGE, turns.exchange)
    exchange.meet()
    turns.begin()
    shims.announce(ACTIVE, group)


def patch_group(module: ModuleType) -> None:
    """Give groups exchange_tensor_dicts, and let recv_tensor_dict of one that has an Exchange hand
    out what that has brought."""
    kind = module.GroupCoordinator
    receive: Callable[..., Any] = kind.recv_tensor_dict

    def exchange_tensor_dicts(self: Any, tensor_dicts: list[Dict]) -> None:  # noqa: ANN401
        getattr(self, _EXCHANGE_OF).run(tensor_dicts)

    def recv_tensor_dict(self: Any, *arguments: Any, **more: Any) -> Any:  # noqa: ANN401
        exchange = getattr(self, _EXCHANGE_OF, None)
        if exchange is None:
            return receive(self, *arguments, **more)
        if not exchange.come:
            raise RuntimeError("batched_p2p: a message is asked for that no exchange has brought")
        return exchange.come.popleft()

    kind.exchange_tensor_dicts, kind.recv_tensor_dict = exchange_tensor_dicts, recv_tensor_dict


def install() -> None:
    """Patch sglang's pipeline group and its PP loop once they are imported."""
    after_import(pp_loop.module_name(pp_loop.GROUP_FILE), patch_group)
    after_import(
        pp_loop.module_name(pp_loop.LOOP_FILE),
        lambda module: sync_send.patch(module, exchange_in_batches),
    )


def install_in_server() -> None:
    """In the process that spawns the ranks: end it where the shim does not suit the release."""
    sync_send.end_if_unfit("batched_p2p")
