"""A turn's sends and recvs in one batch_isend_irecv, in place of one blocking call after another.

A recv must be posted in the same call as the sends, so the shapes are agreed on beforehand and no
metadata travels: part of what this path saves is that.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.profiler import record_function

from repro_pp_graphs.probe.journal import CLOCK, Call, Journal
from repro_pp_graphs.probe.ring import Ring


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a batch; a recv's tensor is filled."""

    op: str
    what: str
    tensor: Tensor
    turn: int


class Batched:
    """Posts batches; the device waits for them, the host does not (on gloo it does)."""

    def __init__(self, ring: Ring, journal: Journal) -> None:
        self.ring, self.journal = ring, journal

    def exchange(self, messages: list[Message]) -> None:
        """Post all messages at once and make the stream wait for them."""
        if not messages:
            return
        calls = []
        for each in messages:
            peer = self.ring.next if each.op == "send" else self.ring.previous
            calls.append(Call(each.op, each.what, peer, each.turn, CLOCK(), transfers=["device"]))
        # the span of the token send, as it is what the batch is there for
        tokens = any(call.op == "send" and call.what == "tokens" for call in calls)
        with record_function("send_res_dict_to_next_stage" if tokens else "exchange"):
            begin = self.journal.moment()
            works = dist.batch_isend_irecv(
                [
                    dist.P2POp(
                        dist.isend if call.op == "send" else dist.irecv,
                        each.tensor,
                        call.peer,
                        group=self.ring.device_group,
                    )
                    for each, call in zip(messages, calls, strict=True)
                ]
            )
            posted_ns = CLOCK()
            for work in works:
                work.wait()
            end = self.journal.moment()
        for call in calls:
            call.posted_ns, call.left_ns, call.events = posted_ns, CLOCK(), (begin, end)
        self.journal.calls += calls

    def read_back(self, tensor: Tensor) -> Tensor:
        """The tensor on the host, with a sync of the stream as in the blocking path."""
        return tensor.cpu()

    def empty_tokens(self, batch: int) -> Tensor:
        """Where received token ids go."""
        return torch.empty(batch + 1, dtype=torch.long, device=self.ring.device)
