"""A server's log: its lines by rank, the stage it has reached, and its decode lines."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

LINGER_S = 2.0  # after a rank's failure, for the rest of its message to reach the log


def _of_capture(what: str) -> re.Pattern[str]:
    more = "|Capturing batches" if what == "begin" else ""
    return re.compile(rf"Capture .{{0,80}}graph.{{0,20}} {what}{more}", re.IGNORECASE)


# last one found wins; sglang 0.5.2 to 0.5.23
_STAGES = (
    ("starting its ranks", re.compile(r"server_args=")),
    ("loading weights", re.compile(r"Load weight begin")),
    ("weights loaded", re.compile(r"Load weight end")),
    ("capturing graphs", _of_capture("begin")),
    ("graphs captured", _of_capture("end")),
    ("warming up", re.compile(r"Uvicorn running on")),
    ("ready", re.compile(r"The server is fired up")),
)
_LOADING = 1  # the stage of the bars that begin so
_PREFIX = re.compile(
    r"\[(?P<when>(?:\d{4}-)?\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d+)?)"
    r"(?P<rank>[ -\\^-~]{0,60})\] ?"  # printable: it is shown, and names what was said
)
_NCCL = re.compile(r"\S+:\d+:\d+ \[\d+\] ")  # NCCL's own lines may carry a time too
_BAR = re.compile(r"((?:Loading|Capturing)\b[^\r]*?:\s+\d+%)")
_PROGRESS = re.compile(
    r"(?:INFO: +)?(?P<said>(?:Init |Load weight|KV Cache|Memory pool|Capture |max_total_num|"
    r"Uvicorn|The server is).*)"
)
FOR_PEOPLE_AT_IT = " (Press CTRL+C to quit)"
_STEP = re.compile(r"(?:Decode|Prefill) batch")
# of a decode line, each looked for once, after the one before: the time grows with the line alone
_DECODE_RANK = re.compile(r"\[[^\]]{0,100} PP(\d{1,9})\b")
_RUNNING = re.compile(r"#running-req: (\d{1,18})")
_GRAPH = re.compile(r"(?:cuda|cpu) graph: (True|False)")
_NODE = re.compile(r"_node(\d{1,9})\.log$")
STARTING = "starting"
_PIECE_BYTES = 1 << 20
LONGEST_LINE = 2000  # characters that are looked at: in longer ones a pattern could take seconds
# the main process outlives a dead rank by up to a minute, in older releases for ever
_RECENT_CHARS = 100_000  # of a log, in which its latest line of progress is looked for
_SPLIT_CHARS = 200  # what is looked for may have been written in two halves; it is shorter
_FATAL = re.compile(
    r"Received sigquit from a child process|Scheduler hit an exception|"
    r"kill_process_tree called|Rank \d+ scheduler (?:is dead|died)|"
    r"taking the entire process down|Fatal Python error: |terminate called |"
    r"run_repro\.sh: (?:node \d+ \(|the server on node )"  # sh/servers.sh, node.sh
)


class Line(NamedTuple):
    """One line of a log: its number from 1, as `sed -n NUMBERp` counts; without its prefix.

    `when` is the prefix's time and `rank` its rank, such as `PP1` or `PP1 TP0`; empty where the
    line has none (`prefixed` False: stderr of a library, or the rest of a message).
    """

    number: int
    text: str
    prefixed: bool = False
    when: str = ""
    rank: str = ""

    @property
    def progress(self) -> bool:
        """True where a process says that it went on: loading, capturing, a forward step."""
        if not self.prefixed:
            return False
        return bool(_PROGRESS.match(self.text) or _STEP.match(self.text))


def read_log(path: Path) -> str:
    """The log so far; empty before the server has written."""
    # as bytes: a progress bar rewrites itself with a carriage return, which ends no line
    return path.read_bytes().decode("utf-8", "replace") if path.exists() else ""


class Follower:
    """A log that is being written: each look reads on from where the one before ended, so that its
    cost is that of what has been written since."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._recent = ""
        self._line = ""  # the last one, so far
        self._stage = -1
        self.is_dying = False
        self.decoded = 0  # decode lines so far
        self.latest = ""

    @property
    def stage(self) -> str:
        """As `stage` of all that was read."""
        return _STAGES[self._stage][0] if self._stage >= 0 else STARTING

    @property
    def stage_of_latest(self) -> str:
        """What the latest line of progress is of: of a rank that is behind others an earlier
        stage."""
        own = _LOADING if self.latest.startswith("Loading") else _stage_in(self.latest)
        return _STAGES[own][0] if own >= 0 else self.stage

    def look(self) -> Follower:
        """Read what has been written since the last look; returns itself."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._at)
                while piece := file.read(_PIECE_BYTES):
                    self._at += len(piece)
                    self._take(self._decoder.decode(piece))
        except FileNotFoundError:  # the server has not begun
            pass
        return self

    def _take(self, new: str) -> None:
        seen = self._recent[-_SPLIT_CHARS:] + new
        self._stage = max(self._stage, _stage_in(seen))
        self.is_dying = self.is_dying or is_dying(seen)
        self._recent = (self._recent + new)[-_RECENT_CHARS:]
        self.latest = latest(self._recent) or self.latest
        *whole, rest = new.split("\n")
        if whole:
            whole[0] = self._line + whole[0]
            self.decoded += len(decode_lines("\n".join(whole)))
        self._line = (rest if whole else self._line + rest)[:LONGEST_LINE]


def of_nodes(path: Path) -> list[Path]:
    """A server's log and, beside it, those of its processes on further nodes, by node."""
    found = ((_NODE.search(each.name), each) for each in path.parent.glob(f"{path.stem}_node*.log"))
    others = sorted((int(number[1]), each) for number, each in found if number)
    return [path, *(each for _, each in others)]


def read_logs(path: Path) -> str:
    """The log so far, with those of further nodes behind it: line numbers are good for none."""
    return "".join(f"{text}\n" for text in map(read_log, of_nodes(path)) if text)


class ServerLogs:
    """A server's log, followed, with those of its processes on further nodes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._own = Follower(path)
        self._others: dict[Path, Follower] = {}

    def look(self) -> ServerLogs:
        """Read what has been written since the last look; returns itself."""
        self._own.look()
        for path in of_nodes(self._path)[1:]:
            self._others.setdefault(path, Follower(path)).look()
        return self

    @property
    def stage(self) -> str:
        """The last stage that its own log shows."""
        return self._own.stage

    @property
    def stage_of_latest(self) -> str:
        """What that log's last line of progress is of."""
        return self._own.stage_of_latest

    @property
    def latest(self) -> str:
        """The last line of progress of its own log."""
        return self._own.latest

    @property
    def is_dying(self) -> bool:
        """True once any of them says that a rank has failed."""
        return self._own.is_dying or any(each.is_dying for each in self._others.values())

    @property
    def decoded(self) -> int:
        """Decode lines so far, of all."""
        return self._own.decoded + sum(each.decoded for each in self._others.values())


def lines(text: str) -> list[Line]:
    """Every line; of a progress bar that rewrites itself only its last state."""
    found = []
    for number, raw in enumerate(text.split("\n"), 1):
        shown = raw.rstrip("\r").rpartition("\r")[2][:LONGEST_LINE]
        match = _PREFIX.match(shown)
        rest = shown[match.end() :] if match else shown
        if match is None or _NCCL.match(rest):
            found.append(Line(number, rest))
        else:
            found.append(Line(number, rest, True, match["when"], match["rank"].strip()))
    return found


def last_by_rank(found: Iterable[Line]) -> dict[str, Line]:
    """The last line that each rank logged, longest silent first; ranks without a name left out.

    What a rank logs when it dies (a watchdog, a traceback) does not count: the line before does.
    """
    last = {line.rank: line for line in found if line.rank and line.progress}
    return dict(sorted(last.items(), key=lambda item: (item[1].when, item[1].number)))


def stage(text: str) -> str:
    """The last stage that a log shows: starting, loading weights, ..., ready."""
    found = _stage_in(text)
    return _STAGES[found][0] if found >= 0 else STARTING


def _stage_in(text: str) -> int:
    """Which of the stages is the last that a text shows; -1 for none."""
    return max((n for n, (_, shown) in enumerate(_STAGES) if shown.search(text)), default=-1)


def latest(text: str) -> str:
    """The last line that shows how far a starting server is, or its progress bar up to `40%`;
    empty where there is none."""
    for line in reversed(lines(text[-_RECENT_CHARS:])):
        if found := _BAR.search(line.text):
            return found[1]
        if line.prefixed and (found := _PROGRESS.match(line.text)):
            return f"{line.rank} {found['said'].removesuffix(FOR_PEOPLE_AT_IT)}".strip()
    return ""


def is_dying(text: str) -> bool:
    """True once the log says that a rank has failed, though the main process may linger."""
    return _FATAL.search(text) is not None


class DecodeLine(NamedTuple):
    """One `Decode batch` line: PP rank (0 where the log names none), requests, graph used."""

    pp_rank: int
    running: int
    graph: bool


def decode_lines(text: str) -> list[DecodeLine]:
    """Every decode line of a log, in order."""
    return [found for line in text.splitlines() if (found := _decode_line(line))]


def prefills_with_graph(text: str) -> int:
    """How many `Prefill batch` lines of a log say that a graph was replayed."""
    lines = (line for line in text.splitlines() if "Prefill batch" in line)
    return sum((graph := _GRAPH.search(line)) is not None and graph[1] == "True" for line in lines)


def _decode_line(line: str) -> DecodeLine | None:
    at = line.find("Decode batch")
    running = _RUNNING.search(line, at) if at >= 0 else None
    graph = _GRAPH.search(line, running.end()) if running else None
    if not running or not graph:
        return None
    rank = _DECODE_RANK.match(line, 0, at)
    return DecodeLine(int(rank[1]) if rank else 0, int(running[1]), graph[1] == "True")
