"""What is said of real traces of each release: whom a rank waits for, and sentences that add up."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("msgspec")

from msgspec.structs import replace
from release_traces import RELEASES
from trace_changes import DATA
from trace_changes import analysis_of as facts_of

from repro_pp_graphs.traces.explain.analysis_lines import lines
from repro_pp_graphs.traces.explain.conclusion import conclusion

pytestmark = pytest.mark.slow

# the beginning of what is said of each blocking send: by what is in the trace, not by the release
BLOCKING = {
    "sglang052_graphs_on": "The send blocks: its metadata is first copied to the GPU",
    "sglang052_graphs_off": "The send blocks: its metadata is first copied to the GPU",
    "sglang0516_sync_send": "The send blocks: its metadata is first copied to the GPU",
    "sglang0516_event_send_numbered": "The send's metadata is copied to the GPU, and the host does "
    "not wait for that",
}


@pytest.mark.parametrize("name", sorted(path.name for path in DATA.iterdir() if path.is_dir()))
def test_no_rank_is_said_to_wait_for_one_that_waits_for_it(name):
    """That would be a deadlock: what a rank mostly waits for is of other times."""
    text = " ".join(conclusion(facts_of(name)))
    first, _, behind = text.partition(" Meanwhile ")
    waits = [re.findall(r"PP(\d)'s host in", first)[-1:]] if behind else []
    for said in behind.partition(".")[0].split("; ") if behind else []:
        waits.append(re.findall(r"PP(\d) is in", said))
        whom = re.findall(r", for PP(\d) to", said)
        assert not [each for each in whom if [each] in waits], said


def test_the_share_of_a_wait_in_which_its_peer_waits_too_is_told():
    facts = facts_of("cpu_numbered")
    turns = dict(facts.turns)
    for label, late in (("0", 9000.0), ("1", 3000.0)):
        row = replace(
            turns[label].rows["token_recv"],
            waits={"peer_late": late},
            peer_in={"token_recv": late / 2, "launch": late / 4},
        )
        turns[label] = replace(turns[label], rows={**turns[label].rows, "token_recv": row})
    text = " ".join(conclusion(replace(facts, turns=turns)))
    assert (
        "for PP1 to send. Meanwhile PP1 is in the receive of token ids for 4.50 ms of these."
        in text
    )


def test_the_wait_behind_a_late_peer_is_followed_to_its_root():
    text = " ".join(conclusion(facts_of("sglang052_pp4")))
    assert (
        "Meanwhile PP1 is in the receive of token ids, for PP0 to send; PP0 is in the receive of "
        "token ids, for PP3 to send; PP3 is in the send of token ids, for its own decode graph."
    ) in text


def test_two_ranks_in_two_parts_of_one_message_are_not_said_to_wait_for_each_other():
    facts = facts_of("sglang052_pp4")
    last = facts.turns["3"]
    send = replace(last.rows["token_send"], waits={"transfer": 20_000.0})
    turns = {**facts.turns, "3": replace(last, rows={**last.rows, "token_send": send})}
    assert (
        "PP3 is in the send of token ids, but not yet at this part of the message (size, metadata "
        "and tensors go one after the other)."
    ) in " ".join(conclusion(replace(facts, turns=turns)))


@pytest.mark.parametrize("name", RELEASES)
def test_the_printed_analysis_fits_80_columns_and_begins_with_what_was_seen(name):
    shown = [line for line in lines(facts_of(name)) if not line.startswith("warning: ")]
    assert max(map(len, shown)) <= 80
    text = " ".join(" ".join(shown).split())
    told = facts_of(name).token_return
    seen = f"{told.steps_counted} of PP{told.src}'s {told.steps_there} decode steps"
    assert seen in text
    order = ["recorded at once", "A decode step takes", "The longest wait", "Token return PP"]
    places = [text.index(each) for each in order]
    assert places == sorted(places)


@pytest.mark.parametrize(("name", "says"), BLOCKING.items())
def test_a_send_over_nccl_is_said_to_block_only_where_the_copy_before_it_does(name, says):
    assert says in conclusion(facts_of(name))[0]


def test_without_the_copy_in_the_trace_a_wait_for_own_work_is_not_explained_away():
    facts = facts_of("sglang052_graphs_on")
    assert facts.token_return is not None
    returned = replace(facts.token_return, upload_us=None)
    said = conclusion(replace(facts, token_return=returned))[0]
    assert "is not in the trace" in said and "does not wait" not in said


@pytest.mark.parametrize(("name", "issue"), [("on", ["100", "30", "70"]), ("off", ["3"])])
def test_beside_a_case_without_graphs_stands_what_the_issue_has_without(name, issue):
    text = lines(facts_of(f"sglang052_graphs_{name}"))
    head = next(at for at, line in enumerate(text) if line.endswith("in #10865"))
    column = [line[58:].strip() for line in text[head + 1 : head + 4]]
    assert list(filter(None, column)) == issue


@pytest.mark.parametrize("name", ["sglang052_graphs_on", "sglang0516_graphs_on", "h200_case_B"])
def test_the_parts_of_a_sentence_add_up_to_what_it_is_about(name):
    """Those that it names, and the rest, of which less than 1 % may be left out."""
    text = " ".join(conclusion(facts_of(name)))
    idle = re.search(
        r"(?:without compute|none of them) for ([\d.]+ m?u?s)\. Its host spends these in "
        r"(.*?)\. [A-Z]",
        text,
    )
    path = re.search(r"critical path of ([\d.]+ m?u?s) from launch to launch: (.*?)\. [A-Z]", text)
    assert idle or path
    for whole, parts in (found.groups() for found in (idle, path) if found):
        times = [as_us(each) for each in re.findall(r"[\d.]+ [mu]s", parts)]
        assert sum(times) == pytest.approx(as_us(whole), rel=0.01, abs=5.0 * (len(times) + 1))


def as_us(text: str) -> float:
    value, unit = text.split()
    return float(value) * (1e3 if unit == "ms" else 1)
