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

import inspect
import pickle
from collections import deque
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from repro_pp_graphs.server import shims
from repro_pp_graphs.server.patching.after_import import after_import
from repro_pp_graphs.server.release import pp_loop
from repro_pp_graphs.server.shims import sync_send

ACTIVE = "repro shim batched_p2p is active"  # a rank's line in the server's log
_EXCHANGE_OF = "repro_batched_p2p"  # of a pipeline group: its Exchange

Dict = dict[str, Any]


class _Shape(NamedTuple):
    """A tensor that follows: its size and dtype."""

    size: tuple[int, ...]
    dtype: Any


class Exchange:
    """A rank's exchanges with its neighbours over one pipeline group.

    Tensors on the group's device go in the batch; all else is pickled, over the CPU group.
    """

    def __init__(self, group: Any, torch: Any) -> None:  # noqa: ANN401
        self._group, self._torch = group, torch
        self._device = torch.device(group.device)
        at, size = group.rank_in_group, group.world_size
        self._next, self._previous = (group.ranks[(at + step) % size] for step in (1, -1))
        self._under_way: list[Any] = []  # works of what goes over the CPU group, and its tensors
        self.come: deque[Dict] = deque()  # received dicts that nobody has asked for yet

    def meet(self) -> None:
        """With all ranks: NCCL makes the communicator of batches in a first collective."""
        one = self._torch.zeros(1, device=self._device)
        self._torch.distributed.all_reduce(one, group=self._group.device_group)

    def run(self, sent: list[Dict]) -> None:
        """Send these dicts and receive the neighbour's; the device waits for the tensors, the host
        for the neighbour's metadata (and on gloo for the tensors)."""
        distributed, group = self._torch.distributed, self._group.device_group
        described, tensors = self._described(sent)
        self._post(described)
        expected = self._receive()
        received, spaces = self._spaces(expected)
        batch = [(distributed.isend, each, self._next) for each in tensors]
        batch += [(distributed.irecv, each, self._previous) for each in spaces]
        operations = [distributed.P2POp(op, tensor, peer, group) for op, tensor, peer in batch]
        for work in distributed.batch_isend_irecv(operations) if operations else ():
            work.wait()
        self.come.extend(received)

    def _described(self, sent: list[Dict]) -> tuple[bytes, list[Any]]:
        """The dicts with a _Shape for each tensor of the device, pickled; and these tensors."""
        tensors: list[Any] = []
        described = []
        for each in sent:
            plain: Dict = {}
            for key, value in each.items():
                if isinstance(value, self._torch.Tensor) and value.device.type == self._device.type:
                    plain[key] = _Shape(tuple(value.shape), value.dtype)
                    tensors += [value.contiguous()] if value.numel() else []
                else:
                    plain[key] = value
            described.append(plain)
        return (pickle.dumps(described) if described else b""), tensors

    def _spaces(self, described: bytes) -> tuple[list[Dict], list[Any]]:
        """The dicts that come, with room for each tensor; and what is to be received, in order."""
        dicts: list[Dict] = pickle.loads(described) if described else []
        spaces: list[Any] = []
        for each in dicts:
            for key, value in each.items():
                if isinstance(value, _Shape):
                    each[key] = self._torch.empty(
                        value.size, dtype=value.dtype, device=self._device
                    )
                    spaces += [each[key]] if each[key].numel() else []
        return dicts, spaces

    def _post(self, described: bytes) -> None:
        torch = self._torch
        for work, _ in self._under_way:  # of the exchange before
            work.wait()
        size = torch.tensor([len(described)], dtype=torch.long)
        parts = [size]
        if described:
            parts.append(torch.frombuffer(bytearray(described), dtype=torch.uint8))
        send = torch.distributed.isend
        cpu_group = self._group.cpu_group
        self._under_way = [(send(part, self._next, group=cpu_group), part) for part in parts]

    def _receive(self) -> bytes:
        torch, cpu_group = self._torch, self._group.cpu_group
        size = torch.zeros(1, dtype=torch.long)
        torch.distributed.recv(size, self._previous, group=cpu_group)
        if not size.item():
            return b""
        found = torch.empty(int(size.item()), dtype=torch.uint8)
        torch.distributed.recv(found, self._previous, group=cpu_group)
        return bytes(found.numpy().tobytes())


class _Turns:
    """The functions that take the place of one scheduler's own."""

    def __init__(self, scheduler: Any, exchange: Exchange) -> None:  # noqa: ANN401
        self._scheduler, self._exchange = scheduler, exchange
        self._launch = scheduler._pp_launch_batch
        self._send_output = scheduler._pp_send_output_to_next_stage
        self._outer = getattr(scheduler, pp_loop.EXCHANGE)
        send_dict = scheduler._pp_send_dict_to_next_stage
        self._typed = "msg_type" in inspect.signature(send_dict).parameters
        self._hidden: Dict | None = None  # of this turn's batch, to be sent in its exchange
        self._sent: Dict | None = None  # the same once it is
        self._event: Any = None  # the end of this turn's batch
        self._done = False  # this turn's exchange

    def begin(self) -> None:
        """The exchanges before this rank's first turn."""
        for _ in range(self._scheduler.pp_group.rank_in_group):
            self._exchange.run([])

    def launch(self, *arguments: Any, **more: Any) -> Any:  # noqa: ANN401
        """_pp_launch_batch; keeps the hidden states."""
        result, self._event = self._launch(*arguments, **more)
        if not self._scheduler.pp_group.is_last_rank:
            self._hidden = result.pp_hidden_states_proxy_tensors.tensors
            if self._typed:
                self._hidden["__msg_type__"] = "proxy"
        return result, self._event

    def exchange(self, first: int, next_mb_id: int, mbs: Any, *more: Any) -> Any:  # noqa: ANN401
        """_pp_send_recv_and_preprocess_output_tensors: the turn's exchange, then the release's own
        way with what has come."""
        metadata, queue, pp_outputs = more
        self._done = False
        self._send_output(first, mbs, queue, pp_outputs)
        if not self._done:
            self._run([])
        return self._outer(first, next_mb_id, mbs, metadata, queue, pp_outputs)

    def send_dict(
        self,
        tensor_dict: Dict,
        async_send: bool = True,
        msg_type: str = "",
        ready_event: Any = None,  # noqa: ANN401
    ) -> list[Any]:
        """_pp_send_dict_to_next_stage: token ids go in the turn's exchange, with the hidden states,
        which the loop sends afterwards. Raises RuntimeError for any other message."""
        del async_send
        if self._sent is tensor_dict:
            self._sent = None
        elif self._done:
            raise RuntimeError("batched_p2p: a message that is not of this turn's exchange")
        else:
            if self._typed:
                tensor_dict["__msg_type__"] = msg_type
            if ready_event is not None:
                ready_event.wait()
            self._run([tensor_dict])
        return []

    def _run(self, tokens: list[Dict]) -> None:
        hidden = [self._hidden] if self._hidden is not None else []
        if self._event is not None:
            self._event.wait()  # the stream, not the host: the batch makes what is sent
        sent = [*tokens, *hidden]
        self._scheduler.pp_group.exchange_tensor_dicts(sent)
        self._sent, self._hidden, self._event, self._done = self._hidden, None, None, True


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
    turns = _Turns(scheduler, exchange)
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
