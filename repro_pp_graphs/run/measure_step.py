"""The unprofiled pass: run the load client, and say what it measured, or why it could not."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from repro_pp_graphs import record
from repro_pp_graphs.client import command
from repro_pp_graphs.files import BadFile, read_object
from repro_pp_graphs.record import Launch
from repro_pp_graphs.run import client_words, results, step_options
from repro_pp_graphs.terminal import wrapped

INTERRUPTED = 130
# what is read of the client's result
SUMMARY: dict[str, Any] = {
    "summary": {
        "output_throughput": float,
        "request_throughput": float,
        "errors": dict[str, int],
    }
}


@contextlib.contextmanager
def stdout_to(path: Path) -> Iterator[None]:
    """What is printed meanwhile goes to a file. Raises OSError."""
    sys.stdout.flush()
    kept = os.dup(1)
    with path.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def run_client(words: list[str], log: Path, root: Path) -> int:
    """Run the client in this process, its report into a file; its exit status."""
    with stdout_to(log):
        try:
            status = command.main(words, root)
        except SystemExit as error:  # its command line is at fault
            status = error.code if isinstance(error.code, int) else 1
    for number in (signal.SIGINT, signal.SIGTERM):  # the client ignores them once it has measured
        signal.signal(number, signal.SIG_DFL)
    return status


def result_of(path: Path) -> dict[str, Any]:
    """The summary in the client's result; empty where there is none."""
    with contextlib.suppress(OSError, BadFile):
        found: dict[str, Any] = read_object(path, SUMMARY).get("summary", {})
        return found
    return {}


def line_of(found: dict[str, Any]) -> str:
    """For the terminal: what was measured, in short."""
    tokens, prompts = found.get("output_throughput", 0), found.get("request_throughput", 0)
    return f"  client  {tokens:.2f} output tokens/s, {prompts:.2f} prompts/s"


def say_why(options: argparse.Namespace, launch: Launch, status: int) -> None:
    """Print and record why the client failed; what the ranks do, where the server stalled."""
    from repro_pp_graphs import launch_record  # noqa: PLC0415 - not before the pass
    from repro_pp_graphs.run import failure, hang  # noqa: PLC0415

    logs, label = options.out / "logs", options.label
    if failure.server_gone(logs, label, options.pid):
        failure.report_dead(logs, label, "died under load", options.exit_file)
        return
    log = logs / f"{label}_client.log"
    errors: Counter[str] = Counter(result_of(results.client_json(logs, label)).get("errors"))
    reason = f"client: exit {status}; see {log}"
    if errors["stalled"]:  # it lives and sends nothing: what its ranks do, while they live
        reason = f"the server stalled; see {log} and {logs}/{label}_hang.txt"
    launch_record.amend(logs, label, status="failed", reason=reason)
    print("\n".join(wrapped(f"{label} failed: {reason}", "  ")), flush=True)
    if errors["stalled"]:
        print("\n".join(hang.report(logs, label, options.pid, launch.python)))


def say_why_attached(logs: Path, launch: Launch) -> None:
    """The same of a server that is not ours: its processes are left alone."""
    from repro_pp_graphs import launch_record  # noqa: PLC0415 - not before the pass
    from repro_pp_graphs.server.http import Server  # noqa: PLC0415

    log = logs / f"{launch.label}_client.log"
    listens = Server(launch.base_url).listens()
    state = "still listens: its log may say more" if listens else "no longer listens: it has ended"
    reason = f"the load failed, see {log}; the server at {launch.base_url} {state}"
    launch_record.amend(logs, launch.label, status="failed", reason=reason)
    again = "when it is well again, run the same command"
    print("\n".join(wrapped(f"{launch.label} failed: {reason}; {again}", "  ")), flush=True)


def main(argv: list[str]) -> int:
    """measure OUT LABEL PID: 0 measured, 1 not."""
    parser = step_options.of_server("measure", __doc__)
    parser.add_argument("--root", type=Path, required=True, help="where prompts.txt is")
    options = parser.parse_args(argv)
    logs, label = options.out / "logs", options.label
    plan = record.load(logs)
    launch = plan.launch(label)
    words = client_words.prompts(options.root) + client_words.measured(plan, launch, logs)
    status = run_client(words, logs / f"{label}_client.log", options.root)
    if status == INTERRUPTED:
        return status
    if status and launch.attached:
        say_why_attached(logs, launch)
        return 1
    if status:
        say_why(options, launch, status)
        return 1
    print(line_of(result_of(results.client_json(logs, label))))
    return 0
