"""After a launch: port and memory free again, the arm checked, and how it ended recorded."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import Any

from repro_pp_graphs import files, launch_record, run_record
from repro_pp_graphs.files import BadFile, read_object
from repro_pp_graphs.launch_record import GpuCounters, LaunchRecord
from repro_pp_graphs.pp_clock import absent, kept
from repro_pp_graphs.pp_clock.clock_record import ClockFacts
from repro_pp_graphs.pp_clock.rows import LOG_NOT_STARTED, NO_WORD
from repro_pp_graphs.run import step_options
from repro_pp_graphs.run.folder import own_traces, results
from repro_pp_graphs.run.launch import arm_check
from repro_pp_graphs.run.launch.free_again import wait_until_free
from repro_pp_graphs.run_record import Launch, Plan
from repro_pp_graphs.server import shim_names
from repro_pp_graphs.server.log import log_lines
from repro_pp_graphs.server.machine import gpu_counters
from repro_pp_graphs.terminal import show

FAULTY_GPU = (
    "try: --resume, which runs it again; where it comes back leave that GPU out "
    "(CUDA_VISIBLE_DEVICES), and have it reset or replaced"
)
NO_REASON = "a step of the harness broke off; see the terminal"


class Ending:
    """The end of one launch: looked at step by step, written to its record at once."""

    def __init__(self, out: Path, plan: Plan, launch: Launch) -> None:
        self.out, self.logs = out, out / "logs"
        self.plan, self.launch, self.label = plan, launch, launch.label
        self.known = self._known()
        self.changes: dict[str, Any] = {}
        self.warnings: list[str] = []

    def _known(self) -> LaunchRecord:
        try:
            return launch_record.load(self.logs, self.label) or LaunchRecord("running")
        except BadFile:
            return LaunchRecord("running")  # amend says so in its warnings

    def count_gpus(self) -> None:
        """Complete the GPU counters, with warnings of what they say."""
        counters = self.known.gpu_counters
        if counters and counters.before is not None:
            after = gpu_counters.read(list(self.plan.gpu_used_mib))
            self.changes["gpu_counters"] = GpuCounters(counters.before, after, counters.passes)
            told = gpu_counters.remarks(counters.before, after, counters.passes)
            self.warnings += [*told, *(text for text in self.faults() if text not in told)]

    def collect_clock(self) -> None:
        """Keep what the ranks' clocks wrote, and warn of what they lack."""
        begun = not (self.known.reason or "").startswith(launch_record.NOT_BEGUN)
        if not begun or "pp_clock" not in shim_names.names_in(self.launch.env):
            return
        if self.launch.started_nodes > 1:
            from repro_pp_graphs.run.folder import node_results  # noqa: PLC0415 - for such a run alone

            for fault in node_results.fetch_rows(self.out, self.launch):
                self.warnings.append(f"pp_clock: {fault}: its ranks' rows are missing")
        not_started = clocks_not_started(self.logs, self.label)
        try:
            others = self.plan.other_loads(self.launch)
            found = self._facts(not_started, others)
        except OSError as error:
            self.warnings.append(f"pp_clock: {error}: its rows are kept, its facts are not")
            return
        died_early = self.known.status == "failed" and self.known.server_start_s is None
        if found is None and died_early and not not_started:
            return  # there was no turn to time
        if found is None:
            self.warnings.append(f"pp_clock: {absent.nothing_left(not_started)}")
        else:
            from repro_pp_graphs.pp_clock import collect  # noqa: PLC0415 - not where no rank left rows
            from repro_pp_graphs.run.launch import micro_batches  # noqa: PLC0415

            self.warnings += [f"pp_clock: {text}" for text in found.warnings]
            clocks = {self.label: found}
            for label in others:
                if other := collect.load(self.logs, label):
                    clocks[label] = other
                    new = (text for text in other.warnings if text not in found.warnings)
                    self.warnings += [f"pp_clock: {label}: {text}" for text in new]
            self.warnings += micro_batches.remark(self.plan, self.launch, clocks)

    def _facts(self, not_started: dict[str, str], others: list[str]) -> ClockFacts | None:
        """What the ranks' rows say, which are kept; None where no rank left any. Raises OSError."""
        if not kept.row_files(self.logs, self.label):
            return None
        from repro_pp_graphs.pp_clock import collect  # noqa: PLC0415

        spans = self._profiles() if self.plan.loads else None
        return collect.collect(self.logs, self.label, not_started, others, spans)

    def _profiles(self) -> dict[str, tuple[int, int]]:
        """When each load of a sweep was profiled, by label, CLOCK_MONOTONIC, ns: the main one
        before all others."""
        loads = self.known.loads or {}
        own = {
            self.plan.load_label(self.launch, name): (its.began_ns, its.ended_ns)
            for name, each in loads.items()
            if (its := each.profile) and its.began_ns and its.ended_ns
        }
        first = min((began for began, _ in own.values()), default=1 << 62)
        return {**own, self.label: (0, first)}

    def faults(self) -> list[str]:
        """What a GPU of the launch lost in it: its numbers are no measurement, it is run again."""
        counters = self.changes.get("gpu_counters")
        if not counters:
            return []
        return gpu_counters.faults(counters.before, counters.after, counters.passes)

    def check(self) -> None:
        """Is it what it claims? Where not, it has failed."""
        found = [*self._lacks(), *self._other_traces(), *self._arm()]
        for text in found:
            show(f"{self.label}: NOT WHAT IT CLAIMS: {text}")
        if found:
            self.fail("; ".join(found), silent=True)

    def _lacks(self) -> list[str]:
        report = self.out / "trace" / f"{self.label}.nsys-rep"
        if not self.plan.nsys or (report.exists() and report.stat().st_size):
            return []
        return [f"nsys left no {report}; see the server's log"]

    def _other_traces(self) -> list[str]:
        more, lost = own_traces.strangers(self.out, self.label, self.known.trace_bytes)
        if not more and not lost:
            return []
        return [f"while its traces were read, others came or went: {', '.join(more + lost)}"]

    def interrupt(self) -> None:
        """It was interrupted. Where its measured pass had ended that is looked at as ever."""
        self.changes["status"] = "interrupted"
        if self.known.measured:
            self.count_gpus()
            self.collect_clock()
            doubts = self._doubts()
            self.changes["measured"] = not doubts
            self.changes["reason"] = "; ".join(["interrupted", *doubts])
            if not doubts:
                self.changes["reason"] = f"interrupted after its measured pass{self._not_yet()}"
        else:
            self.warnings += kept.keep(self.logs, self.label)

    def _doubts(self) -> list[str]:
        """Why what a launch measured is no measurement of its case."""
        try:
            return self.faults() or self._arm()
        except (OSError, BadFile) as error:
            return [str(error)]

    def _not_yet(self) -> str:
        """What of the profile was still to come; empty for nothing."""
        if not self.plan.profile or (self.logs / f"{self.label}_analysis.json").exists():
            return ""
        lacks = "traces were analysed" if self.known.trace_bytes else "profile was whole"
        return f", before its {lacks}"

    def _arm(self) -> list[str]:
        if self.plan.engine == "probe" and not self.plan.profile:
            return []
        analysis = self.logs / f"{self.label}_analysis.json"
        launches = None
        if analysis.exists():
            launches = read_object(analysis, run_record.ANALYSIS).get("graph_launches")
        text = log_lines.read_logs(self.logs / f"{self.label}_server.log")
        state, found = arm_check.check(text, launches, self.launch)
        self.changes["graph_state"] = state
        return found

    def claim_traces(self) -> None:
        """Of a launch that has failed: what another server wrote into its folder goes aside."""
        line, _ = own_traces.claim(self.out, self.label, self.known.trace_bytes)
        if line:
            show(line)
            self.warnings.append(line)

    def fail(self, reason: str, silent: bool = False) -> None:
        """It has failed; said on the terminal too, unless an earlier step has said it."""
        if self.known.measured:
            self.changes["measured"] = not self._doubts()
        full = files.low_space(self.logs, self.out / "trace")
        known = reason == self.known.reason or silent
        if full and "the disk of" not in reason:
            reason, known = f"{reason}; {full}: free some", False
        self.changes.update(status="failed", reason=reason)
        if not known:
            show(f"{self.label} failed: {reason}")

    def write(self) -> None:
        """Put it on the disk. Raises OSError."""
        if not self.known.run_id:  # interrupted before its record was begun
            self.changes["run_id"] = self.plan.run_id
        if self.known.began:
            # what time.strptime reads too, which takes 3 ms to get ready
            began_s = datetime.fromisoformat(self.known.began).timestamp()
            self.changes["wall_s"] = max(0.0, round(time.time() - began_s))
        looked_at = "graph_state" in self.changes  # its log told what ran
        if looked_at or self.known.server_start_s is not None:
            names = shim_names.names_in(self.launch.env)
            self.changes["shims"] = {name: shim_names.REASONS[name] for name in names}
        if measured := files.sha256(self.logs / f"{self.label}_client.json"):
            self.changes["client_sha256"] = measured
        why = (self.changes.get("reason") or "").split("; ")
        self.warnings = [text for text in self.warnings if text not in why]  # said once
        for label in [self.label, *self.plan.other_loads(self.launch)]:
            results.client_draft(self.logs, label).unlink(missing_ok=True)
        launch_record.amend(self.logs, self.label, self.warnings, **self.changes)


def clocks_not_started(logs: Path, label: str) -> dict[str, str]:
    """By rank (PP1, PP1 TP0) why its clock did not start, as far as a launch's log says."""
    found = {}
    for line in log_lines.lines(log_lines.read_logs(logs / f"{label}_server.log")):
        if line.prefixed and line.text.startswith(LOG_NOT_STARTED):
            why, _, _ = line.text.removeprefix(LOG_NOT_STARTED).partition("; ")
            found[line.rank] = why.strip(" ()") or NO_WORD
    return found


def _reason(ending: Ending, given: str) -> str:
    """Why it failed: what a step recorded, what was given, or the last line of a probe that ended
    by itself."""
    if given:
        return ending.known.reason or given
    if ending.known.reason or ending.plan.engine != "probe":
        return ending.known.reason or NO_REASON
    from repro_pp_graphs.run.launch import failure  # noqa: PLC0415 - all causes of failures

    return failure.last_line(ending.logs / f"{ending.label}_probe.log") or NO_REASON


def main(argv: list[str]) -> int:
    """finish OUT LABEL: 0 where the launch is measured and is what it claims, 1 where not."""
    parser = step_options.of_launch("finish", __doc__)
    parser.add_argument("--failed", action="store_true", help="a step before this one failed")
    parser.add_argument("--reason", default="", help="of --failed, where no step has said why")
    parser.add_argument("--interrupted", action="store_true", help="record that, wait for nothing")
    parser.add_argument(
        "--server-died", action="store_true", help="warn that it ended before it was stopped"
    )
    options = parser.parse_args(argv)
    plan = run_record.load(options.out / "logs")
    ending = Ending(options.out, plan, plan.launch(options.label))
    ending.changes["status"] = "ok"
    if options.interrupted:
        ending.interrupt()
    else:
        ending.count_gpus()
        ending.collect_clock()
        if options.failed or ending.known.status == "failed":
            ending.claim_traces()
            ending.fail(_reason(ending, options.reason))
        elif faults := ending.faults():
            ending.fail("; ".join(faults))
            show(FAULTY_GPU)
        else:
            ending.check()
        if options.server_died and not options.failed:
            log = f"{options.label}_server.log"
            ending.warnings.append(f"the server died after its last pass; see {log}")
        if held := "" if plan.attached else wait_until_free(plan, ending.launch, options.out):
            show(f"not free {held}")
    ending.write()
    return int(ending.changes["status"] != "ok")
