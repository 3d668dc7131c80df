"""Wait until a server answers, showing the stage its log has reached; say why when it dies."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from repro_pp_graphs.run import failure, hang, record
from repro_pp_graphs.run.disk import DiskWatch
from repro_pp_graphs.run.failure import read_log
from repro_pp_graphs.run.live import LiveLine
from repro_pp_graphs.run.record import Launch
from repro_pp_graphs.server import listener, log, process
from repro_pp_graphs.server.diagnosis import Diagnosis
from repro_pp_graphs.server.http import Server

POLL_S = 0.25
OUSTED = "is not the one that answers"
OTHER_SERVER = Diagnosis(
    "another server on its port", "end that (ss -ltnp shows it), or use --port"
)
ASK_S = 2.0  # between questions to a server whose log does not say that it listens
LINGER_S = 2.0  # after a rank's failure, for the rest of its message to reach the log


def wait(launch: Launch, pid: int, log_path: Path, timeout_s: float) -> str:
    """Wait for the server; returns an empty string once it is ready, else what went wrong."""
    server = Server(launch.base_url)
    line = LiveLine("server")
    dying_since: float | None = None
    disk = DiskWatch(line, log_path.parent)
    ask_at_s = 0.0
    while line.elapsed_s < timeout_s:
        text = read_log(log_path)
        stage = log.stage(text)
        if not process.alive(pid):
            line.end(f"died while {stage}")
            return "died"
        if log.is_dying(text):
            dying_since = dying_since or time.monotonic()
            if time.monotonic() - dying_since > LINGER_S:
                line.end(f"a rank failed while {stage}")
                return "a rank failed"
        disk.look()
        # fired up, it may still refuse /health
        line.show("warming up" if stage == "ready" else stage, log.latest(text))
        # the log may not say so (--log-level warning); /health runs a generation: not worth asking
        # before the server listens
        says_so = stage in ("warming up", "ready")
        if says_so or (line.elapsed_s >= ask_at_s and server.listens()):
            if stranger := listener.owner(launch.host, launch.port, pid).stranger:
                line.end(f"port {launch.port} is answered by {stranger}")
                return OUSTED
            if server.healthy() and server.model():
                if listener.owner(launch.host, launch.port, pid).stranger:
                    continue  # it began to listen since, and is the one that answered
                line.end(f"ready: {server.model()}")
                return ""
            ask_at_s = line.elapsed_s + ASK_S
        time.sleep(POLL_S)
    line.end(f"not ready after {timeout_s:.0f} s (--start-timeout): {log.stage(text)}")
    return "timed out"


def main(argv: list[str]) -> int:
    """wait-ready LOGS LABEL PID: 0 ready, 1 not."""
    parser = argparse.ArgumentParser(prog="repro_pp_graphs wait-ready", description=__doc__)
    parser.add_argument("logs", type=Path)
    parser.add_argument("label")
    parser.add_argument("pid", type=int)
    parser.add_argument("--timeout-s", type=float, default=1800)
    parser.add_argument(
        "--if-dead", action="store_true", help="wait for nothing: only explain a server that died"
    )
    parser.add_argument(
        "--exit-file", type=Path, help="where its exit status is noted once it has ended"
    )
    options = parser.parse_args(argv)
    launch = record.load(options.logs).launch(options.label)
    log_path = options.logs / f"{options.label}_server.log"
    if options.if_dead:
        if process.alive(options.pid) and not log.is_dying(read_log(log_path)):
            return 0
        return explain_dead(options, "died under load")
    begin = time.monotonic()
    trouble = wait(launch, options.pid, log_path, options.timeout_s)
    start_s = round(time.monotonic() - begin, 2)
    if not trouble:
        if not listener.owner(launch.host, launch.port, options.pid).ours:
            record.warn(
                options.logs,
                options.label,
                f"the process behind {launch.base_url} cannot be seen: not known to be its server",
            )
        info = Server(launch.base_url).info()
        record.save_facts(
            options.logs, options.label, server_start_s=start_s, server_info=_resolved(info)
        )
        return 0
    if trouble == "timed out":
        return explain_late(options)
    return explain_dead(options, trouble)


def explain_dead(options: argparse.Namespace, trouble: str) -> int:
    """Print and record why a server has died, or has no port to listen at; always 1."""
    log_path = options.logs / f"{options.label}_server.log"
    found = OTHER_SERVER if trouble == OUSTED else failure.of_dead(log_path, options.exit_file)
    print("\n".join([f"    server {trouble}", *failure.lines(found, log_path)]))
    return _failed(options, f"server {trouble}: {found.cause}")


def explain_late(options: argparse.Namespace) -> int:
    """Print and record why a server that lives is not ready, and what its ranks do; always 1."""
    log_path = options.logs / f"{options.label}_server.log"
    found = failure.of_living(log_path)
    print("\n".join(["    server timed out", *failure.lines(found, log_path)]), flush=True)
    python = record.load(options.logs).launch(options.label).python
    print("\n".join(hang.report(options.logs, options.label, options.pid, python)))
    return _failed(options, f"server timed out: {found.cause}")


def _failed(options: argparse.Namespace, reason: str) -> int:
    record.save_facts(options.logs, options.label, status="failed", reason=reason)
    return 1


def _resolved(info: dict[str, object]) -> dict[str, object]:
    """The server's own account of its arguments, without what holds a secret or a crowd."""
    dropped = ("internal_states", "api_key", "admin_api_key", "ssl_keyfile_password")
    return {key: value for key, value in info.items() if key not in dropped}
