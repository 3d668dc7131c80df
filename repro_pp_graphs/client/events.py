"""text/event-stream bodies: their events, by WHATWG's rules."""

from __future__ import annotations

KEPT_BYTES = 1 << 16  # of an HTTP error, and of what stands where events should
FIELDS = (b"data", b"event", b"id", b"retry")
BYTE_ORDER_MARK = "\ufeff".encode()


class EventStream:
    """Events of a text/event-stream body by WHATWG's rules, however it is cut into reads.

    https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
    The empty line after an event completes it; an event that the stream leaves without is dropped.
    `id` and `retry` are not used here. Lines that are no field are ignored by the rules; here up to
    64 KiB of them are kept, because a web page or an error in bare JSON is made of such lines.
    """

    def __init__(self) -> None:
        self.between = False  # at the end of an event: what comes next begins with a field
        self.fields = False  # whether a field has come; whoever takes lone events sets it too
        self._strange: list[bytes] = []
        self._strange_left = KEPT_BYTES
        self._unfinished = b""  # a line whose end has not come: its beginning,
        self._more: list[bytes] = []  # and what came since: joined once, however long it gets
        self._after_cr = False  # a line feed that comes next belongs to the line end before it
        self._at_start = True
        self._name = b""
        self._data: list[bytes] = []
        self._arrival_ns = 0

    def feed(self, arrival_ns: int, text: bytes) -> list[tuple[int, bytes, bytes]]:
        """(arrival_ns, name, data) of each event that `text` completes; most have no name.

        An event has arrived with the read that ended its last line of data.
        """
        if not text:
            return []
        if self._after_cr:
            text = text.removeprefix(b"\n")
        if self._unfinished and b"\n" not in text and b"\r" not in text:
            self._more.append(text)
            self._after_cr = False
            return []
        text = b"".join((self._unfinished, *self._more, text))
        self._more.clear()
        lines = text.splitlines()
        ended = text.endswith((b"\n", b"\r"))
        self._unfinished = lines.pop() if lines and not ended else b""
        self._after_cr = text.endswith(b"\r")
        if self._at_start and lines:
            lines[0], self._at_start = lines[0].removeprefix(BYTE_ORDER_MARK), False
        events, data = [], self._data
        for line in lines:
            if line.startswith(b"data: "):
                data.append(line[6:])
                self._arrival_ns = arrival_ns
            elif line:
                self._take_line(arrival_ns, line)
            else:
                if data:
                    events.append((self._arrival_ns, self._name, b"\n".join(data)))
                    data.clear()
                self._name = b""
        self.fields = self.fields or bool(events or data)
        self.between = ended and not (self._after_cr or self._name or data)
        return events

    def strange(self) -> bytes:
        """The lines that are no field, the unfinished last one too unless it may become one."""
        whole = b"".join((self._unfinished, *self._more))[:KEPT_BYTES]
        name, colon, _ = whole.removeprefix(BYTE_ORDER_MARK).partition(b":")
        cut = any(known.startswith(name) for known in FIELDS) if not colon else name in FIELDS
        last = [] if cut or not whole.strip() else [whole]
        return b"\n".join([*self._strange, *last])

    def unended(self) -> bytes:
        """The data of an event whose empty line has not come."""
        return b"\n".join(self._data)

    def _take_line(self, arrival_ns: int, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._arrival_ns = arrival_ns
        elif name == b"event":
            self._name = value.removeprefix(b" ")
        if name in FIELDS:
            self.fields = True
        elif name and self._strange_left > 0:
            self._strange.append(line[: self._strange_left])
            self._strange_left -= len(line)
