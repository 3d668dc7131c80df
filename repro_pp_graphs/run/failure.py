"""What to tell, and to record, when a server has failed: cause, evidence, remedy, log."""

from __future__ import annotations

import textwrap
import time
from dataclasses import replace
from pathlib import Path

from repro_pp_graphs import files
from repro_pp_graphs.environment import masking
from repro_pp_graphs.run import hang
from repro_pp_graphs.server import diagnosis
from repro_pp_graphs.server.diagnosis import Diagnosis
from repro_pp_graphs.server.log import Line
from repro_pp_graphs.terminal import wrapped

EXIT_LIMIT_S = 1.0  # for run_repro.sh to note the exit status of a process that has just ended
LINE_LENGTH = 320  # of a quoted log line: whole addresses, no dumps


def read_log(path: Path) -> str:
    """The log so far; empty before the server has written."""
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def exit_status(path: Path | None) -> int | None:
    """What run_repro.sh noted there, as a shell has it (128 + signal); None where it did not."""
    end_s = time.monotonic() + EXIT_LIMIT_S
    while path is not None:
        if path.exists() and (text := path.read_text(encoding="ascii").strip()).isdigit():
            return int(text)
        if time.monotonic() > end_s:
            break
        time.sleep(0.05)
    return None


def _masked(found: Diagnosis) -> Diagnosis:
    """It may quote the log: to be printed and recorded without secrets."""
    return replace(found, cause=masking.excerpt(found.cause))


def of_dead(log_path: Path, exit_file: Path | None = None) -> Diagnosis:
    """Why a server has died; on a full disk its log may lack the cause."""
    found = diagnosis.diagnose(read_log(log_path), exit_status(exit_file))
    full = "" if found.line else files.low_space(log_path.parent, below=files.FULL_BYTES)
    if not full:
        return _masked(found)
    cause = f"{diagnosis.UNKNOWN}: {full}, so that its log may lack the cause"
    return Diagnosis(cause, "free some, then go on with --resume")


def of_living(log_path: Path) -> Diagnosis:
    """Why a server that still lives is not ready."""
    found = _masked(diagnosis.diagnose(read_log(log_path), alive=True))
    if found.known:
        return found
    silent_s = time.time() - log_path.stat().st_mtime if log_path.exists() else 0.0
    return Diagnosis(
        f"slow, or hung: its log has been silent for {silent_s:.0f} s",
        "compare where the ranks stand below; if they are at work, --start-timeout with more "
        "seconds",
    )


def _quoted(line: Line) -> str:
    return textwrap.shorten(masking.excerpt(line.text), LINE_LENGTH, placeholder=" ...")


def lines(found: Diagnosis, log_path: Path) -> list[str]:
    """For the terminal: the cause and the line it rests on, the remedy, the log, telling lines."""
    told = [*wrapped(found.cause, "    cause: ")]
    if found.line is not None:
        who = f"{found.who}, " if found.who else ""
        told += wrapped(f"{who}line {found.line.number}: {_quoted(found.line)}", "    by:    ")
    told += wrapped(found.remedy, "    try:   ")
    told.append(f"    log:   {log_path}")
    text = read_log(log_path)
    told += [
        part
        for line in diagnosis.telling_lines(text)
        if found.line is None or line.text != found.line.text
        for part in wrapped(_quoted(line), "      | ")
    ]
    return told + (hang.rank_lines(text) if found.cause.startswith("hang") else [])
