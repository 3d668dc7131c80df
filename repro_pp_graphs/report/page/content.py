"""What a report says, before it is Markdown or HTML: both are written from this."""

from __future__ import annotations

from pathlib import Path

import msgspec

from repro_pp_graphs.environment import changes
from repro_pp_graphs.environment.fact_lines import LOOK_AT
from repro_pp_graphs.report.case_differences import (
    Difference,
    beside_graphs,
    between_cases,
    said_to_differ,
)
from repro_pp_graphs.report.charts import bar_charts, waterfall_chart
from repro_pp_graphs.report.number_words import count
from repro_pp_graphs.report.page import commands
from repro_pp_graphs.report.page.answer import answer
from repro_pp_graphs.report.source import Source
from repro_pp_graphs.report.summary.remarks import remarks
from repro_pp_graphs.report.tables import sweep_table, sweep_waits, turn_tables
from repro_pp_graphs.report.tables.page_tables import (
    arms,
    crossed,
    differing,
    first_explained,
    turns,
    unprofiled_tpot_ms,
)
from repro_pp_graphs.report.tables.table import Table
from repro_pp_graphs.run.launch import bad_argument
from repro_pp_graphs.run_record import Plan
from repro_pp_graphs.traces.analysis_record import NO_KERNELS, Analysis
from repro_pp_graphs.traces.explain.conclusion import conclusion
from repro_pp_graphs.traces.explain.step_path import distortion

MOST_NAMED = 6  # arguments in a warning
ISSUE = "https://github.com/sgl-project/sglang/issues/10865"


MOST_REMARKS = 6  # that stand beside the figures; the others below a title that opens


class Command(msgspec.Struct, kw_only=True):
    """What to run: its title, the command, what to know of it."""

    title: str
    text: str
    notes: list[str] = []


class Said(msgspec.Struct, kw_only=True):
    """What the traces of one launch say, in sentences."""

    name: str
    paragraphs: list[str]


class Content(msgspec.Struct, kw_only=True):
    """A report. `headline` is the answer, `lead` what it rests on, `warnings` what speaks against
    it, `remarks` what to know besides."""

    name: str  # of the folder
    compared: bool  # there are two cases or more
    rehearsal: bool  # on a CPU: its figures are no evidence
    when: str
    what: str  # release, machine, load: one sentence
    headline: str
    lead: list[str]
    warnings: list[str]
    arms: Table | None
    swept: Table | None  # every load of a sweep
    swept_waits: Table | None  # the longest wait of a turn under each
    swept_notes: list[str]
    crossed: Table | None  # graphs by sends, of a 2 x 2
    timed: Table | None  # turns of the measured pass
    turns: Table | None  # turns while profiled
    step_differences: list[str]  # why a decode step of B is longer than of A
    step_table: Table | None  # the same by what the step waits for
    what_ifs: Table | None  # how long a step would be at least without ...
    explained: list[Said]
    untraced: str  # why nothing is explained, and what to do; empty where something is
    differing: Table | None
    remarks: list[str]
    environment: list[tuple[str, str]]
    changed: list[str] | None  # None: not known
    commands: list[Command]


def arms_title(found: Content) -> str:
    """What stands above the table of the cases' figures."""
    title = "The cases side by side" if found.compared else "What was measured"
    return f"{title} (rehearsal: no evidence on #10865)" if found.rehearsal else title


def content(source: Source) -> Content:
    """Everything that a report of this folder says."""
    found = between_cases(source)
    warnings = _differ_in_more(source, found)
    headline, lead, against = answer(source)
    timed = turn_tables.bars(source)
    remarks = _remarks(source)
    unprofiled = unprofiled_tpot_ms(source)
    explained = [
        Said(name=each.name, paragraphs=_sentences(each.analysis, unprofiled.get(each.name)))
        for _, each in first_explained(source)
        if each.analysis
    ]
    as_json = msgspec.to_builtins(source.summary) if source.summary else {}
    return Content(
        name=source.folder.resolve().name,
        compared=len(source.cases) > 1,
        rehearsal=bool(source.summary and source.summary.rehearsal),
        when=source.summary.began if source.summary else "",
        what=_what(source),
        headline=headline,
        lead=lead,
        warnings=[*warnings, *against],
        arms=arms(source),
        swept=sweep_table.table(as_json) if as_json else None,
        swept_waits=sweep_waits.table(as_json) if as_json else None,
        swept_notes=sweep_table.notes(as_json) if as_json else [],
        crossed=crossed(source),
        timed=timed.some() if timed else None,
        turns=turns(source),
        step_differences=waterfall_chart.sentences(source),
        step_table=waterfall_chart.table(source),
        what_ifs=bar_charts.what_ifs(source),
        explained=explained,
        untraced="" if explained else _untraced(source),
        differing=differing(source, found),
        remarks=remarks,
        environment=[
            ("looks wrong" if key == LOOK_AT else key, value)
            for key, value in source.environment.items()
        ],
        changed=_changed(source),
        commands=_commands(source),
    )


def _untraced(source: Source) -> str:
    """Why a run has no traces that are explained, and how to get them."""
    plan = source.plan
    if plan is None:
        return ""
    lacking = (
        "so there is no path of a decode step here, no what-if (how long a step would be without "
        "sends or launching) and no picture of what the ranks do"
    )
    if plan.profile and source.logs and (refused := bad_argument.refused(source.logs, plan)):
        return (
            f"No trace of a launch could be explained, {lacking}: with {', '.join(refused)} mended "
            "in server_args_*.txt it is another run, without --resume."
        )
    if plan.profile:
        return f"No trace of a launch could be explained, {lacking}: --resume runs it again."
    return (
        f"The run was not profiled, {lacking}. For these run the same again without --no-profile, "
        "into another --out; --rounds 1 is enough."
    )


def _differ_in_more(source: Source, found: list[Difference]) -> list[str]:
    """What cases have otherwise than the first besides graphs, or, where these are on in both or
    off in both, besides what their argument files say."""
    warnings = []
    first = source.cases[0]
    measured = {source.cases[each.case] for each in source.launches if each.measured}
    verdict = source.summary.verdict if source.summary else None
    pairs = [{each.a, each.b} for each in verdict.pairs] if verdict else []
    for case, names in beside_graphs(found, source.cases).items():
        if not {first, case} <= measured:
            continue  # nothing is compared
        if {first, case} not in pairs and any(case in each for each in pairs):
            continue  # it is held against another case
        asked = said_to_differ(source, source.cases.index(case))
        others = names if asked is None else [name for name in names if name not in asked]
        than = "CUDA graphs" if asked is None else "what the argument file of its case says"
        more = f" and {len(others) - MOST_NAMED} more" if len(others) > MOST_NAMED else ""
        if others:
            warnings.append(
                f"{case} differs from {first} in more than {than} "
                f"({', '.join(others[:MOST_NAMED])}{more}): what is measured between them may "
                "come from any of these."
            )
    return warnings


def _sentences(analysis: Analysis, tpot_ms: float | None) -> list[str]:
    path = analysis.ring_path
    if path is None or not tpot_ms:
        return conclusion(analysis)
    return [*conclusion(analysis), distortion(path, tpot_ms)]


def _what(source: Source) -> str:
    """One sentence: what ran where under which load."""
    plan, found = source.plan, source.summary
    if plan is None or found is None:
        traced = [each.analysis for _, each in first_explained(source) if each.analysis]
        sizes = " and ".join(map(str, sorted({each.pp_size for each in traced})))
        return f"Traces alone, of {sizes} PP ranks: no measured launches, so no verdict."
    first = plan.launches[0]
    versions = ", ".join(sorted({launch.sglang_version for launch in found.launches}))
    attached = first.attached
    here = attached is None or attached.local
    named = source.environment.get("GPUs", "") if here else ""  # of this machine
    gpus = plan.gpus(named)
    engine = "The ring probe, without sglang," if found.engine == "probe" else f"sglang {versions}"
    rounds = max(launch.round for launch in plan.launches)
    launches = f"{rounds} launch{'es' * (rounds > 1)} of each of {len(source.cases)} case"
    done = sum(launch.measured for launch in source.launches)
    done_of = f" ({done} of {len(plan.launches)} are measured)" * (done < len(plan.launches))
    if attached:
        launches = f"a server that was already running ({attached.url}, {attached.where})"
    launches += "s" * (len(source.cases) > 1) + done_of
    return (
        f"{engine} on {gpus}, PP {first.pp_size} x TP {first.tp_size}, "
        f"{Path(first.model).name}; {_load(plan)}; {launches}."
    )


def _load(plan: Plan) -> str:
    more = f", and {count(len(plan.loads) - 1, 'other load')}" if len(plan.loads) > 1 else ""
    return plan.load_text + more


def _remarks(source: Source) -> list[str]:
    lines = list(source.warnings)
    on_cpu = source.plan is not None and source.plan.mode == "cpu"
    if source.summary:
        lines = remarks(msgspec.to_builtins(source.summary)) + lines
    for _, each in source.all_explained():
        if each.why:
            lines.append(each.why)
        found = each.analysis.warnings if each.analysis else []
        lines += [f"{each.name}: {text}" for text in found if not (on_cpu and NO_KERNELS in text)]
    return list(dict.fromkeys(lines))


def _changed(source: Source) -> list[str] | None:
    found = source.summary
    if found is None or found.environment_changes is None:
        return None
    made = [changes.Change(**msgspec.structs.asdict(each)) for each in found.environment_changes]
    return changes.lines(made)


def prompt_tokens(source: Source) -> float | None:
    """Mean length of a prompt, tokens, as the first measured launch had them."""
    return next((one.prompt_tokens for one in source.launches if one.prompt_tokens), None)


def _commands(source: Source) -> list[Command]:
    plan = source.plan
    if plan is None:
        return []
    firsts = [one for one in plan.firsts if not one.attached]
    if plan.engine == "probe":
        return [
            Command(title=one.label, text=commands.folded(["python", *one.argv[1:]]))
            for one in firsts
        ]
    found = [
        Command(title=one.label, text=commands.server(one), notes=commands.changes(one))
        for one in firsts
    ]
    if found:
        found[0].notes += filter(None, (commands.model(plan), commands.set_anew(plan)))
    length = prompt_tokens(source)
    found.append(Command(title="The load, as it was sent", text=commands.client(plan)))
    found.append(
        Command(
            title="About the same load from sglang's own client",
            text=commands.bench_serving(plan, length),
        )
    )
    return found
