"""A ready issue text with the sections of sglang's bug form, filled from what a run left."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from repro_pp_graphs import run_record
from repro_pp_graphs.bundle import resolved_arguments
from repro_pp_graphs.report.launch_row import name, names_of, with_names
from repro_pp_graphs.report.page import commands
from repro_pp_graphs.report.summary import run_summary as summary_of
from repro_pp_graphs.report.summary.remarks import remarks
from repro_pp_graphs.report.tables import launch_table, row_meanings, sweep_table
from repro_pp_graphs.run_record import Launch, Plan
from repro_pp_graphs.server.log import diagnosis

MOST_CHARS = 60_000  # GitHub takes 65,536


def checklist() -> list[str]:
    """The boxes of sglang's form, left for the reader to tick."""
    return [
        "- [ ] I searched related issues but found no solution.",
        "- [ ] The bug persists in the latest version.",
        "- [ ] Issues without environment info and a minimal reproducible demo are hard to "
        "resolve and may receive no feedback.",
        "- [ ] If this is not a bug report but a general question, please start a discussion at "
        "https://github.com/sgl-project/sglang/discussions. Otherwise, it will be closed.",
        "- [ ] Please use English. Otherwise, it will be closed.",
    ]


def _folded(title: str, lines: list[str]) -> list[str]:
    return ["<details>", f"<summary>{title}</summary>", "", *lines, "", "</details>", ""]


def _load(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def _said_at_the_end(logs: Path, plan: Plan, result: dict[str, Any]) -> Iterator[str]:
    """What the server's log of each failed launch says of its end; one that was interrupted was
    ended by the run, whatever it says."""
    for launch in result["launches"]:
        path = logs / f"{launch['label']}_{plan.program}.log"
        if launch["status"] in ("ok", "interrupted") or not path.exists():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        lines = [line.text for line in diagnosis.telling_lines(text, most=8)]
        if lines:
            yield from ("", f"The log of {launch['label']} says at its end:", "")
            yield from commands.fenced("\n".join(lines), "text")


def nothing_to_report(plan: Plan) -> list[str]:
    """That a rehearsal has nothing to report, on top of its text; empty for another run."""
    if not plan.rehearsal:
        return []
    return [
        "> **Nothing here to report to sglang.** This run was a rehearsal on a CPU: no CUDA "
        "graphs ran in any arm, and its numbers say nothing about #10865. The text below shows "
        "what that of a run on GPUs holds.",
        "",
    ]


def finding(logs: Path, result: dict[str, Any]) -> list[str]:
    """What the run found: the verdict with its reasons, and what the traces say of the send."""
    verdict = result.get("verdict") or {}
    word = verdict.get("headline", "")
    text = with_names(verdict.get("text", ""), names_of(result))
    asked = word not in ("", "NOT ASKED")
    out = [f"**#10865: {word}.** {text}" if asked else text, ""] if word or text else []
    if not verdict.get("limits"):  # else it is no evidence of any, as the headline says
        out += [
            f"- {each['name']}: {each['answer']}. {each['text']}" for each in _findings(verdict)
        ]
    for launch in result["launches"]:
        if launch["round"] == 1:
            path = logs / f"{launch['label']}_analysis.txt"
            out += [f"- {launch['label']}: {said}" for said in _main_sentences(path)]
    reason = verdict.get("reason", "")
    return [*out, *([f"- {reason}"] if reason and not any(reason in o for o in out) else []), ""]


def _findings(verdict: dict[str, Any]) -> list[dict[str, str]]:
    keys = ("name", "answer", "text")
    return [each for each in verdict.get("findings", []) if all(key in each for key in keys)]


def _main_sentences(path: Path) -> list[str]:
    """The paragraphs of an analysis on its longest wait and its token return."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    head = text.split("\n\n", 1)[0]
    paragraphs = re.sub(r"\n +", " ", head).splitlines()
    return [each for each in paragraphs if each.startswith(("The longest wait", "Token return"))]


def describe(logs: Path, plan: Plan, result: dict[str, Any]) -> list[str]:
    """What was found, what was compared, the table, and what to know before believing it."""
    first = plan.launches[0]
    versions = sorted({launch["sglang_version"] for launch in result["launches"]})
    facts = _load(logs / "env.json").get("summary", {})
    on = plan.gpus(facts.get("GPUs", "")) + " (a rehearsal)" * plan.rehearsal
    what = (
        f"sglang {', '.join(versions)}, pipeline parallelism {first.pp_size}, tensor "
        f"parallelism {first.tp_size}"
    )
    if plan.engine == "probe":
        what = (
            "The PP ring of sglang's scheduler as a program of its own, without sglang (`python -m "
            f"repro_pp_graphs probe`): {first.pp_size} ranks, torch {facts.get('torch', '?')}"
        )
    text = f"{what}, on {on}. Every value is of one {plan.program} launch."
    known = [f"- {remark}" for remark in remarks(result)]
    said = list(_said_at_the_end(logs, plan, result))
    found = finding(logs, result)
    table = launch_table.lines(result)
    by_load = sweep_table.lines(result)
    rows = [f"- {text}" for text in row_meanings.of_lines(table)]
    ask = "<!-- What did you expect, and what do you see? -->"
    tables = "\n".join([*table, *([""] if table and by_load else []), *by_load])
    return [
        *found,
        ask,
        "",
        text,
        "",
        *([*commands.fenced(tables, "text"), ""] if tables else []),
        *(_folded("What the rows are", rows) if rows else []),
        *known,
        *said,
    ]


def called(result: dict[str, Any], launch: Launch) -> str:
    """A case as the table above has it, with the label of its files where that is another."""
    shown = name(result, launch.case)
    return launch.label if shown == launch.case else f"{shown} ({launch.label})"


def reproduce(logs: Path, plan: Plan, result: dict[str, Any]) -> list[str]:
    """The command of each case with sglang alone, what the run changed in it, and the load."""
    firsts = plan.firsts
    if plan.engine == "probe":
        out = []
        for launch in firsts:
            text = commands.folded(["python", *launch.argv[1:]])
            out += [f"{called(result, launch)}:", *commands.fenced(text, "bash"), ""]
        return [*out, "(In a checkout of repro_pp_graphs; it takes torch alone.)"]
    out = ["With sglang alone:", ""]
    if plan.attached:
        out = ["The server was already running: <!-- how was it started? -->", ""]
    for launch in firsts:
        if launch.attached:
            continue
        out += [f"{called(result, launch)}:"]
        out += [*commands.fenced(commands.server(launch), "bash"), ""]
    changed: dict[str, list[str]] = {}
    for launch in firsts:
        for text in commands.changes(launch):
            changed.setdefault(text, []).append(launch.label)
    if changed:
        out += ["What the run changed in it besides (`repro_pp_graphs/server/shims/`):", ""]
        out += [f"- {text} ({', '.join(labels)})" for text, labels in changed.items()]
        out.append("")
    if said := commands.model(plan):
        out += [f"Model: {said}", ""]
    if said := commands.set_anew(plan):
        out += [said, ""]
    tokens = _prompt_tokens(logs / f"{firsts[0].label}_client.json")
    out += ["About the same load from sglang's own client:"]
    out += [*commands.fenced(commands.bench_serving(plan, tokens), "bash"), ""]
    out += ["The load as it was sent (`client_benchmark.py` and `prompts.txt` of repro_pp_graphs):"]
    return [*out, *commands.fenced(commands.client(plan), "bash")]


def _prompt_tokens(path: Path) -> float | None:
    """Mean length of a prompt of a measured launch, tokens; None where it is not known."""
    found = _load(path).get("summary", {})
    prompts = found.get("completed", 0) + found.get("failed", 0)
    return found.get("total_input_tokens", 0) / prompts or None if prompts else None


def environment(logs: Path, whole: bool = True) -> list[str]:
    """The summary of env.txt, and under a fold all of it."""
    path = logs / "env.txt"
    if not path.exists():
        return ["<!-- The run has no logs/env.txt: paste the output of `bash collect_env.sh`. -->"]
    text = path.read_text(encoding="utf-8", errors="replace")
    sections = re.split(r"^## ", text, flags=re.MULTILINE)
    short = next((part for part in sections if part.startswith("Summary")), "")
    lines = short.partition("\n")[2].strip().splitlines()
    if not whole:
        return [*lines, "", "All of it: env.txt in the bundle."]
    rest = [f"#### {_without_commands(part)}" for part in sections[1:] if part != short]
    folded = "".join(rest).strip().splitlines()
    title = "The rest (collect_env.sh, taken before the first launch)"
    return [*lines, "", *_folded(title, folded)]


def _without_commands(section: str) -> str:
    """A section of env.txt; of other people's sglang processes their number stands for their
    command lines."""
    section = re.sub(r"^NCCL in process \d+ .*\n(?:  .*\n)*", "", section, flags=re.MULTILINE)
    left, count = re.subn(r"^process \d+ .*\n(?:  .*\n)*", "", section, flags=re.MULTILINE)
    if not count:
        return section
    said = f"{count} sglang process{'es' * (count > 1)} ran on this machine already"
    return left.replace("```text\n", f"```text\n{said} (in env.txt)\n", 1)


def text_of(run: Path) -> str:
    """The whole issue text. OSError or ValueError where logs/run.json is not readable."""
    logs = run / "logs"
    made = run_record.load(logs)
    result = summary_of.stored(logs, made)
    rows = resolved_arguments.table(result)
    parts = [
        *nothing_to_report(made),
        "### Checklist",
        "",
        *checklist(),
        "",
        "### Describe the bug",
        "",
        *describe(logs, made, result),
        "",
        *(_folded("Resolved server arguments (/server_info)", rows) if rows else []),
        "### Reproduction",
        "",
        *reproduce(logs, made, result),
        "",
        "### Environment",
        "",
    ]
    text = "\n".join([*parts, *environment(logs)]) + "\n"
    if len(text) > MOST_CHARS:
        text = "\n".join([*parts, *environment(logs, whole=False)]) + "\n"
    return text
