"""The PP loop of a rank, in the three orders of operations that the send paths imply."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.profiler import record_function

from repro_pp_graphs.probe.batched import Batched, Message
from repro_pp_graphs.probe.cells import Cell
from repro_pp_graphs.probe.journal import CLOCK, Batch, Journal
from repro_pp_graphs.probe.messages import Async, Blocking
from repro_pp_graphs.probe.ring import Ring
from repro_pp_graphs.probe.runner import Runner
from repro_pp_graphs.probe.schedule import Schedule

# received token ids: on the device, on the host, and the event that completes the copy
Came: TypeAlias = "tuple[Tensor | None, Tensor | None, torch.cuda.Event | None]"


class Loop:
    """One rank's turns of one cell. `outputs`: token ids that this rank received, by turn.

    `each_turn` is called before every turn (profiling starts and stops there); `steps` are fewer
    than the stage is made for, where given.
    """

    def __init__(
        self, ring: Ring, runner: Runner, cell: Cell, host_us: int, steps: int | None = None
    ) -> None:
        shape = runner.stage.shape
        self.ring, self.runner, self.cell = ring, runner, cell
        self.schedule = Schedule(ring.size, shape.micro_batches, steps or shape.steps)
        self.journal = Journal(ring.rank, ring.cuda)
        self.host_ns = host_us * 1000
        self.each_turn: Callable[[int], None] = lambda _: None
        self.outputs: dict[int, list[int]] = {}
        # of the last rank: turn, token ids not yet sent, and when they are there
        self.held: deque[tuple[int, Tensor, torch.cuda.Event | None]] = deque()
        # the last step's token ids of each micro-batch: the next step's input
        self.latest = [runner.stage.start_tokens(m) for m in range(shape.micro_batches)]

    def run(self) -> Journal:
        """All turns; returns what was noted. Raises RuntimeError where a message is not the one
        expected."""
        self.runner.stage.reset()
        self.ring.barrier()
        self.journal.anchor()
        self.ring.barrier()
        if self.cell.send.asynchronous:
            self._run_async()
        elif self.cell.send.batched:
            self._run_batched()
        else:
            self._run_blocking()
        self.ring.barrier()
        self.journal.anchor()
        self.journal.settle()
        wrong = int(self.runner.stage.wrong.item())
        if wrong:
            raise RuntimeError(f"rank {self.ring.rank} took {wrong} hidden states for others")
        return self.journal

    def _run_blocking(self) -> None:
        """sglang 0.5.2: run, send the token ids, receive the next ones, then send on."""
        link = Blocking(self.ring, self.cell.send, self.journal)
        passed_on: Tensor | None = None
        for turn in range(self.schedule.turns):
            self.each_turn(turn)
            if self.ring.rank:
                link.recv_requests(turn)
            runs = self.schedule.runs(turn)
            if runs:
                with record_function("run_batch"):
                    given = link.recv("hidden", turn) if self.ring.rank else None
                    self._forward(turn, given)
            sent = self.schedule.sent(turn, self.ring.rank)
            if self.ring.last and self.schedule.runs(sent):
                tokens, ready = self._tokens_of(sent)
                link.send("tokens", tokens, sent, ready)
            received = self.schedule.received(turn)
            next_tokens = None
            if self.schedule.runs(received):
                next_tokens = link.recv("tokens", received)
                self._process(received, next_tokens, link.read_back(next_tokens))
            if not self.ring.last:
                if passed_on is not None:
                    link.send("tokens", passed_on, sent)
                link.send_requests(turn)
                if runs:
                    link.send("hidden", self.runner.stage.hidden_out, turn)
            passed_on = next_tokens
        link.finish()

    def _run_async(self) -> None:
        """sglang 0.5.7 and later: nothing waits but for what has to be there."""
        link = Async(self.ring, self.journal)
        streams = [torch.cuda.Stream()] if self.ring.cuda else []
        passed_on: Tensor | None = None
        for turn in range(self.schedule.turns):
            self.each_turn(turn)
            if self.ring.rank:
                link.recv_requests(turn)
            if not self.ring.last:
                link.commit("requests")
                link.send_requests(turn)
            runs = self.schedule.runs(turn)
            given = link.recv("hidden", turn) if runs and self.ring.rank else None
            came: Came = (None, None, None)
            if self.schedule.depth:
                came = self._exchange(link, turn, passed_on)
            link.commit("hidden")
            launched = None
            if runs:
                with record_function("run_batch"), _forward_on(streams):
                    launched = self._forward(turn, given)
            if not self.schedule.depth:
                came = self._exchange(link, turn, passed_on)
            tokens, host, done = came
            if tokens is not None:
                if done is not None:
                    done.synchronize()
                self._process(self.schedule.received(turn), tokens, host)
            if runs and not self.ring.last:
                if launched is not None:
                    launched.wait()
                link.send("hidden", self.runner.stage.hidden_out, turn)
            passed_on = tokens
        link.finish()

    def _exchange(self, link: Async, turn: int, passed_on: Tensor | None) -> Came:
        """Send token ids on, receive the next ones."""
        link.commit("tokens")
        sent = self.schedule.sent(turn, self.ring.rank)
        tokens, ready = passed_on, None
        if self.ring.last:
            tokens, ready = self._tokens_of(sent) if self.schedule.runs(sent) else (None, None)
        if ready is not None:
            ready.wait()  # the stream waits, not the host
        if tokens is not None:
            link.send("tokens", tokens, sent)
        received = self.schedule.received(turn)
        if not self.schedule.runs(received):
            return None, None, None
        tokens = link.recv("tokens", received)
        return tokens, *link.copy_back(tokens)

    def _run_batched(self) -> None:
        """One exchange with both neighbours between any two turns, all ranks in step."""
        link = Batched(self.ring, self.journal)
        stage, schedule = self.runner.stage, self.schedule
        passed_on: Tensor | None = None
        for turn in range(-1, schedule.turns):
            self.each_turn(turn)
            if schedule.runs(turn):
                with record_function("run_batch"):
                    self._forward(turn, None)
            messages = []
            sent, received = schedule.sent(turn, self.ring.rank), schedule.received(turn)
            if self.ring.last and schedule.runs(sent):
                passed_on, _ = self._tokens_of(sent)
            if passed_on is not None:
                messages.append(Message("send", "tokens", passed_on, sent))
            if not self.ring.last and schedule.runs(turn):
                messages.append(Message("send", "hidden", stage.hidden_out, turn))
            passed_on = None
            if schedule.runs(received):
                passed_on = link.empty_tokens(stage.shape.batch)
                messages.append(Message("recv", "tokens", passed_on, received))
            if self.ring.rank and schedule.runs(turn + 1):
                # after the token ids, as they are sent: a pair's messages are matched in order
                messages.append(Message("recv", "hidden", stage.hidden_in, turn + 1))
            link.exchange(messages)
            if passed_on is not None:
                self._process(received, passed_on, link.read_back(passed_on))
                passed_on = None if self.ring.last else passed_on

    def _forward(self, turn: int, given: Tensor | None) -> torch.cuda.Event | None:
        """Launch a decode step; returns its end: an event, None on a CPU."""
        stage = self.runner.stage
        micro_batch = turn % self.schedule.slots
        batch = Batch(turn, CLOCK())
        if stage.first:
            given = self.latest[micro_batch]
        if self.ring.cuda and given is not None:
            given.record_stream(torch.cuda.current_stream())
        with record_function(f"step[DECODE bs={stage.shape.batch}]"):
            begin = self.journal.moment()
            self.runner.run(turn, micro_batch, given, self.cell.graphs)
            tokens = stage.tokens_out.clone() if stage.last else None
            batch.events = (begin, self.journal.moment())
        batch.left_ns = CLOCK()
        self.journal.batches.append(batch)
        end = batch.events[1] if self.ring.cuda else None
        if stage.last:
            self.held.append((turn, tokens, end))
        return end

    def _tokens_of(self, turn: int) -> tuple[Tensor, torch.cuda.Event | None]:
        """The last rank's token ids of a turn, and the event (None on a CPU) they wait for."""
        held, tokens, ready = self.held.popleft()
        if held != turn:
            raise RuntimeError(f"the last rank holds turn {held}, turn {turn} is due")
        return tokens, ready

    def _process(self, turn: int, tokens: Tensor, host: Tensor) -> None:
        """What a scheduler does with token ids: note them, and some host work."""
        with record_function("process_batch_result"):
            *ids, number = host.tolist()
            if number != turn:
                raise RuntimeError(f"took the token ids of turn {number} for those of {turn}")
            self.journal.arrivals[turn] = CLOCK()
            self.outputs[turn] = ids
            self.latest[turn % self.schedule.slots] = tokens
            until_ns = time.perf_counter_ns() + self.host_ns
            while time.perf_counter_ns() < until_ns:
                pass


def _forward_on(streams: list[torch.cuda.Stream]) -> AbstractContextManager[Any]:
    """The forward stream, behind what the current one has queued."""
    if not streams:
        return nullcontext()
    streams[0].wait_stream(torch.cuda.current_stream())
    forward: AbstractContextManager[Any] = torch.cuda.stream(streams[0])
    return forward
