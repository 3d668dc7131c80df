"""The arguments with which the servers of a run's cases ran, as a table for the issue text."""

from __future__ import annotations

import json
from typing import Any

from repro_pp_graphs.report.told_apart import told_apart


def table(result: dict[str, Any]) -> list[str]:
    """The servers' resolved arguments, a column a case, and first those with which the cases were
    started, that differ and are not among them; empty where no server answered."""
    by_case: dict[str, dict[str, Any]] = {}
    for launch in result["launches"]:
        label = launch["label"].split("_r")[0]
        if launch["resolved"] and label not in by_case:
            started = _as_started(launch["server_args"]).items()
            more = {k: v for k, v in started if k[2:].replace("-", "_") not in launch["resolved"]}
            by_case[label] = {**more, **launch["resolved"]}
    if not by_case:
        return []
    every = list(by_case.values())
    keys = {
        key: None
        for found in every
        for key in found
        if not key.startswith("--") or len({str(each.get(key)) for each in every}) > 1
    }
    keys = dict.fromkeys(sorted(keys, key=lambda key: not key.startswith("--")))
    rows = [
        f"| {key} | " + " | ".join(_cells([found.get(key) for found in every])) + " |"
        for key in keys
        if any(found.get(key) is not None for found in every)
    ]
    head = "| argument | " + " | ".join(by_case) + " |"
    rule = "|---" * (len(by_case) + 1) + "|"
    return [head, rule, *rows]


def _cells(values: list[object]) -> list[str]:
    """The values of an argument; long ones that differ cut so that it shows."""
    texts = list(map(_text, values))
    return [t.replace("|", "\\|") for t in (told_apart(texts) if len(set(texts)) > 1 else texts)]


def _text(value: object) -> str:
    if isinstance(value, dict):  # cuda_graph_config: the decode part is what an A/B is about
        parts = {k: v for k, v in value.get("decode", value).items() if v is not None}
        return ", ".join(f"{key} {_brief(each)}" for key, each in parts.items())
    return "-" if value is None else value if isinstance(value, str) else json.dumps(value)


def _brief(value: object) -> str:
    """A value within another; of a list, such as the sizes that graphs are of, the last."""
    return f"up to {value[-1]}" if isinstance(value, list) and value else str(value)


def _as_started(args: list[str]) -> dict[str, str]:
    """A server's arguments by name, as `--pp-size: 2`; `yes` of one without a value. Of one that
    is given twice the last, as sglang takes it."""
    found: dict[str, list[str]] = {}
    for word in args:
        if word.startswith("--"):
            found[name := word] = []
        elif found:
            found[name].append(word)
    return {name: " ".join(values) or "yes" for name, values in found.items()}
