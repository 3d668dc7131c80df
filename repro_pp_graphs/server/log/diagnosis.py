"""Why a server died: the first fatal message of its log, and the rule that explains it.

The rank that dies first drags the others with it, so what counts is the first message that ends a
process and does not merely report a lost peer. What a process said before it went on did not kill
it. A rule that names a reason goes before one that only names what failed.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable
from typing import NamedTuple

from repro_pp_graphs.server.log import log_lines, log_messages
from repro_pp_graphs.server.log.causes import IN_CAPTURE, RULES, Rule
from repro_pp_graphs.server.log.log_lines import Line
from repro_pp_graphs.server.log.log_messages import Message

REPORT = "report it with `bash collect_env.sh --bundle`"
UNKNOWN = "unknown"
MOST_LOOSE = 3000  # lines of libraries on stderr, before the end; NCCL_DEBUG prints many more
KILLED = (
    "see dmesg (the kernel's out-of-memory killer is the usual one); the host, or the container's "
    "limit, needs more memory, or the model fewer --layers"
)
_EXIT = re.compile(r"exit code:? -(?P<signal>\d+)", re.IGNORECASE)
_PYTHON_FATAL = re.compile(r"^Fatal Python error: (?P<what>.+)")
_SIGNALS = {"Segmentation fault": 11, "Aborted": 6, "Bus error": 7, "Illegal instruction": 4}
# a mistake of Python code, of which no library's line on stderr tells the reason
_PURE_PYTHON = re.compile(
    r"^(?:Key|Assertion|Type|Value|Attribute|Index|Name|NotImplemented|UnboundLocal)Error\b"
)
_WATCHDOG = re.compile(r"[Ww]atchdog timeout \(.*?watchdog_timeout=(?P<seconds>[\d.]+)")
_CAPTURE_FAILED = re.compile(r"[Cc]apture .{0,80}graph failed|(?i:graph capture failed)")
_CAPTURE = re.compile(r"Capture .{0,80}graph.{0,20} (?P<what>begin|end)", re.IGNORECASE)
_HEAD = "Traceback (most recent call last):"
_TELLING = re.compile(
    r"^\S*(?:Error|Exception|Interrupt)\b|[Ee]rror\b.*: *\S|ERROR|not enough|out of memory|denied|"
    r"Segmentation fault|Killed|what\(\)|NCCL WARN|exit code:? -|[Ww]atchdog timeout \(|not found"
)


# what repro_pp_graphs/sh/servers.sh adds to node 0's log
_ENDED_FIRST = re.compile(r"^run_repro\.sh: the server on node (\d{1,9}) ", re.M)


class Diagnosis(NamedTuple):
    """What ended a server, and the next step.

    `line` is the log line that the cause rests on and `who` the process that wrote it, where the
    log tells them.
    """

    cause: str
    remedy: str
    line: Line | None = None
    who: str = ""

    @property
    def known(self) -> bool:
        """False where the log does not say why the server died."""
        return not self.cause.startswith(UNKNOWN)


def first_node(text: str) -> int:
    """The node whose server ended first, by node 0's log; 0 where there is one node."""
    found = _ENDED_FIRST.search(text)
    return int(found[1]) if found else 0


def _progress(found: Iterable[Line]) -> dict[str, int]:
    """The number of the last line with which each rank (empty: the main process) went on."""
    return {line.rank: line.number for line in found if line.progress}


def _survived(line: Line, progress: dict[str, int]) -> bool:
    """True where the process that wrote a line went on afterwards."""
    if line.rank:
        return line.number < progress.get(line.rank, 0)
    ranks = [number for rank, number in progress.items() if rank]
    # of a line without a rank only this is sure: all ranks, or the main process, went on
    return line.number < max(min(ranks, default=0), progress.get("", 0))


def _first_match(rules: Iterable[Rule], said: list[Line], frames: list[Line]) -> Diagnosis | None:
    for rule in rules:
        for line in frames if rule.frames else said:
            if rule.pattern.search(line.text) and (
                rule.also is None or any(rule.also.search(other.text) for other in frames)
            ):
                return Diagnosis(rule.cause, rule.remedy, line)
    return None


_SPECIFIC = [rule for rule in RULES if not rule.broad]
_BROAD = [rule for rule in RULES if rule.broad]


def _of_message(message: Message, rules: list[Rule], loose: list[Line]) -> Diagnosis | None:
    """The first rule that explains a message, or else a library's lines before it."""
    lines = message.lines
    before = [line for line in loose if line.number <= lines[-1].number]
    if any(_PURE_PYTHON.match(line.text) for line in message.exceptions[:1]):
        before = []
    for said, frames in (
        (message.said_last, lines),
        (message.said, lines),
        (before, before + lines),
    ):
        if found := _first_match(rules, said, frames):
            return found._replace(who=message.who if found.line in lines else "")
    return None


def _signal_name(number: int) -> str:
    try:
        return f"{signal.Signals(number).name}, {str(signal.strsignal(number)).lower()}"
    except ValueError:
        return f"signal {number}"


def ended_by_signal(number: int, line: Line | None = None, who: str = "") -> Diagnosis:
    """The diagnosis of a process that a signal ended and whose log names no other reason."""
    name = _signal_name(number)
    if number == signal.SIGKILL:
        return Diagnosis(f"killed ({name})", KILLED, line, who)
    if number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        return Diagnosis(
            f"ended from outside ({name})", "see who sent it: a scheduler, a limit", line, who
        )
    return Diagnosis(f"crashed ({name})", f"run again, and if it stays {REPORT}", line, who)


def _hang(found: list[Message]) -> Diagnosis:
    """The diagnosis of what sglang's own watchdog ended; `found` are its messages."""
    first = found[0]
    seconds = _WATCHDOG.search(first.first.text)
    who = ", ".join(dict.fromkeys(message.who or "the main process" for message in found))
    after = f" for {float(seconds['seconds']):.0f} s" if seconds else ""
    return Diagnosis(
        f"hang: no forward step{after} on {who} (sglang's watchdog)",
        f"compare the ranks' stacks, that of the longest silent rank first, and {REPORT}",
        first.first,
        first.who,
    )


def _of_signals(found: list[Message]) -> Diagnosis | None:
    """The first exit by a signal that the log reports, or else Python's own last words."""
    for message in found:
        for line in message.said:
            if exit_ := _EXIT.search(line.text):
                return ended_by_signal(int(exit_["signal"]), line, message.who)
    for message in found:
        if words := _PYTHON_FATAL.match(message.first.text):
            number = _SIGNALS.get(words["what"].strip())
            if number:
                return ended_by_signal(number, message.first, message.who)
    return None


def _first_of(candidates: list[Message], rules: list[Rule]) -> Diagnosis | None:
    return next(filter(None, (_of_message(one, rules, []) for one in candidates)), None)


def _explain(candidates: list[Message], loose: list[Line]) -> Diagnosis:
    """The diagnosis of fatal messages, the first one first."""
    main = candidates[0]
    if _WATCHDOG.search(main.first.text):
        return _hang([one for one in candidates if _WATCHDOG.search(one.first.text)])
    if found := _of_message(main, _SPECIFIC, loose):
        return found
    broad = _of_message(main, _BROAD, [])
    by_exception = main.exceptions and not any(_EXIT.search(one.text) for one in main.exceptions)
    if broad or not by_exception:  # what failed, or a signal: another message may say why
        rest = candidates[1:]
        reason = _first_of(rest, _SPECIFIC) or broad or _first_of(rest, _BROAD)
        if found := reason or _of_signals(candidates):
            return found
    remedy = f"read the log from line {main.first.number} on, or {REPORT}"
    words = next(iter([*main.exceptions, *main.said]), main.first)
    if words.text.rstrip().endswith(_HEAD):
        return Diagnosis(f"{UNKNOWN}: the log ends in a traceback's first lines", remedy, None, "")
    return Diagnosis(UNKNOWN, remedy, words, main.who)


def _in_capture(text: str, found: Diagnosis, candidates: list[Message]) -> bool:
    """True where the process was capturing its graphs when it met the cause."""
    if candidates and any(_CAPTURE_FAILED.search(line.text) for line in candidates[0].lines):
        return True
    last = ""
    for line in log_lines.lines(text):
        if found.who and line.rank == found.who and (step := _CAPTURE.match(line.text)):
            last = step["what"].lower()
    return last == "begin"


def diagnose(text: str, exit_status: int | None = None, alive: bool = False) -> Diagnosis:
    """Why a server died, from its log and its exit status as a shell has it (128 + signal).

    Without a status an end without a word is not taken for a kill. Of a server that is `alive` only
    what ends a process counts: not what a library remarks in passing.
    """
    found = log_lines.lines(text)
    progress = _progress(found)
    split = log_messages.split(found)
    fatal = [one for one in split if one.fatal]
    bare = [one for one in split if one.traceback and not _survived(one.first, progress)]
    # the last traceback ended its process, earlier ones were handled
    own = [one for one in (*fatal, *reversed(bare)) if not one.lost_peer]
    loose = [
        line
        for one in split
        if not (one.fatal or one.traceback)
        for line in log_messages.said(one.lines)
        if not line.prefixed and not _survived(line, progress)
    ]
    del loose[:-MOST_LOOSE]
    if own:
        diagnosis = _explain(own, loose)
    elif alive or (remark := _first_match(RULES, loose, loose)) is None:
        by_itself = log_lines.is_dying(text)  # then the main process has ended itself, by SIGKILL
        lost = [one for one in (*fatal, *bare) if one.lost_peer]
        return _without_message(None if by_itself else exit_status, lost)
    else:
        diagnosis = remark
    if diagnosis.who.startswith("scheduler_"):
        diagnosis = diagnosis._replace(who=_rank_of(diagnosis.who, found))
    if diagnosis.known and _in_capture(text, diagnosis, own) and "graph" not in diagnosis.cause:
        remedy = IN_CAPTURE.get(diagnosis.cause, diagnosis.remedy)
        cause = f"{diagnosis.cause} during graph capture"
        return diagnosis._replace(cause=cause, remedy=remedy)
    return diagnosis


def _rank_of(process: str, found: list[Line]) -> str:
    """`scheduler_2` as the rank that it is, by the order in which sglang begins them."""
    ranks = {line.rank for line in found if line.rank and "DP" not in line.rank}
    ordered = sorted(ranks, key=_numbers)
    number = int(re.sub(r"\D", "", process) or -1)
    return f"{ordered[number]} ({process})" if 0 <= number < len(ordered) else process


def _numbers(rank: str) -> tuple[int, int]:
    numbers = {kind: int(number) for kind, number in re.findall(r"(PP|TP)(\d+)", rank)}
    return numbers.get("PP", 0), numbers.get("TP", 0)


def _without_message(exit_status: int | None, lost: list[Message]) -> Diagnosis:
    """The diagnosis of a log that names no reason."""
    if exit_status is not None and exit_status > 128:
        return ended_by_signal(exit_status - 128)
    if lost:
        return Diagnosis(
            f"{UNKNOWN}: ranks lost a peer, and the log does not say why that one ended",
            KILLED,
            lost[0].exceptions[0] if lost[0].exceptions else lost[0].first,
            lost[0].who,
        )
    return Diagnosis(
        f"{UNKNOWN}: the log ends without an error",
        "run the command of its _server_command.sh by hand, and see dmesg for a kill",
    )


def telling_lines(text: str, most: int = 4) -> list[Line]:
    """The last few distinct lines that name an error which its process did not survive."""
    found = log_lines.lines(text)
    progress = _progress(found)
    kept: list[Line] = []
    for line in reversed(list(log_messages.said(found))):
        if _survived(line, progress):
            continue
        if _TELLING.search(line.text) and line.text not in [other.text for other in kept]:
            kept.append(line)
        if len(kept) == most:
            break
    return kept[::-1]
