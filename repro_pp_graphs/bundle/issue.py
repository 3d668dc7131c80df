"""A ready issue text with the sections of sglang's bug form, filled from what a run left."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from repro_pp_graphs.report import summary as summary_of
from repro_pp_graphs.report import table
from repro_pp_graphs.run import record
from repro_pp_graphs.server import diagnosis

MOST_CHARS = 60_000  # GitHub takes 65,536
_CELL_CHARS = 60
_OWN_LINES = re.compile(r"#|exec |export PYTHONPATH=")


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


def _fenced(text: str, language: str = "text") -> list[str]:
    # a fence longer than any inside
    longest = max(map(len, re.findall("`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return [f"{fence}{language}", text.rstrip("\n"), fence]


def _folded(title: str, lines: list[str]) -> list[str]:
    return ["<details>", f"<summary>{title}</summary>", "", *lines, "", "</details>", ""]


def _load(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def _said_at_the_end(logs: Path, result: dict[str, Any]) -> Iterator[str]:
    """What the server's log of each failed launch says of its end."""
    for launch in result["launches"]:
        path = logs / f"{launch['label']}_{_program(result)}.log"
        if launch["status"] == "ok" or not path.exists():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        lines = [line.text for line in diagnosis.telling_lines(text, most=8)]
        if lines:
            yield from ("", f"The log of {launch['label']} says at its end:", "")
            yield from _fenced("\n".join(lines))


def _program(run: dict[str, Any]) -> str:
    """What a launch of run.json or summary.json ran: server, or probe."""
    return "probe" if run.get("engine") == "probe" else "server"


def describe(logs: Path, plan: dict[str, Any], result: dict[str, Any]) -> list[str]:
    """What was compared, the table, and what to know before believing it."""
    first = plan["launches"][0]
    versions = sorted({launch["sglang_version"] for launch in result["launches"]})
    facts = _load(logs / "env.json").get("summary", {})
    on = "a CPU (a rehearsal)" if plan["mode"] == "cpu" else facts.get("GPUs") or "GPUs"
    what = (
        f"sglang {', '.join(versions)}, pipeline parallelism {first['pp_size']}, tensor "
        f"parallelism {first['tp_size']}"
    )
    if _program(plan) == "probe":
        what = (
            "The PP ring of sglang's scheduler as a program of its own, without sglang (`python -m "
            f"repro_pp_graphs probe`): {first['pp_size']} ranks, torch {facts.get('torch', '?')}"
        )
    text = (
        f"{what}, on {on}. One column a {_program(plan)} launch; the ratio is the first to the "
        "second."
    )
    remarks = [f"- {remark}" for remark in table.remarks(result)]
    said = list(_said_at_the_end(logs, result))
    ask = "<!-- What did you expect, and what do you see? The numbers are below. -->"
    return [ask, "", text, "", *_fenced("\n".join(table.lines(result))), "", *remarks, *said]


def _command(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    kept = [line for line in lines if not _OWN_LINES.match(line) or line.startswith("exec ")]
    return "\n".join(kept).replace("exec ", "", 1)


def reproduce(logs: Path, plan: dict[str, Any]) -> list[str]:
    """The command of each case; for servers the model, and the client's command."""
    probe = _program(plan) == "probe"
    out = [] if probe else [f"Model: `{plan['launches'][0]['model']}`", ""]
    seen: set[str] = set()
    for launch in plan["launches"]:
        path = logs / f"{launch['label']}_{_program(plan)}_command.sh"
        if launch["case"] in seen or not path.exists():
            continue
        seen.add(launch["case"])
        command = _command(path)
        out += [f"{launch['label']}:", *_fenced(command, "bash"), ""]
    if any("repro_pp_graphs.server.launch" in line for line in out):
        out += [
            "(`repro_pp_graphs.server.launch` is `sglang.launch_server` with the changes named in "
            "REPRO_SHIMS.)",
            "",
        ]
    if probe:
        return [*out, "(In a checkout of repro_pp_graphs; it takes torch alone.)"]
    client = (
        f"python client_benchmark.py --base-url http://127.0.0.1:"
        f"{plan['launches'][0]['port']} --batch {plan['batch']} "
        f"--max-new-tokens {plan['max_new_tokens']} --warmup 1"
    )
    return [*out, "The load:", *_fenced(client, "bash")]


def _cell(value: object) -> str:
    if isinstance(value, dict):  # cuda_graph_config: the decode part is what an A/B is about
        value = value.get("decode", value)
    text = value if isinstance(value, str) else json.dumps(value)
    text = text if len(text) <= _CELL_CHARS else f"{text[: _CELL_CHARS - 3]}..."
    return text.replace("|", "\\|")


def resolved(result: dict[str, Any]) -> list[str]:
    """The servers' resolved arguments, a column a case; empty where no server answered."""
    by_case: dict[str, dict[str, Any]] = {}
    for launch in result["launches"]:
        if launch["resolved"]:
            by_case.setdefault(launch["label"].split("_r")[0], launch["resolved"])
    if not by_case:
        return []
    keys = dict.fromkeys(key for found in by_case.values() for key in found)
    rows = [
        f"| {key} | " + " | ".join(_cell(found.get(key)) for found in by_case.values()) + " |"
        for key in keys
        if any(found.get(key) is not None for found in by_case.values())
    ]
    head = "| argument | " + " | ".join(by_case) + " |"
    rule = "|---" * (len(by_case) + 1) + "|"
    return _folded("Resolved server arguments (/server_info)", [head, rule, *rows])


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
    rest = [f"#### {part}" for part in sections[1:] if part != short]
    folded = "".join(rest).strip().splitlines()
    title = "The rest (collect_env.sh, taken before the first launch)"
    return [*lines, "", *_folded(title, folded)]


def text_of(run: Path) -> str:
    """The whole issue text. OSError or ValueError where logs/run.json is not readable."""
    logs = run / "logs"
    made = record.load(logs)
    plan, result = asdict(made), summary_of.stored(logs, made)
    parts = [
        "### Checklist",
        "",
        *checklist(),
        "",
        "### Describe the bug",
        "",
        *describe(logs, plan, result),
        "",
        *resolved(result),
        "### Reproduction",
        "",
        *reproduce(logs, plan),
        "",
        "### Environment",
        "",
    ]
    text = "\n".join([*parts, *environment(logs)]) + "\n"
    if len(text) > MOST_CHARS:
        text = "\n".join([*parts, *environment(logs, whole=False)]) + "\n"
    return text
