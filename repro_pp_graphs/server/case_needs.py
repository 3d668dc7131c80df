"""What a case needs from a release beyond its arguments, and the log line that proves it was on."""

from __future__ import annotations

from repro_pp_graphs.server import shims
from repro_pp_graphs.server.argfile import ServerArgs
from repro_pp_graphs.server.release import Release
from repro_pp_graphs.server.shims import sync_send
from repro_pp_graphs.server.source import text_of

COMM_OVERLAP = "SGLANG_PP_COMM_OVERLAP"
# the first release that has it; only a hint, what a release has is read from the release
SINCE = {COMM_OVERLAP: "0.5.21", "--pp-async-batch-depth": "0.5.7"}
OVERLAP_ON = "PP tensor communication overlap enabled"  # a rank's line in the server's log
OTHER_RELEASE = "leave the case out, or use another release (PYTHON= in that file, or --python)"


def overlaps(env: dict[str, str]) -> bool:
    """True where the environment asks for SGLANG_PP_COMM_OVERLAP."""
    return env.get(COMM_OVERLAP, "").lower() in ("1", "true", "yes", "y")


def unmet(args: ServerArgs, release: Release) -> str:
    """What the release lacks of what the arguments ask for; empty where it has all."""
    version = release.version
    lacking = [name for name in SINCE if name in args.flags and name not in release.flags]
    if overlaps(args.env) and COMM_OVERLAP not in text_of(release.place, sync_send.LOOP_FILE):
        lacking.append(COMM_OVERLAP)
    if lacking:
        name = lacking[0]
        return f"{name} needs sglang {SINCE[name]} or newer; this is {version}: {OTHER_RELEASE}"
    if "sync_send" in shims.names_in(args.env):
        if overlaps(args.env):
            return f"{COMM_OVERLAP} needs asynchronous sends, sync_send makes none: use one"
        if reason := sync_send.misfit(release.place):
            return f"shim sync_send on sglang {version}: {reason}: {OTHER_RELEASE}"
    return ""


def idle(args: ServerArgs, mode: str) -> list[str]:
    """A note for what changes nothing in this mode (gpu, one_gpu, cpu)."""
    if mode != "cpu" or not overlaps(args.env):
        return []
    return [f"{COMM_OVERLAP} does nothing on a CPU: sglang makes that stream on CUDA only"]


def unproven(log: str, env: dict[str, str], ranks: int, cuda: bool) -> list[str]:
    """What the environment asks for and fewer than `ranks` ranks say in the server's log."""
    proofs = []
    if "sync_send" in shims.names_in(env):
        proofs.append(("shim sync_send", sync_send.ACTIVE))
    if overlaps(env) and cuda:
        proofs.append((COMM_OVERLAP, OVERLAP_ON))
    return [
        f"{what} asked for, but {log.count(line)} of {ranks} ranks say '{line}' in the server's log"
        for what, line in proofs
        if log.count(line) < ranks
    ]
