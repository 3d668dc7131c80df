"""The unprofiled pass: run the load client, and say what it measured, or why it could not."""

from __future__ import annotations

from pathlib import Path

from repro_pp_graphs import run_record
from repro_pp_graphs.run import step_options
from repro_pp_graphs.run.folder import results
from repro_pp_graphs.run.launch.client_pass import (
    INTERRUPTED,
    Pass,
    line_of,
    result_of,
    run_client,
    why_failed,
)
from repro_pp_graphs.run.launch.measured_host import Host
from repro_pp_graphs.run.plan import client_words
from repro_pp_graphs.run_record import Launch
from repro_pp_graphs.server.machine import listener
from repro_pp_graphs.terminal import show


def say_why_attached(logs: Path, launch: Launch, done: Pass) -> None:
    """The same of a server that is not ours: its processes are left alone."""
    from repro_pp_graphs import launch_record  # noqa: PLC0415 - not before the pass

    log = logs / f"{launch.label}_client.log"
    listens = listener.accepts(launch.base_url)
    state = "still listens: its log may say more" if listens else "no longer listens: it has ended"
    reason = f"the load failed{why_failed(done, log)}; the server at {launch.base_url} {state}"
    launch_record.amend(logs, launch.label, status="failed", reason=reason)
    again = "when it is well again, run the same command"
    show(f"{launch.label} failed: {reason}; {again}", flush=True)


def note_measured(logs: Path, label: str) -> None:
    """Record that the measured pass of a launch has ended whole, whatever ends the launch."""
    from repro_pp_graphs import launch_record  # noqa: PLC0415 - not before the pass

    launch_record.amend(logs, label, measured=True)


def note_gpus(logs: Path, label: str) -> None:
    """Record which Xids the kernel's log has after the last measured pass: later ones cost no
    measurement."""
    from repro_pp_graphs import launch_record  # noqa: PLC0415 - not before the pass
    from repro_pp_graphs.server.machine import gpu_counters  # noqa: PLC0415

    known = launch_record.load(logs, label)
    if known and known.gpu_counters:
        known.gpu_counters.passes = gpu_counters.read_log()
        launch_record.amend(logs, label, gpu_counters=known.gpu_counters)


def main(argv: list[str]) -> int:
    """measure OUT LABEL PID: 0 measured, 1 not."""
    parser = step_options.of_server("measure", __doc__)
    parser.add_argument("--root", type=Path, required=True, help="where prompts.txt is")
    options = parser.parse_args(argv)
    logs, label = options.out / "logs", options.label
    plan = run_record.load(logs)
    launch = plan.launch(label)
    host = Host(options.pid)
    if why := host.pin(plan, launch, logs):
        show(f"{label} failed: {why}", flush=True)
        return 1
    host.begin()
    if launch.loads:
        from repro_pp_graphs.run.launch import measure_loads  # noqa: PLC0415 - for a sweep alone

        status = measure_loads.Loads(options, plan, launch).run()
        host.end(logs, label)
        if not status:
            note_gpus(logs, label)
        return status
    words = client_words.prompts(options.root) + client_words.measured(plan, launch, logs)
    done = run_client(words, logs / f"{label}_client.log", options.root)
    if not done.status:
        note_measured(logs, label)
    host.end(logs, label)
    if not done.status:
        note_gpus(logs, label)
    if done.status == INTERRUPTED:
        return done.status
    if done.status and launch.attached:
        say_why_attached(logs, launch, done)
        return 1
    if done.status:
        from repro_pp_graphs.run.launch import failure  # noqa: PLC0415 - not before the pass

        failure.report_load(logs, launch, label, done, options.pid, exit_file=options.exit_file)
        return 1
    print(line_of(result_of(results.client_json(logs, label))))
    return 0
