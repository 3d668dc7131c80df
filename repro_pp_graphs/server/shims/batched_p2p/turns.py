"""The functions that take the place of a scheduler's own: they send in the turn's exchange."""

from __future__ import annotations

import inspect
from typing import Any

from repro_pp_graphs.server.release import pp_loop
from repro_pp_graphs.server.shims.batched_p2p.exchange import Dict, Exchange


class Turns:
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
