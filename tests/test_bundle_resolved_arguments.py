"""The servers' arguments in the issue text."""

from __future__ import annotations

from typing import Any

from repro_pp_graphs.bundle.resolved_arguments import table

SIZES = {"backend": "full", "max_bs": 64, "bs": [1, 2, 64], "max_seq_len": None}


def launch(label: str, args: list[str], **resolved: Any) -> dict[str, Any]:
    return {"label": label, "server_args": args, "resolved": resolved}


def rows(*launches: dict[str, Any]) -> list[str]:
    return table({"launches": list(launches)})[2:]


def test_an_argument_stands_once_as_the_server_has_it():
    on = launch("A", ["--graph-size", "8", "--new", "x"], graph_size=64, disable_graph=False)
    off = launch("B", ["--disable-graph"], graph_size=None, disable_graph=True)
    assert rows(on, off) == [
        "| --new | x | - |",
        "| graph_size | 64 | - |",
        "| disable_graph | false | true |",
    ]


def test_a_long_value_is_whole_where_cases_have_the_same_and_cut_where_they_differ():
    def with_sizes(label: str, backend: str) -> dict[str, Any]:
        return launch(label, [], config={"decode": {**SIZES, "backend": backend}})

    said = "backend full, max_bs 64, bs up to 64"
    assert rows(with_sizes("A", "full"), with_sizes("B", "full")) == [
        f"| config | {said} | {said} |"
    ]
    (other,) = rows(with_sizes("A", "full"), with_sizes("B", "breakable"))
    assert "backend full" in other and "backend breakable" in other


def test_there_is_no_table_where_no_server_answered():
    assert table({"launches": [launch("A", ["--x"])]}) == []
