"""Wait until a server answers, showing the stage its log has reached; say why when it dies."""

from __future__ import annotations

import time
from pathlib import Path

from repro_pp_graphs import launch_record, run_record
from repro_pp_graphs.environment import masking
from repro_pp_graphs.models import folder as model_folder
from repro_pp_graphs.run import step_options
from repro_pp_graphs.run.launch.disk_watch import DiskWatch
from repro_pp_graphs.run.launch.live_line import LiveLine
from repro_pp_graphs.run_record import Launch
from repro_pp_graphs.server.log.log_lines import LINGER_S, ServerLogs
from repro_pp_graphs.server.machine import listener, process

POLL_S = 0.25
TIMED_OUT = "timed out"
ASK_S = 2.0  # between questions to a server whose log does not say that it listens


def wait(launch: Launch, pid: int, log_path: Path, timeout_s: float) -> tuple[str, bool]:
    """Wait for the server; returns an empty string once it is ready, else what went wrong, and
    whether it is known to be the one that answers."""
    line = LiveLine("server")
    dying_since: float | None = None
    disk = DiskWatch(line, log_path.parent)
    log = ServerLogs(log_path)
    ask_at_s = 0.0
    while line.elapsed_s < timeout_s:
        stage = log.look().stage
        if not process.alive(pid):
            line.end(f"died while {stage}")
            return "died", False
        if log.is_dying:
            dying_since = dying_since or time.monotonic()
            if time.monotonic() - dying_since > LINGER_S:
                line.end(f"a rank failed while {stage}")
                return "a rank failed", False
        disk.look()
        # fired up, it may still refuse /health
        shown = log.stage_of_latest
        line.show("warming up" if shown == "ready" else shown, log.latest)
        # the log may not say so (--log-level warning); /health runs a generation: not worth asking
        # before the server listens
        says_so = stage in ("warming up", "ready")
        if says_so or (line.elapsed_s >= ask_at_s and listener.accepts(launch.base_url)):
            listens = listener.owner(launch.host, launch.port, pid)
            if listens.stranger:
                line.end(f"port {launch.port} is answered by {listens.stranger}")
                return listener.OUSTED, False
            if model := _model_of(launch.base_url):
                if not listens.ours:
                    listens = listener.owner(launch.host, launch.port, pid)
                if listens.stranger:
                    continue  # it began to listen since, and is the one that answered
                line.end(f"ready: {masking.excerpt(model_folder.called(model))}")
                return "", listens.ours
            ask_at_s = line.elapsed_s + ASK_S
        time.sleep(POLL_S)
    line.end(f"not ready after {timeout_s:.0f} s (--start-timeout): {log.look().stage}")
    return TIMED_OUT, False


def _model_of(base_url: str) -> str:
    """The model of a server that is well; empty where it does not answer so."""
    from repro_pp_graphs.server.http import Server  # noqa: PLC0415 - an HTTP client, 60 ms

    server = Server(base_url)
    return server.model() if server.healthy() else ""


def main(argv: list[str]) -> int:
    """wait-ready OUT LABEL PID: 0 ready, 1 not."""
    parser = step_options.of_server("wait-ready", __doc__)
    parser.add_argument("--timeout-s", type=float, default=1800)
    options = parser.parse_args(argv)
    logs, label = options.out / "logs", options.label
    launch = run_record.load(logs).launch(label)
    begin = time.monotonic()
    trouble, known = wait(launch, options.pid, logs / f"{label}_server.log", options.timeout_s)
    start_s = round(time.monotonic() - begin, 2)
    if not trouble:
        _record_ready(logs, launch, known, start_s)
        return 0
    from repro_pp_graphs.run.launch import failure  # noqa: PLC0415 - all causes of failures

    if trouble == TIMED_OUT:
        failure.report_late(logs, launch, options.pid)
    else:
        failure.report_dead(logs, label, trouble, options.exit_file, launch)
    return 1


def _record_ready(logs: Path, launch: Launch, known: bool, start_s: float) -> None:
    warnings = []
    if not known:
        warnings.append(
            f"the process behind {launch.base_url} cannot be seen: not known to be its server"
        )
    from repro_pp_graphs.server.http import Server, resolved  # noqa: PLC0415 - an HTTP client

    info = resolved(Server(launch.base_url).info())
    launch_record.amend(logs, launch.label, warnings, server_start_s=start_s, server_info=info)
