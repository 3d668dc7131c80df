"""Time in a simulated ring: processes that wait for times and events, and streams of work."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator


class Event:
    """Something that happens once; processes may wait for it."""

    __slots__ = ("at", "waiting")

    def __init__(self) -> None:
        self.at: float | None = None
        self.waiting: list[Callable[[], None]] = []


Process = Generator[float | Event, None, None]


class Clock:
    """Runs processes: generators that yield what they wait for, a time in us or an Event."""

    def __init__(self) -> None:
        self.now = 0.0
        self.queue: list[tuple[float, int, Callable[[], None]]] = []
        self.number = 0

    def later(self, delay: float, call: Callable[[], None]) -> None:
        self.number += 1
        heapq.heappush(self.queue, (self.now + delay, self.number, call))

    def happens(self, event: Event) -> None:
        event.at = self.now
        for call in event.waiting:
            self.later(0, call)

    def start(self, process: Process) -> None:
        queue, push = self.queue, heapq.heappush

        def go() -> None:
            for wanted in process:
                if type(wanted) is Event:
                    if wanted.at is None:
                        wanted.waiting.append(go)
                        return
                elif wanted > 0:  # as `later`, without a call: most of what happens is this
                    self.number += 1
                    push(queue, (self.now + wanted, self.number, go))
                    return

        self.later(0, go)

    def run(self) -> None:
        queue, pop = self.queue, heapq.heappop
        while queue:
            self.now, _, call = pop(queue)
            call()


class Stream:
    """A stream of a GPU: work runs in the order in which it was queued."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.tail: Event | None = None

    def add(self, run: Callable[[], Process], after: list[Event]) -> Event:
        """Queue work that starts after what is queued and these events; its end."""
        done, before = Event(), self.tail

        def process() -> Process:
            yield from ([before] if before else []) + after
            yield from run()
            self.clock.happens(done)

        self.clock.start(process())
        self.tail = done
        return done
