"""Profile a loaded server until every rank's trace has arrived whole."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import requests

from repro_pp_graphs import launch_record, run_record
from repro_pp_graphs.environment import masking
from repro_pp_graphs.launch_record import LoadProfile
from repro_pp_graphs.run import step_options
from repro_pp_graphs.run.folder import previous
from repro_pp_graphs.run.folder.trace_files import Origin, TraceFiles
from repro_pp_graphs.run.launch.disk_watch import DiskWatch, drafts_of
from repro_pp_graphs.run.launch.live_line import LiveLine
from repro_pp_graphs.run_record import Launch
from repro_pp_graphs.server.http import Server
from repro_pp_graphs.server.log.log_lines import LINGER_S, ServerLogs
from repro_pp_graphs.server.machine import listener, process
from repro_pp_graphs.terminal import show
from repro_pp_graphs.traces.read.identity import is_trace

POLL_S = 0.25
DECODING_LIMIT_S = 120.0  # for the load's first decode step
SILENT_LOAD_S = 5.0
STEPS_LIMIT_S = 180.0  # for num_steps to pass; then /stop_profile
WRITE_LIMIT_S = 300.0  # for the ranks to write what they have
MOST_NAMED = 8  # of the ranks without a file


# brings the files of nodes that do not see --out, given the ranks whose files are here; a remark
Fetch = Callable[[set[tuple[int, int] | None]], str]


class ProfileError(RuntimeError):
    """No complete set of traces; the message says what there is and what to do."""


class ProfilePass:
    """One profile of one launch, into a folder that is empty."""

    def __init__(
        self, launch: Launch, pid: int, log_path: Path, folder: Path, fetch: Fetch | None = None
    ) -> None:
        self.launch = launch
        self.pid = pid
        self.log_path = log_path
        self.log = ServerLogs(log_path)
        self.files = TraceFiles(folder)
        self.server = Server(launch.base_url)
        self.line = LiveLine("profile")
        self.origin = Origin(str(time.time()), 0.0, 0.0, launch.pp_size, launch.tp_size)
        self.fetch = fetch or (lambda _: "")
        self.disk = DiskWatch(self.line, log_path.parent, folder, drafts_of(launch))

    def server_gone(self) -> bool:
        """Has the server, or one of its ranks, died?"""
        # the main process outlives a dead rank by up to a minute
        return not process.alive(self.pid) or self.log.look().is_dying

    def traces(self) -> list[Path]:
        """The files of this profile that are complete now."""
        return self.files.whole(lambda path: self.origin.rank_of(path) is not None)

    def strangers(self) -> list[Path]:
        """The traces in the folder that this profile did not write."""
        there = filter(is_trace, sorted(self.files.folder.glob("*")))
        return [path for path in there if self.origin.rank_of(path) is None]

    def _written(self) -> set[tuple[int, int] | None]:
        return {self.origin.rank_of(path) for path in self.traces()}

    def missing(self) -> str:
        """The ranks without a whole file, `PP1 TP0 on node 1, ...`; empty for none."""
        launch, written = self.launch, self._written()
        every = [(pp, tp) for pp in range(launch.pp_size) for tp in range(launch.tp_size)]
        lacking = [rank for rank in every[: launch.ranks] if rank not in written]
        said = [
            f"PP{pp}"
            + (f" TP{tp}" if launch.tp_size > 1 else "")
            + (f" on node {launch.node_of(pp, tp)}" if launch.started_nodes > 1 else "")
            for pp, tp in lacking[:MOST_NAMED]
        ]
        more = len(lacking) - len(said)
        return ", ".join(said) + (f" and {more} more" if more else "")

    def wait_for_decode(self, seen: int) -> None:
        """Wait until the load decodes: a profile without load never reaches its steps.

        `seen` are the log's decode lines so far; where the measuring pass left none the log does
        not show them (--log-level warning), and the load is given SILENT_LOAD_S.
        """
        if not seen:
            self.line.show("the log names no decode steps: giving the load some time")
            time.sleep(SILENT_LOAD_S)
            return
        limit_s = self.line.elapsed_s + DECODING_LIMIT_S
        while self.log.look().decoded <= seen:
            if self.server_gone():
                raise ProfileError("the server died before the profile began")
            if self.line.elapsed_s > limit_s:
                load = f"logs/{self.files.folder.name}_profile_load.log"
                raise ProfileError(
                    f"no decode step in {DECODING_LIMIT_S:.0f} s of load (what became of its "
                    f"requests: {load}){self.disk.remedy()}"
                )
            self.disk.look()
            self.line.show("waiting for the load to decode")
            time.sleep(POLL_S)

    def wait_for_files(self, limit_s: float, stage: str) -> int:
        """Wait for every rank's whole file, at most `limit_s`; returns how many ranks have one."""
        end_s = self.line.elapsed_s + limit_s
        while True:
            if self.server_gone():  # the other ranks may still be writing
                end_s = min(end_s, self.line.elapsed_s + LINGER_S)
            trouble = self.fetch(self._written())
            count = len(self._written())
            if count >= self.launch.ranks or self.line.elapsed_s > end_s:
                return count
            self.disk.look()
            self.line.show(trouble or f"{stage}: {count} of {self.launch.ranks} ranks written")
            time.sleep(POLL_S)

    def start(self, num_steps: int, with_stack: bool) -> None:
        """Ask the launch's own server for a profile. Raises ProfileError."""
        at = listener.owner(self.launch.host, self.launch.port, self.pid)
        if at.stranger:
            raise ProfileError(f"port {self.launch.port} is now answered by {at.stranger}")
        self.origin.asked_s = time.time()
        try:
            self.server.start_profile(
                str(self.files.folder), num_steps, with_stack, self.origin.profile_id
            )
        except requests.RequestException as error:
            said = masking.excerpt(str(error))
            raise ProfileError(f"/start_profile failed ({said}); see the server's log") from None
        self.origin.answered_s = time.time()

    def run(self, num_steps: int, with_stack: bool) -> list[str]:
        """Profile; returns warnings. Raises ProfileError without a whole file of every rank."""
        self.wait_for_decode(self.log.look().decoded)
        self.start(num_steps, with_stack)
        warnings = []
        count = self.wait_for_files(STEPS_LIMIT_S, f"{num_steps} steps")
        if count < self.launch.ranks and not self.server_gone():
            warnings.append(f"{num_steps} steps had not passed in {STEPS_LIMIT_S:.0f} s: stopped")
            self.server.stop_profile()
            count = self.wait_for_files(WRITE_LIMIT_S, "writing")
        if count < self.launch.ranks:
            state = "the server died" if self.server_gone() else "time ran out"
            raise ProfileError(
                f"{count} of {self.launch.ranks} ranks' traces are whole, {self.missing()} missing "
                f"({state}{self.disk.remedy()}); see {self.log_path} and {self.files.folder}"
            )
        if len(self.traces()) > count:
            warnings.append(f"{len(self.traces())} trace files of {count} ranks")
        return warnings


def main(argv: list[str]) -> int:
    """profile OUT LABEL PID: 0 with every rank's trace, 1 without."""
    parser = step_options.of_server("profile", __doc__)
    parser.add_argument("--load", default="", help="of a sweep, where it is not the main one")
    options = parser.parse_args(argv)
    out, logs, label = options.out, options.out / "logs", options.label
    plan = run_record.load(logs)
    launch = plan.launch(label)
    if plan.attached:
        from repro_pp_graphs.run.launch import attached_profile  # noqa: PLC0415 - for such a run alone

        return attached_profile.profile(out, plan, launch)
    log_path = logs / f"{label}_server.log"
    folder = out / "trace" / (plan.load_label(launch, options.load) if options.load else label)
    aside = _say(previous.clear(out, [f"trace/{folder.name}/"]))
    folder.mkdir(parents=True)
    fetch = None
    if launch.started_nodes > 1:
        from repro_pp_graphs.run.folder import node_results  # noqa: PLC0415 - for such a run alone

        fetch = node_results.Fetcher(out, launch)
    one = ProfilePass(launch, options.pid, log_path, folder, fetch)
    found = LoadProfile(began_ns=time.monotonic_ns())
    try:
        warnings = one.run(plan.profile_steps, plan.with_stack)
    except ProfileError as error:
        one.line.end(f"failed: {error}")
        print("\n".join(_why(one, logs, options.exit_file)))
        aside += _clear_strangers(out, one)
        if options.load:
            launch_record.amend(logs, label, aside)
            found.ended_ns, found.fault = time.monotonic_ns(), str(error)
            launch_record.note_profile(logs, label, options.load, found)
        else:
            launch_record.amend(logs, label, aside, status="failed", reason=f"profile: {error}")
        return 1
    aside += _clear_strangers(out, one)
    sizes = {path.name: path.stat().st_size for path in one.traces()}
    one.line.end(f"{len(sizes)} traces, {sum(sizes.values()) / 1e6:.1f} MB")
    seconds = round(one.line.elapsed_s, 2)
    if options.load:
        launch_record.amend(logs, label, aside + warnings)
        found.seconds, found.trace_bytes, found.ended_ns = seconds, sizes, time.monotonic_ns()
        launch_record.note_profile(logs, label, options.load, found)
    else:
        launch_record.amend(logs, label, aside + warnings, profile_s=seconds, trace_bytes=sizes)
    return 0


def _why(one: ProfilePass, logs: Path, exit_file: Path | None) -> list[str]:
    """Why there is no profile: of what the server died, or where its ranks stand."""
    from repro_pp_graphs.run.launch import failure, hang  # noqa: PLC0415 - all causes of failures

    if one.server_gone():
        return failure.lines(*failure.of_dead(one.log_path, exit_file))
    return hang.report(logs, one.launch.label, one.pid, one.launch.python)


def _clear_strangers(out: Path, one: ProfilePass) -> list[str]:
    names = [f"trace/{one.files.folder.name}/{path.name}" for path in one.strangers()]
    return _say(previous.clear(out, names))


def _say(line: str) -> list[str]:
    """Print what was moved aside; the same as a launch's warnings."""
    if not line:
        return []
    show(line)
    return [line]
