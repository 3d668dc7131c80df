"""A server's log cut into messages: a log line or a library's, with the lines that go on from it.

All ranks write to one file. A message belongs to one process; a fatal one ends it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from repro_pp_graphs.server.log.log_lines import Line

# what ends a process, as it logs it, and as C++, Python or a library print it on stderr: where a
# line begins, and anywhere in it. Of the latter each begins with a letter as it is written: lines
# are searched for those letters, five times as fast as for what may begin anyhow.
_LOGGED_FIRST = re.compile(r"Exit code: -|ERROR: .*\[Errno \d+\]")
_LOGGED = re.compile(
    r"hit(?<!\whit) an exception\b|Watchdog timeout \((?!.*self\.soft=True)|"
    r"watchdog timeout \((?!.*self\.soft=True)|crashed with exit code -|\(exit code: -"
)
_PRINTED_FIRST = re.compile(
    r"Exception in run_tp_server|terminate called |Fatal Python error: |LLVM ERROR|"
    r"ERROR: .*\[Errno \d+\]|shim \w+: |Memory access fault by|"
    r"run_repro\.sh: node \d+ \(\S+\) has |"
    r"\S+: error: (?:unrecognized|ambiguous|argument|the following)"
)
_PRINTED = re.compile(
    r"Watchdog caught collective|Timeout at NCCL work|watchdog hang|"
    r"watchdog thread terminated with exception|\(exit code: -"
)
_TRACEBACK = re.compile(r"Traceback \(most recent call last\)")
# of an exception that led to the next one
_LED_TO = re.compile(
    r"^(?:During handling of the above exception|The above exception was the direct cause)"
)
_FRAME = re.compile(
    r'^\s+File "|^\s+[\^~]+\s*$|^frame #\d|^Exception raised from |^    \S.* \(\S+:\d+\)$|'
    r"^Thread \S"
)
# no message of its own: arguments, advice, remarks of a healthy server
_NOISE_FIRST = re.compile(
    r"Possible solutions|\d\. (?:set|disable|enable) |Open an issue on GitHub|Extension modules:|"
    r"For debugging consider|Compile with `TORCH_USE|Traceback "
)
_NOISE = re.compile(
    r"server_args=|Ignore import error|init failed \(|\[W\d{3,4} |ChildFailedError|pyspy|Pyspy|"
    r"UserWarning|errors might be asynchronously reported"
)
# what a process reports whose peer has gone
_LOST_PEER = re.compile(
    r"gloo/.*(?:[Cc]onnection (?:closed|reset|refused)|Broken pipe)|ncclRemoteError|"
    r"remote process exited|TCPStore|recvValue failed|sendBytes failed|Failed to recv, got 0|"
    r"^(?:EOFError|ConnectionResetError|BrokenPipeError|KeyboardInterrupt)\b|RemoteDisconnected|"
    r"Connection aborted|ConnectionPool\(host='(?:127\.|localhost)"
)
_EXCEPTION = re.compile(r"^(?:[A-Za-z_][\w.]*)?(?:Error|Exception|Interrupt|Exit)\b|^  what\(\):")
_NAMED = re.compile(r"\[[Rr]ank ?(?P<rank>\d+)\]|Subprocess (?P<process>\S+) |^Rank (?P<dead>\d+) ")


def _ends_a_process(line: Line) -> bool:
    first, within = (_LOGGED_FIRST, _LOGGED) if line.prefixed else (_PRINTED_FIRST, _PRINTED)
    return bool(first.match(line.text) or within.search(line.text))


def _is_noise(text: str) -> bool:
    return bool(_NOISE_FIRST.match(text) or _NOISE.search(text))


@dataclass
class Message:
    """One process's message, from its first line on."""

    lines: list[Line]

    @property
    def first(self) -> Line:
        """Its first line."""
        return self.lines[0]

    @cached_property
    def who(self) -> str:
        """The process as the log names it, such as `PP1`, `rank 2`, `scheduler_1`; or empty."""
        if self.first.rank:
            return self.first.rank
        named = next(filter(None, (_NAMED.search(line.text) for line in self.lines)), None)
        if named is None:
            return ""
        return named["process"] or f"rank {named['rank'] or named['dead']}"

    @cached_property
    def fatal(self) -> bool:
        """True where it ends its process by its own words."""
        return _ends_a_process(self.first)

    @property
    def traceback(self) -> bool:
        """True for a traceback that no log line begins: uncaught, or printed by who handled it."""
        return not self.first.prefixed and _TRACEBACK.match(self.first.text) is not None

    @cached_property
    def said(self) -> list[Line]:
        """What it says, without the stack's lines, advice and arguments."""
        return list(said(self.lines))

    @cached_property
    def said_last(self) -> list[Line]:
        """The same of the exception that was raised last, where one led to another."""
        starts = [number for number, line in enumerate(self.lines) if _LED_TO.match(line.text)]
        return list(said(self.lines[starts[-1] + 1 :])) if starts else self.said

    @property
    def exceptions(self) -> list[Line]:
        """The lines that name an exception, the last one raised first."""
        return [line for line in reversed(self.said) if _EXCEPTION.match(line.text)]

    @property
    def lost_peer(self) -> bool:
        """True where it only reports that another process has gone."""
        return any(_LOST_PEER.search(line.text) for line in self.said_last)


def said(found: Iterable[Line]) -> Iterator[Line]:
    """Lines that say something: not the stack's, nor advice, nor repeated arguments."""
    source = False  # the next line is a frame's source line
    for line in found:
        if _FRAME.match(line.text):
            source = '  File "' in line.text
        elif source and line.text.startswith("    "):
            source = False
        elif line.text.strip() and not _is_noise(line.text) and not _LED_TO.match(line.text):
            source = False
            yield line


def split(found: Iterable[Line]) -> list[Message]:
    """The messages of a log, in order."""
    messages: list[Message] = []
    before = Line(0, "")
    for line in found:
        # a traceback goes on from what led to it, and from a head such as `Exception in ...:`
        goes_on = bool(_LED_TO.match(before.text))
        if _TRACEBACK.match(line.text) and messages and before is messages[-1].first:
            goes_on = messages[-1].fatal and before.text.rstrip().endswith(":")
        own = bool(_ends_a_process(line) or _TRACEBACK.match(line.text))
        if line.prefixed or (own and not goes_on) or not messages:
            messages.append(Message([line]))
        else:
            messages[-1].lines.append(line)
        if line.text.strip():
            before = line
    return messages
