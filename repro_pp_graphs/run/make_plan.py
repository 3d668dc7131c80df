"""Make a run's plan of its options: the launches, or why nothing can run, with what could."""

from __future__ import annotations

import os

from repro_pp_graphs.environment import masking
from repro_pp_graphs.run import clear
from repro_pp_graphs.run.checks import (
    baselines,
    expected,
    graph_sizes,
    kv_cache,
    preflight,
    unreached,
)
from repro_pp_graphs.run.folder import lock, results
from repro_pp_graphs.run.memory import fitting, weights
from repro_pp_graphs.run.plan import (
    environments,
    order,
    planned_rounds,
    sweep,
    ways_out,
)
from repro_pp_graphs.run.plan.options import Options
from repro_pp_graphs.run.plan.planned_rounds import LooksError
from repro_pp_graphs.run.plan.planner import Planner
from repro_pp_graphs.run.plan.refusal import PlanError
from repro_pp_graphs.run.plan.sweep import SweepError
from repro_pp_graphs.run.plan.ways_out import Unfit
from repro_pp_graphs.run_record import Plan
from repro_pp_graphs.server.case.argfile import ArgFileError
from repro_pp_graphs.server.case.flags import FlagError
from repro_pp_graphs.server.machine import pinning
from repro_pp_graphs.server.machine.gpus import Gpu
from repro_pp_graphs.server.release.installed import ProbeError, Prober

REFUSALS = (
    *(PlanError, LooksError, ArgFileError, FlagError, ProbeError, SweepError),
    lock.LockError,
)


def make(options: Options, found: list[Gpu], earlier: Plan | None, probe: Prober) -> Plan:
    """The plan: of a new run, or of one that --resume goes on with.

    Raises PlanError, LooksError, ArgFileError, FlagError or ProbeError; NotMade where nothing else
    stands in the way.
    """
    try:
        return _make(options, found, earlier, probe)
    except Unfit as refused:
        ways = ways_out.offers(
            options, refused, len(found), lambda changed: passes(changed, found, probe)
        )
        raise PlanError(f"{refused}: {ways}") from None


def passes(options: Options, found: list[Gpu], probe: Prober) -> bool:
    """Whether nothing that is known of these options on any machine stops a run with them, and
    its load fits, as estimated."""
    try:
        plan = _make(options, found, None, probe)
    except REFUSALS:
        return False
    used = weights.used(plan, found)
    tokens = kv_cache.of_load(plan)
    roomy = (fitting.is_roomy(launch, used, tokens, plan.ranks_per_gpu) for launch in plan.launches)
    return all(roomy) and not preflight.of_ranks(plan, found)  # which looks for ways out: dear


def _make(options: Options, found: list[Gpu], earlier: Plan | None, probe: Prober) -> Plan:
    """The same without another way where it is refused. Raises Unfit too."""
    if options.attach:
        from repro_pp_graphs.run.plan import attached  # noqa: PLC0415 - imports an HTTP client

        return attached.plan(options)
    if any(map(masking.holds_secret, options.given)):
        raise PlanError(
            "an option holds a secret, which would be stored with the run: leave it out, or give "
            "it to the server in its environment"
        )
    if not options.cases:
        raise PlanError("--cases: no case named; for example --cases graphs_on,graphs_off")
    if options.aa and len(options.cases) > 1:
        raise PlanError("--aa compares one case with itself: name one with --cases")
    if twice := [case for case in options.cases if options.cases.count(case) > 1]:
        raise PlanError(f"--cases: {twice[0]} is named twice; --aa compares a case with itself")
    arms = order.arms_of(options.cases, options.aa)
    if earlier is None:
        rounds = planned_rounds.begin(options.rounds, len(arms))
        seed: int | None = int.from_bytes(os.urandom(4), "big")
    else:
        complete = clear.is_complete(earlier, options)
        rounds = planned_rounds.go_on(options.rounds, len(arms), earlier, complete)
        seed = earlier.order_seed
    turns = order.turns(arms, rounds.now, seed, rounds.looks[0].rounds == 1)
    planner = Planner(options, found, probe)
    if options.engine == "probe":
        from repro_pp_graphs.run.plan import probe_engine  # noqa: PLC0415 - the probe's options

        plan = probe_engine.plan(options, found, turns)
    else:
        plan = planner.plan(turns)
    plan.order_seed, plan.looks = seed, rounds.looks
    sweep.put_in_order(plan)
    plan.aa = options.cases[0] if options.aa else ""
    plan.pin_cpus = _pinned(plan, options.pin_cpus)
    plan.command = ["bash", options.command, *options.given]
    unreached.add_caveats(plan, options.root, found)
    baselines.add_notes(plan)
    graph_sizes.add_notes(plan)
    expected.add_notes(plan)
    for launch in plan.launches:
        launch.notes[:0] = rounds.notes  # first: it makes the run longer than was asked for
    if clashing := results.clashes(plan):
        raise PlanError(
            f"two results would be called {clashing[0]}: give a case another label ('# label:' in "
            "its server_args file)"
        )
    if planner.releases.not_made and not options.dry_run:
        raise environments.NotMade(planner.releases.not_made[0])
    return plan


def _pinned(plan: Plan, asked: str) -> str:
    """--pin-cpus, where this machine has such cores. Raises PlanError where it has not."""
    if asked and plan.engine != "sglang":
        raise PlanError("--pin-cpus is for sglang's ranks: leave it out with --engine probe")
    for ranks in {launch.ranks for launch in plan.launches} if asked else ():
        try:
            # near which GPUs is seen when a server is up
            pinning.automatic([], ranks) if asked == pinning.AUTO else pinning.listed(asked, ranks)
        except pinning.PinError as error:
            raise PlanError(f"--pin-cpus {asked}: {error}") from None
    return asked
