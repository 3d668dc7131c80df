"""Profile a loaded server that is not ours: it is asked, its files are copied, nothing is ended."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

import requests

from repro_pp_graphs import launch_record
from repro_pp_graphs.environment import masking
from repro_pp_graphs.files import BadFile, read_object
from repro_pp_graphs.run.folder import previous, results
from repro_pp_graphs.run.folder.trace_files import Origin, TraceFiles
from repro_pp_graphs.run.launch.disk_watch import DiskWatch
from repro_pp_graphs.run.launch.live_line import LiveLine
from repro_pp_graphs.run_record import Attached, Launch, Plan
from repro_pp_graphs.server import running
from repro_pp_graphs.server.http import PROFILE_KEYS, Server
from repro_pp_graphs.terminal import wrapped
from repro_pp_graphs.traces.read.identity import is_trace

POLL_S = 0.25
ASK_S = 2.0  # between looks whether the server still listens
LOAD_S = 2.0  # for the load to decode, beside its TTFT
LEAST_STEPS_S, MOST_STEPS_S = 30.0, 180.0  # for num_steps to pass; then /stop_profile
SLOWED = 10.0  # a profiled step takes at most so many measured ones
WRITE_LIMIT_S = 300.0  # for the ranks to write what they have, where one file has come
UNSEEN_S = 15.0  # the same where none has: the folder is not this one
CLOCKS_S = 120.0  # by so much another machine's clock may differ
MOST_NAMED = 4  # traces
STOP_S = 3.0  # for a server to take /stop_profile when the run is interrupted


class NotProfiledError(RuntimeError):
    """No traces; the message is one sentence and a next step. `died`: nor a server any more."""

    def __init__(self, text: str, died: bool = False) -> None:
        super().__init__(text)
        self.died = died


def pace_s(path: Path) -> tuple[float, float]:
    """TTFT and time a token, s, as the measured pass had them; 0 where it does not say."""
    keys = ("p99_ttft_ms", "mean_tpot_ms")
    with contextlib.suppress(OSError, BadFile):
        found = read_object(path).get("summary", {})
        ttft, tpot = (found.get(key) for key in keys)
        return (ttft or 0.0) / 1e3, (tpot or 0.0) / 1e3
    return 0.0, 0.0


class AttachedProfile:
    """One profile of a server that is not ours."""

    def __init__(self, launch: Launch, attached: Attached, folder: Path) -> None:
        self.launch, self.attached, self.folder = launch, attached, folder
        self.server = Server(launch.base_url, attached.local)
        self.files = TraceFiles(Path(attached.folder)) if attached.folder else None
        self.before = {path.name for path in self.files.folder.glob("*")} if self.files else set()
        self.line = LiveLine("profile")
        self.origin = Origin(
            str(time.time()),
            0.0,
            0.0,
            launch.pp_size,
            launch.tp_size,
            slack_s=1.0 if attached.local else CLOCKS_S,
        )
        self.asked_at_s = 0.0
        self.listening = True

    def traces(self) -> list[Path]:
        """The files of this profile that are complete and seen here."""
        return self.files.whole(self._ours) if self.files else []

    def _ours(self, path: Path) -> bool:
        return path.name not in self.before and self.origin.rank_of(path) is not None

    def _count(self) -> int:
        return len({self.origin.rank_of(path) for path in self.traces()})

    def _still_listens(self) -> bool:
        if self.line.elapsed_s > self.asked_at_s + ASK_S:
            self.asked_at_s = self.line.elapsed_s
            self.listening = self.server.listens()
        return self.listening

    def wait_for_files(self, limit_s: float, stage: str, disk: DiskWatch) -> int:
        """Wait for every rank's file, at most `limit_s`; of how many ranks there is one."""
        end_s = self.line.elapsed_s + limit_s
        while True:
            count = self._count()
            if count >= self.launch.ranks or self.line.elapsed_s > end_s:
                return count
            if not self._still_listens():
                raise self._died(count)
            disk.look()
            seen = f": {count} of {self.launch.ranks} ranks written" if self.files else ""
            self.line.show(stage + seen)
            time.sleep(POLL_S)

    def _died(self, count: int) -> NotProfiledError:
        return NotProfiledError(
            f"the server stopped answering while it was profiled, {count} of {self.launch.ranks} "
            "traces are whole: see the server's log",
            died=True,
        )

    def start(self, num_steps: int, with_stack: bool) -> None:
        """Ask for a profile. Raises NotProfiledError."""
        self.origin.asked_s = time.time()
        try:
            self.server.start_profile(
                self.attached.output_dir, num_steps, with_stack, self.origin.profile_id
            )
        except requests.HTTPError as error:
            raise NotProfiledError(_refusal(error.response)) from None
        except requests.RequestException as error:
            died = not self.server.listens()
            text = "the server is gone" if died else masking.excerpt(str(error))
            raise NotProfiledError(f"/start_profile: {text}; see the server's log", died) from None
        self.origin.answered_s = time.time()

    def run(self, plan: Plan, pace: tuple[float, float]) -> list[str]:
        """Profile; returns warnings. Raises NotProfiledError without every rank's file."""
        ttft_s, token_s = pace
        self.line.show("giving the load some time")
        time.sleep(min(LOAD_S + 2 * ttft_s, MOST_STEPS_S))
        seen_here = [self.files.folder] if self.files else []
        disk = DiskWatch(self.line, self.folder.parent, *seen_here)
        limit_s = min(MOST_STEPS_S, max(LEAST_STEPS_S, SLOWED * plan.profile_steps * token_s))
        warnings = []
        with self._stopped_when_interrupted():
            self.start(plan.profile_steps, plan.with_stack)
            count = self.wait_for_files(limit_s, f"{plan.profile_steps} steps", disk)
            if count < self.launch.ranks:
                if self.server.stop_profile() and self.files:
                    warnings.append(
                        f"{plan.profile_steps} steps had not passed in {limit_s:.0f} s: stopped"
                    )
                seen = count or any(map(self._ours, self._there()))
                left_s = WRITE_LIMIT_S if seen else UNSEEN_S * bool(self.files)
                count = self.wait_for_files(left_s, "writing", disk)
        self._copy()
        if count < self.launch.ranks and not self.server.listens():
            raise self._died(count)
        if count < self.launch.ranks:
            raise NotProfiledError(self._lacking(count))
        if len(self.traces()) > count:
            raise NotProfiledError(
                f"{len(self.traces())} traces of {count} ranks came into {self.attached.folder}: "
                "another server's are among them; try again when that is not profiled"
            )
        return warnings

    def _there(self) -> Iterator[Path]:
        return filter(is_trace, self.files.folder.glob("*")) if self.files else iter(())

    def _copy(self) -> None:
        """Put what has come into the run's own folder; the originals stay where they are."""
        for path in self.traces():
            self.folder.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, self.folder)

    def _lacking(self, count: int) -> str:
        """What has not come, and how to go on."""
        where = self.attached.folder or (
            f"the server's own folder ({running.FOLDER_VARIABLE} in its environment, else "
            f"{running.FOLDER})"
        )
        what = f"{count} of {self.launch.ranks} ranks' traces came" if self.files else "traces"
        if count == 0:
            what = (
                f"no trace came into {where} (nor does one where somebody else profiles)"
                if self.files
                else f"its traces are in {where}"
            )
            where = where if self.files is None else f"{where} as the server sees it"
        return (
            f"{what}: on the server's machine copy the newest *.trace.json.gz of {where} into "
            f"{self.folder}, then: python -m repro_pp_graphs report {self.folder.parents[1]}"
        )

    @contextlib.contextmanager
    def _stopped_when_interrupted(self) -> Iterator[None]:
        """Ask the server to end the profile where this step is ended before it is over."""

        def end(number: int, _frame: FrameType | None) -> NoReturn:
            signal.signal(number, signal.SIG_IGN)
            sys.exit(128 + number)

        kept = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        except SystemExit:
            self.server.stop_profile(STOP_S)
            self.line.end("interrupted: the server was asked to end the profile")
            raise
        finally:
            for number, handler in kept.items():
                signal.signal(number, handler)


def _refusal(answer: requests.Response | None) -> str:
    """Why /start_profile was not taken, and what to do."""
    status = answer.status_code if answer is not None else 0
    said = masking.excerpt(" ".join(answer.text.split())[:200]) if answer is not None else ""
    head = f"/start_profile answered {status}"
    if status in running.REFUSED:
        return f"{head}: it wants the admin key: export {PROFILE_KEYS[0]}, or --no-profile"
    if status in (requests.codes.not_found, requests.codes.method_not_allowed):
        return f"{head}: this server has no profiler, or a proxy hides it: --no-profile"
    return (
        f"{head} ({said or 'without a reason'}): a profile may be running already, which ends with "
        "POST /stop_profile by whoever began it; else see the server's log"
    )


def profile(out: Path, plan: Plan, launch: Launch) -> int:
    """0 with every rank's trace; 1 without, the reason being recorded: as a warning where the
    server lives, whose measured numbers stay good."""
    logs, folder = out / "logs", out / "trace" / launch.label
    assert launch.attached is not None
    aside = previous.clear(out, [f"trace/{launch.label}/"])
    notes = [aside] if aside else []
    print("".join(f"{line}\n" for text in notes for line in wrapped(text, "  ")), end="")
    one = AttachedProfile(launch, launch.attached, folder)
    try:
        warnings = one.run(plan, pace_s(results.client_json(logs, launch.label)))
    except NotProfiledError as error:
        one.line.end(f"failed: {error}")
        if error.died:
            reason = f"profile: {error}"
            launch_record.amend(logs, launch.label, notes, status="failed", reason=reason)
        else:
            launch_record.amend(logs, launch.label, [*notes, f"not profiled: {error}"])
        return 1
    sizes = {path.name: path.stat().st_size for path in one.traces()}
    one.line.end(
        f"{len(sizes)} traces, {sum(sizes.values()) / 1e6:.1f} MB, copied from "
        f"{one.attached.folder}, where they stay"
    )
    names = sorted(sizes)
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    said = f"there: {', '.join(names[:MOST_NAMED])}{more}"
    print("".join(f"{line}\n" for line in wrapped(said, "  ")), end="")
    seconds = round(one.line.elapsed_s, 2)
    launch_record.amend(logs, launch.label, notes + warnings, profile_s=seconds, trace_bytes=sizes)
    return 0
