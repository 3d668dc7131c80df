"""The loads of a sweep, measured one after another on one server.

What was measured of a load is recorded as soon as it has ended: Ctrl-C, or a server that dies under
a later load, costs none of those before.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from repro_pp_graphs import files, launch_record
from repro_pp_graphs.launch_record import LoadRecord
from repro_pp_graphs.run.folder import results
from repro_pp_graphs.run.launch import failure
from repro_pp_graphs.run.launch.client_pass import (
    INTERRUPTED,
    Pass,
    line_of,
    result_of,
    run_client,
    why_failed,
)
from repro_pp_graphs.run.plan import client_words
from repro_pp_graphs.run_record import Launch, Load, Plan
from repro_pp_graphs.server.http import Server
from repro_pp_graphs.terminal import show


class Loads:
    """Those of one launch."""

    def __init__(self, options: argparse.Namespace, plan: Plan, launch: Launch) -> None:
        self.options, self.plan, self.launch = options, plan, launch
        self.logs: Path = options.out / "logs"
        self.server = Server(launch.base_url)
        self.found: dict[str, LoadRecord] = {}
        self.last = Pass(0, "")  # of the client, for the load that is measured

    def run(self) -> int:
        """0 where the main load is measured, 1 where it is not, 130 interrupted."""
        for place, (name, size) in enumerate(self.launch.loads.items(), 1):
            load = self.plan.load(name)
            status = self.measure(load, place, size)
            if status == INTERRUPTED or (status and self.ends_the_launch(load)):
                return status
        main = self.plan.loads[0]
        known = self.found[main.name]
        if known.status != "ok":
            reason = f"{main.title}: {known.reason}"
            launch_record.amend(self.logs, self.launch.label, status="failed", reason=reason)
            return 1
        if why := self.tell(self.launch.loads[main.name]):  # the profile is of the main load
            warning = f"the profile has the micro-batches of the last load: {why}"
            launch_record.amend(self.logs, self.launch.label, [warning])
        return 0

    def tell(self, size: int | None) -> str:
        """Have the server take the micro-batch size of a load; why it did not, or an empty text."""
        return self.server.set_micro_batch(size) if size else ""

    def measure(self, load: Load, place: int, size: int | None) -> int:
        """Measure one load and record how it ended; the client's exit status."""
        label = self.plan.load_label(self.launch, load.name)
        self.last = Pass(0, "")
        if why := self.tell(size):
            self.record(load, LoadRecord("failed", place, f"micro-batch {size}: {why}"))
            return 1
        try:
            files.hold_room(results.client_draft(self.logs, label), results.room_for(load))
        except OSError as error:
            self.record(load, LoadRecord("failed", place, f"{error.filename}: {error.strerror}"))
            return 1
        words = client_words.prompts(self.options.root)
        words += client_words.measured(self.plan, self.launch, self.logs, load)
        log = self.logs / f"{label}_client.log"
        self.last = run_client(words, log, self.options.root)
        status = self.last.status
        if status == INTERRUPTED:
            return status
        found = LoadRecord("ok", place, micro_batch=size)
        path = results.client_json(self.logs, label)
        if status:
            why = why_failed(self.last, log)
            found.status, found.reason = "failed", f"client: exit {status}{why}"
        else:
            found.client_sha256 = files.sha256(path)
        self.record(load, found, path)
        return status

    def record(self, load: Load, found: LoadRecord, path: Path | None = None) -> None:
        """On disk at once, and on the terminal."""
        self.found[load.name] = found
        said = [f"{load.title}: {found.reason}"] if found.reason else []
        main = self.found.get(self.plan.loads[0].name)  # the launch's own figures are of it
        measured = main is not None and main.status == "ok"
        launch_record.amend(self.logs, self.launch.label, said, loads=self.found, measured=measured)
        text = found.reason or line_of(result_of(path) if path else {}).removeprefix("  client  ")
        show(f"{load.title}: {text}", "  load    ", flush=True)

    def ends_the_launch(self, load: Load) -> bool:
        """After a load that failed: has the server died, or does it stall? It is said then."""
        label = self.plan.load_label(self.launch, load.name)
        found = result_of(results.client_json(self.logs, label))
        gone = failure.server_gone(self.logs, self.launch.label, self.options.pid)
        if not gone and not found.get("errors", {}).get("stalled"):
            return False
        where, exit_file = self.options.pid, self.options.exit_file
        failure.report_load(self.logs, self.launch, label, self.last, where, exit_file=exit_file)
        return True
