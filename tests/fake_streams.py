"""As much of torch.cuda as the shims touch: streams and events that note what waits for what."""

from __future__ import annotations

from typing import Any


class Stream:
    def __init__(self, cuda: Cuda, name: str) -> None:
        self.cuda, self.name = cuda, name

    def wait_event(self, event: Any) -> None:
        event.wait(self)  # as torch's

    def wait_stream(self, other: Stream) -> None:
        self.cuda.log.append(f"{self.name} waits for {other.name}")


class Event:
    def __init__(self, cuda: Cuda, name: str = "") -> None:
        self.cuda, self.name = cuda, name

    def record(self, stream: Stream) -> None:
        self.name = f"what {stream.name} has"

    def wait(self, stream: Stream | None = None) -> None:
        stream = stream or self.cuda.current
        self.cuda.log.append(f"{stream.name} waits for {self.name}")


class Cuda:
    """As much of torch.cuda as the shim touches."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.current = Stream(self, "schedule")

    def Stream(self) -> Stream:
        return Stream(self, "comm")

    def Event(self) -> Event:
        return Event(self)

    def current_stream(self) -> Stream:
        return self.current

    def stream(self, stream: Stream) -> Any:
        cuda = self

        class Within:
            def __enter__(self) -> None:
                self.before, cuda.current = cuda.current, stream

            def __exit__(self, *_: object) -> None:
                cuda.current = self.before

        return Within()
