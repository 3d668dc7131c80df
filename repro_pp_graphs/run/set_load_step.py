"""Before the profile under a further load of a sweep: has the server taken its micro-batch size?"""

from __future__ import annotations

from repro_pp_graphs import launch_record, run_record
from repro_pp_graphs.launch_record import LoadProfile
from repro_pp_graphs.run import step_options
from repro_pp_graphs.run.launch import failure
from repro_pp_graphs.server.http import Server
from repro_pp_graphs.terminal import show


def main(argv: list[str]) -> int:
    """set-load OUT LABEL PID --load NAME: 0 where the load can be profiled; 1 where not, with the
    reason in the launch's record: its measurement stands."""
    parser = step_options.of_server("set-load", __doc__)
    parser.add_argument("--load", required=True, help="its name in the sweep")
    options = parser.parse_args(argv)
    logs, label = options.out / "logs", options.label
    plan = run_record.load(logs)
    launch = plan.launch(label)
    load, size = plan.load(options.load), launch.loads[options.load]
    show(f"{load.title}: profile", "  load    ", flush=True)
    why = ""
    if failure.server_gone(logs, label, options.pid):
        why = "the server had ended before it"
    elif size and (refused := Server(launch.base_url).set_micro_batch(size)):
        why = f"micro-batch {size}: {refused}"
    if not why:
        return 0
    show(f"not profiled: {why}", flush=True)
    launch_record.note_profile(logs, label, load.name, LoadProfile(fault=why))
    return 1
