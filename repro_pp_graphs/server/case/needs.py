"""What a case needs from a release beyond its arguments, and the log line that proves it was on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

from repro_pp_graphs.server import shim_names
from repro_pp_graphs.server.case.argfile import ServerArgs
from repro_pp_graphs.server.release import pp_loop
from repro_pp_graphs.server.release.installed import Release, version_numbers
from repro_pp_graphs.server.release.pp_loop import COMM_OVERLAP, PPLoop
from repro_pp_graphs.server.release.release_facts import NEWEST_LOOKED_UP, Sends, pp_sends

DEPTH, DEPTH_CASE = "--pp-async-batch-depth", "async_depth"
# the first release that has it; what an installed one has is read from it
SINCE = {COMM_OVERLAP: "0.5.21", DEPTH: "0.5.7"}
OVERLAP_ON = "PP tensor communication overlap enabled"  # a rank's line in the server's log


class SendShim(NamedTuple):
    """A shim that changes how PP messages go: one at a time, and only where the release fits."""

    sends: str  # how they go then, as in summary.json
    misfit: Callable[[PPLoop], str] = attrgetter("misfit")
    cuda_only: bool = False  # on a CPU it changes nothing, and says nothing
    releases: str = "0.5.7 or newer"  # that it fits
    instead: str = ""  # the case that has the same of sglang itself, and since when


SEND_SHIMS = {
    "sync_send": SendShim("blocking (shim sync_send)"),
    "event_send": SendShim("blocking, on events (shim event_send)", pp_loop.misfit_of_remedy),
    "comm_stream": SendShim(
        "asynchronous, on a stream of their own (shim comm_stream)",
        pp_loop.misfit_of_own_stream,
        cuda_only=True,
        releases="0.5.7 to 0.5.20",
        instead="comm_overlap",
    ),
    "batched_p2p": SendShim("batched, ranks in step (shim batched_p2p)", pp_loop.misfit_of_remedy),
}
OWN_STREAM = "asynchronous, on a stream of their own"  # sglang's own, SGLANG_PP_COMM_OVERLAP
ASYNCHRONOUS: Sends = "asynchronous"

# Of sends that are changed, those that they differ from in one thing: what a remedy is to be held
# against, and the case that sends so.
BASELINES = {
    OWN_STREAM: ASYNCHRONOUS,
    SEND_SHIMS["comm_stream"].sends: ASYNCHRONOUS,
    SEND_SHIMS["event_send"].sends: SEND_SHIMS["sync_send"].sends,
    SEND_SHIMS["batched_p2p"].sends: SEND_SHIMS["sync_send"].sends,
}
BASELINE_CASES = {ASYNCHRONOUS: "graphs_on", SEND_SHIMS["sync_send"].sends: "sync_send"}


class Abilities(NamedTuple):
    """What a release can do of what cases ask for beyond other arguments."""

    version: str
    loop: PPLoop
    depth: bool  # whether it takes --pp-async-batch-depth


def installed(release: Release) -> Abilities:
    """Those of a release that is there, read from it."""
    return Abilities(release.version, pp_loop.read(release.place), DEPTH in release.flags)


def looked_up(version: str) -> Abilities | None:
    """Those of a release that is not installed yet, by its number; None for one whose sources were
    not looked up."""
    numbers = version_numbers(version)
    sends = pp_sends(numbers)
    if sends == "unknown" or numbers > NEWEST_LOOKED_UP:
        return None
    has = {name: numbers >= version_numbers(since) for name, since in SINCE.items()}
    misfit = "" if sends == "asynchronous" else pp_loop.ALREADY_SYNCHRONOUS
    return Abilities(version, PPLoop(misfit, has[COMM_OVERLAP]), has[DEPTH])


def overlaps(env: dict[str, str]) -> bool:
    """True where the environment asks for SGLANG_PP_COMM_OVERLAP."""
    return env.get(COMM_OVERLAP, "").lower() in ("1", "true", "yes", "y")


def send_shims(env: dict[str, str]) -> list[str]:
    """The shims that an environment names which change how PP messages go."""
    return [name for name in shim_names.names_in(env) if name in SEND_SHIMS]


def sends(env: dict[str, str], cuda: bool) -> str:
    """How PP messages go where an environment's shim changes that; empty where none does."""
    found = [SEND_SHIMS[name] for name in send_shims(env)]
    return found[0].sends if found and (cuda or not found[0].cuda_only) else ""


def how_sent(env: dict[str, str], version: str, cuda: bool) -> str:
    """How PP messages go: as the release does it, unless the environment changes that."""
    if by_shim := sends(env, cuda):
        return by_shim
    return OWN_STREAM if overlaps(env) and cuda else pp_sends(version_numbers(version))


def unmet(
    args: ServerArgs,
    release: Abilities,
    installable: Sequence[str] = (),
    others: Mapping[str, ServerArgs] | None = None,
) -> str:
    """What the release lacks of what the arguments ask for, and where else it is to be had:
    `installable` are the releases that can be installed here, `others` the run's other cases that
    run the same release as this one. Empty where it lacks nothing."""
    if lack := _lack(args, release):
        return f"{lack}{_elsewhere(args, installable, others or {})}"
    named = send_shims(args.env)
    if len(named) > 1:
        return f"the shims {' and '.join(named)} each change how PP messages go: name one"
    if named and overlaps(args.env):
        return f"{COMM_OVERLAP} needs asynchronous sends as released, not shim {named[0]}: use one"
    return _beyond_the_shim(args, named)


def _lack(args: ServerArgs, release: Abilities) -> str:
    """What another release may have; empty where this one lacks nothing."""
    version, named = release.version, send_shims(args.env)
    lacking = [DEPTH] * (DEPTH in args.flags and not release.depth)
    lacking += [COMM_OVERLAP] * (overlaps(args.env) and not release.loop.own_stream)
    if lacking:
        name = lacking[0]
        return f"{name} needs sglang {SINCE[name]} or newer; this is {version}: "
    alone = named[0] if len(named) == 1 and not overlaps(args.env) else ""
    if alone and (reason := SEND_SHIMS[alone].misfit(release.loop)):
        return f"shim {alone} on sglang {version}: {reason}; "
    return ""


def _elsewhere(
    args: ServerArgs, installable: Sequence[str], others: Mapping[str, ServerArgs]
) -> str:
    """What to do where a release lacks something: which has it, and the run's other cases too."""
    able = [one for one in installable if (can := looked_up(one)) and not _lack(args, can)]
    if able:
        newest = max(able, key=version_numbers)
        can = looked_up(newest)
        refused = [case for case, its in others.items() if can and _lack(its, can)]
        if refused:
            return (
                f"leave the case out, or write RELEASE={newest} into its file; for the whole run "
                f"--release {newest} will not do, as it lacks what {' and '.join(refused)} needs: "
                "name an sglang that has all of it with --python (docs/cases_and_releases.md)"
            )
        return (
            f"leave the case out, or use --release {newest} (for this case alone RELEASE= in its "
            "file), or another that has it (--python, or PYTHON=)"
        )
    shim = next((SEND_SHIMS[name] for name in send_shims(args.env)), None)
    none = "none that --release installs" if installable else ""
    which = "; ".join(filter(None, [shim.releases if shim else "", none]))
    which = f" ({which})" if which else ""
    locked = "" if installable else " (RELEASE= for one with a lock)"
    own = ""
    if shim and shim.instead:
        own = f", or take {shim.instead}, sglang's own from {SINCE[COMM_OVERLAP]} on"
    return (
        f"leave the case out, or name an sglang that has it{which} with --python, for this case "
        f"alone PYTHON= in its file{locked}{own}"
    )


def _beyond_the_shim(args: ServerArgs, named: list[str]) -> str:
    """The arguments that a shim does not know how to go with; empty where there are none."""
    if named == ["batched_p2p"]:
        unfit = [name for name in (DEPTH, "--tp-size") if args.get_int(name, 0) > (name != DEPTH)]
        unfit += [name for name in ("--speculative-algorithm",) if name in args.flags]
        if unfit:
            return f"shim batched_p2p does not go with {unfit[0]}: leave one of the two out"
    if named == ["comm_stream"] and args.get_int("--tp-size", 1) > 1:
        return "shim comm_stream is for --tp-size 1: leave the case out"
    return ""


def idle(args: ServerArgs, mode: str) -> list[str]:
    """A note for what changes nothing in this mode (gpu, one_gpu, cpu)."""
    if mode != "cpu":
        return []
    found = [f"shim {name}" for name in send_shims(args.env) if SEND_SHIMS[name].cuda_only]
    notes = [f"{name} does nothing on a CPU: there are no streams" for name in found]
    if "event_send" in send_shims(args.env):
        notes.append("shim event_send is sync_send on a CPU: there are no events")
    if overlaps(args.env):
        notes.append(f"{COMM_OVERLAP} does nothing on a CPU: sglang makes that stream on CUDA only")
    return notes


def unproven(log: str, env: dict[str, str], ranks: int, cuda: bool) -> list[str]:
    """What the environment asks for and fewer than `ranks` ranks say in the server's log."""
    proofs = [
        (f"shim {name}", shim_names.active(name))
        for name in send_shims(env)
        if cuda or not SEND_SHIMS[name].cuda_only
    ]
    if overlaps(env) and cuda:
        proofs.append((COMM_OVERLAP, OVERLAP_ON))
    return [
        f"{what} asked for, but {log.count(line)} of {ranks} ranks say '{line}' in the server's log"
        for what, line in proofs
        if log.count(line) < ranks
    ]
