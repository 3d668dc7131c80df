"""What to tell, and to record, when a server has failed: cause, evidence, remedy, log."""

from __future__ import annotations

import textwrap
import time
from pathlib import Path

from repro_pp_graphs import files, launch_record, run_record
from repro_pp_graphs.environment import masking
from repro_pp_graphs.run.folder import results
from repro_pp_graphs.run.launch import hang
from repro_pp_graphs.run.launch.client_pass import Pass, result_of, why_failed
from repro_pp_graphs.run_record import Launch
from repro_pp_graphs.server.log import diagnosis, log_lines, refused_argument
from repro_pp_graphs.server.log.causes import UNDER_MPS
from repro_pp_graphs.server.log.diagnosis import Diagnosis
from repro_pp_graphs.server.log.log_lines import Line, read_log
from repro_pp_graphs.server.machine import listener, process
from repro_pp_graphs.terminal import show, wrapped

EXIT_LIMIT_S = 1.0  # for run_repro.sh to note the exit status of a process that has just ended
OTHER_SERVER = Diagnosis(
    "another server on its port", "end that (ss -ltnp shows it), or use --port"
)
LINE_LENGTH = 320  # of a quoted log line: whole addresses, no dumps


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
    return found._replace(cause=masking.excerpt(found.cause))


def _in_logs(log_path: Path, status: int | None) -> tuple[Diagnosis, Path]:
    """Why a server has died, and the log that says so: of several nodes' that of the process that
    ended first, unless only another one knows."""
    logs = log_lines.of_nodes(log_path)
    first = diagnosis.first_node(read_log(log_path))
    found = [
        (diagnosis.diagnose(read_log(path), status if number == first else None), path)
        for number, path in enumerate(logs)
    ]
    found.sort(key=lambda each: (not each[0].known, each[1] != logs[min(first, len(logs) - 1)]))
    return found[0]


def of_dead(log_path: Path, exit_file: Path | None = None) -> tuple[Diagnosis, Path]:
    """Why a server has died, and the log that it rests on; on a full disk that may lack the
    cause."""
    found, log_path = _in_logs(log_path, exit_status(exit_file))
    full = "" if found.known else files.low_space(log_path.parent, below=files.FULL_BYTES)
    if not full:
        return _masked(found), log_path
    cause = f"{diagnosis.UNKNOWN}: {full}, so that its log may lack the cause"
    remedy = "free some, then go on with --resume"
    return _masked(Diagnosis(cause, remedy, found.line, found.who)), log_path


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


def server_gone(logs: Path, label: str, pid: int) -> bool:
    """Has the server, or one of its ranks, died? The main process outlives a dead rank by up to a
    minute."""
    return not process.alive(pid) or log_lines.is_dying(
        log_lines.read_logs(logs / f"{label}_server.log")
    )


def _under_mps(found: Diagnosis, logs: Path, label: str) -> Diagnosis:
    """With the next step of a launch that has an MPS daemon of its own, where it is another one."""
    remedy = next((step for cause, step in UNDER_MPS.items() if found.cause.startswith(cause)), "")
    if not remedy or not run_record.load(logs).mps:
        return found
    log = logs.parent / "mps" / f"{label}.log"
    return found._replace(remedy=remedy.replace("DIR/mps/LABEL.log", str(log)))


def report_dead(
    logs: Path, label: str, trouble: str, exit_file: Path | None, starting: Launch | None = None
) -> None:
    """Print and record why a server has died, or has no port to listen at; `starting`: the launch
    of one that was not ready yet, which may have refused an argument."""
    log_path = logs / f"{label}_server.log"
    found = OTHER_SERVER
    if trouble != listener.OUSTED:
        found, log_path = of_dead(log_path, exit_file)
    if starting and (refused := refused_argument.of_death(found, starting.arguments)):
        found = refused_argument.named(found, refused, starting.case)
        launch_record.amend(logs, label, bad_argument=refused)
    found = _under_mps(found, logs, label)
    print("\n".join([f"    server {trouble}", *lines(found, log_path)]))
    _record(logs, label, f"server {trouble}: {found.cause}")


def report_late(logs: Path, launch: Launch, pid: int) -> None:
    """Print and record why a server that lives is not ready, and what its ranks do."""
    log_path = logs / f"{launch.label}_server.log"
    found = _under_mps(of_living(log_path), logs, launch.label)
    print("\n".join(["    server timed out", *lines(found, log_path)]), flush=True)
    print("\n".join(hang.report(logs, launch.label, pid, launch.python)))
    _record(logs, launch.label, f"server timed out: {found.cause}")


def report_load(
    logs: Path, launch: Launch, measured: str, done: Pass, pid: int, *, exit_file: Path | None
) -> None:
    """Print and record why the client failed, whose files `measured` names; what the ranks do,
    where the server stalled."""
    if server_gone(logs, launch.label, pid):
        report_dead(logs, launch.label, "died under load", exit_file)
        return
    log_path = logs / f"{measured}_client.log"
    found = result_of(results.client_json(logs, measured))
    stalled = bool(found.get("errors", {}).get("stalled"))
    reason = f"the client failed{why_failed(done, log_path)}"
    if stalled:  # it lives and sends nothing: what its ranks do, while they live
        reason = f"the server stalled; see {log_path} and {logs}/{launch.label}_hang.txt"
    _record(logs, launch.label, reason)
    show(f"{launch.label} failed: {reason}", flush=True)
    if stalled:
        print("\n".join(hang.report(logs, launch.label, pid, launch.python)))


def _record(logs: Path, label: str, reason: str) -> None:
    launch_record.amend(logs, label, status="failed", reason=reason)


def last_line(path: Path) -> str:
    """The last line of a log, masked; empty where there is none."""
    found = [text for text in read_log(path).splitlines() if text.strip()]
    return masking.excerpt(found[-1]) if found else ""
