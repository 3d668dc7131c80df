"""Do the launches of a run answer with the same token ids? At temperature 0 nothing is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from repro_pp_graphs.report.launch_row import Row

KEY = "output_ids_sha256"  # of a request, in a client's JSON


def digests(document: dict[str, Any]) -> list[str | None]:
    """By prompt of a client's load the digest of its token ids; None where the prompt failed, or
    the server sent none, or not as many as it counted."""
    requests = document.get("requests")
    if not isinstance(requests, list):
        return []
    rows = [each for each in requests if isinstance(each, dict) and not each.get("beside")]
    found = [None if each.get("error") else each.get(KEY) for each in rows]
    return [each if isinstance(each, str) else None for each in found]


def mark(launches: Sequence[Row], ids: dict[str, list[str | None]]) -> None:
    """Note in `same_token_ids` of how many prompts a launch has the ids that the first has: the
    first in the order of cases and rounds whose server sent any; in `different_answers` how many of
    a launch's answers differ from one another: of few, as random weights give, the same ids say
    little. `ids`: digests by label.

    A prompt counts where both launches have its digest; a launch without such is not marked.
    """
    measured = sorted(launches, key=lambda row: (row["round"], row["place"]))
    first = next((row for row in measured if any(ids.get(row["label"], ()))), None)
    if first is None:
        return
    for row in launches:
        if kinds := set(ids.get(row["label"], ())) - {None}:
            row["different_answers"] = len(kinds)
        pairs = zip(ids[first["label"]], ids.get(row["label"], ()), strict=False)
        both = [(one, other) for one, other in pairs if one and other]
        if both and row is not first:
            same = sum(one == other for one, other in both)
            row["same_token_ids"] = {"first": first["label"], "same": same, "of": len(both)}


def text(row: Row) -> str:
    """`16 of 16`; `-` for the first launch, and where it cannot be told."""
    found = row.get("same_token_ids")
    return f"{found['same']} of {found['of']}" if found else "-"


def kinds(row: Row) -> str:
    """`3 of 8`: how many different answers a launch gave; `-` where its ids are not known."""
    number, of = row.get("different_answers"), row.get("metrics", {}).get("completed")
    return f"{number} of {of:.0f}" if number and of else str(number or "-")


def remark(launches: Sequence[Row]) -> list[str]:
    """That launches answered with other token ids than the first, if any did."""
    others = [row for row in launches if text(row) != "-"]
    unlike = [row for row in others if row["same_token_ids"]["same"] < row["same_token_ids"]["of"]]
    if not unlike:
        return []
    named = ", ".join(f"{row['label']} {text(row)}" for row in unlike)
    first = unlike[0]["same_token_ids"]["first"]
    return [
        f"Not all prompts got the token ids of {first}, at temperature 0: {named} did. Other "
        "kernels (graphs off, another release) and batches that form otherwise round otherwise; "
        "whether it is that or a fault the ids do not say: see whether launches of one case agree."
    ]
