"""Profile a loaded server until every rank's trace has arrived whole."""

from __future__ import annotations

import argparse
import time
import zlib
from pathlib import Path

import requests

from repro_pp_graphs.run import failure, hang, record
from repro_pp_graphs.run.failure import read_log
from repro_pp_graphs.run.live import LiveLine
from repro_pp_graphs.run.record import Launch
from repro_pp_graphs.run.wait_ready import LINGER_S
from repro_pp_graphs.server import log, process
from repro_pp_graphs.server.http import Server

POLL_S = 0.25
DECODING_LIMIT_S = 120.0  # for the load's first decode step
STEPS_LIMIT_S = 180.0  # for num_steps to pass; then /stop_profile
WRITE_LIMIT_S = 300.0  # for the ranks to write what they have


class ProfileError(RuntimeError):
    """No complete set of traces; the message says what there is and what to do."""


def is_whole_gzip(path: Path) -> bool:
    """True when the file decompresses to its end mark and check sum."""
    unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                unpack.decompress(chunk)
    except (OSError, zlib.error):
        return False
    return unpack.eof


class TraceFiles:
    """The ranks' trace files in a folder; each is checked once per size."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._whole: dict[tuple[Path, int], bool] = {}

    def whole(self) -> list[Path]:
        """The files that are complete now."""
        return [path for path in sorted(self.folder.glob("*.trace.json.gz")) if self._check(path)]

    def _check(self, path: Path) -> bool:
        key = (path, path.stat().st_size)
        if key not in self._whole:
            self._whole[key] = is_whole_gzip(path)
        return self._whole[key]


class ProfilePass:
    """One profile of one launch."""

    def __init__(self, launch: Launch, pid: int, log_path: Path, folder: Path) -> None:
        self.launch = launch
        self.pid = pid
        self.log_path = log_path
        self.files = TraceFiles(folder)
        self.server = Server(launch.base_url)
        self.line = LiveLine("profile")

    def server_gone(self) -> bool:
        """Has the server, or one of its ranks, died?"""
        # the main process outlives a dead rank by up to a minute
        return not process.alive(self.pid) or log.is_dying(read_log(self.log_path))

    def wait_for_decode(self, seen: int) -> None:
        """Wait until the load decodes: a profile without load never reaches its steps."""
        limit_s = self.line.elapsed_s + DECODING_LIMIT_S
        while len(log.decode_lines(read_log(self.log_path))) <= seen:
            if self.server_gone():
                raise ProfileError("the server died before the profile began")
            if self.line.elapsed_s > limit_s:
                raise ProfileError(f"no decode step in {DECODING_LIMIT_S:.0f} s of load")
            self.line.show("waiting for the load to decode")
            time.sleep(POLL_S)

    def wait_for_files(self, limit_s: float, stage: str) -> int:
        """Wait for every rank's whole file, at most `limit_s`; returns how many there are."""
        end_s = self.line.elapsed_s + limit_s
        while True:
            if self.server_gone():  # the other ranks may still be writing
                end_s = min(end_s, self.line.elapsed_s + LINGER_S)
            count = len(self.files.whole())
            if count >= self.launch.ranks or self.line.elapsed_s > end_s:
                return count
            self.line.show(f"{stage}: {count} of {self.launch.ranks} ranks written")
            time.sleep(POLL_S)

    def run(self, num_steps: int, with_stack: bool) -> list[str]:
        """Profile; returns warnings. Raises ProfileError without a whole file of every rank."""
        self.wait_for_decode(len(log.decode_lines(read_log(self.log_path))))
        folder = str(self.files.folder)
        try:
            self.server.start_profile(folder, num_steps, with_stack)
        except requests.RequestException as error:
            raise ProfileError(f"/start_profile failed ({error}); see the server's log") from None
        warnings = []
        count = self.wait_for_files(STEPS_LIMIT_S, f"{num_steps} steps")
        if count < self.launch.ranks and not self.server_gone():
            warnings.append(f"{num_steps} steps had not passed in {STEPS_LIMIT_S:.0f} s: stopped")
            self.server.stop_profile()
            count = self.wait_for_files(WRITE_LIMIT_S, "writing")
        if count < self.launch.ranks:
            state = "the server died" if self.server_gone() else "time ran out"
            raise ProfileError(
                f"{count} of {self.launch.ranks} ranks' traces are whole ({state}); "
                f"see {self.log_path} and {folder}"
            )
        if count > self.launch.ranks:
            warnings.append(f"{count} trace files for {self.launch.ranks} ranks in {folder}")
        return warnings


def main(argv: list[str]) -> int:
    """profile LOGS LABEL PID FOLDER: 0 with every rank's trace, 1 without."""
    parser = argparse.ArgumentParser(prog="repro_pp_graphs profile", description=__doc__)
    parser.add_argument("logs", type=Path)
    parser.add_argument("label")
    parser.add_argument("pid", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--exit-file", type=Path, help="where its exit status is noted once it has ended"
    )
    options = parser.parse_args(argv)
    plan = record.load(options.logs)
    log_path = options.logs / f"{options.label}_server.log"
    options.folder.mkdir(parents=True, exist_ok=True)
    one = ProfilePass(plan.launch(options.label), options.pid, log_path, options.folder)
    try:
        warnings = one.run(plan.profile_steps, plan.with_stack)
    except ProfileError as error:
        one.line.end(f"failed: {error}")
        if one.server_gone():
            found = failure.of_dead(log_path, options.exit_file)
            print("\n".join(failure.lines(found, log_path)))
        else:
            python = one.launch.python
            print("\n".join(hang.report(options.logs, options.label, options.pid, python)))
        record.save_facts(options.logs, options.label, status="failed", reason=f"profile: {error}")
        return 1
    sizes = {path.name: path.stat().st_size for path in one.files.whole()}
    one.line.end(f"{len(sizes)} traces, {sum(sizes.values()) / 1e6:.1f} MB")
    record.save_facts(
        options.logs,
        options.label,
        profile_s=round(one.line.elapsed_s, 2),
        trace_bytes=sizes,
        warnings=warnings,
    )
    return 0
