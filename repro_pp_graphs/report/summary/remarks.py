"""What the reader must know before believing the table."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from repro_pp_graphs.environment import changes
from repro_pp_graphs.report.launch_row import name, prefill_graphs
from repro_pp_graphs.report.summary import load_split, token_ids
from repro_pp_graphs.run.checks.expected import ISSUE_CASES
from repro_pp_graphs.run.launch.micro_batches import NOT_AS_ASKED
from repro_pp_graphs.server.release.release_facts import SENDS_MEAN
from repro_pp_graphs.stats.compare import LEAST_LAUNCHES, spread

MOST_NUMBERS = 2  # of a remark that differ from launch to launch and are named
_BROKEN_OFF = {"not run", "running", "interrupted"}  # such a launch has little to say
_NUMBER = re.compile(r"\d[\d.]*")
# a number with the words that say what it is: GPU 0, 2.3 s, 12%
_IN_WORDS = re.compile(
    r"(GPU )?(\d[\d.]*)(%| (?:s|ms|us|MB|GB|MHz|rows|tokens|times|by medians|sent)\b)?"
)

# counters of a GPU that a launch reads too (server/machine/gpu_counters.py): the key in
# collect_env.sh's facts begins so, the launch's remark calls it so
COUNTED = {
    "held back, sw power": "by power capping",
    "held back, sw thermal": "by temperature (software)",
    "held back, hw thermal": "by temperature (hardware)",
    "held back, hw power": "by the power brake",
    "held back, sync boost": "by sync boost",
    "ecc.errors.corrected.volatile": "corrected ECC errors",
    "ecc.errors.uncorrected": "uncorrected ECC errors",
    "power.limit": "power limit",
}


XID_LINES = "Xid lines"  # of collect_env.sh's facts, which a launch reads too


def remarks(summary: dict[str, Any]) -> list[str]:
    """A sentence or two each, the gravest first."""
    launches = summary["launches"]
    probe = summary.get("engine") == "probe"
    found = []
    if probe:
        found.append(
            "PROBE: the PP ring without sglang, with made-up weights: order of calls and waiting "
            "are sglang's, TTFT, TPOT and tokens/s are the probe's own."
        )
    if summary["rehearsal"]:
        found.append(_rehearsal(summary))
    told = of_launches(launches) + of_other_loads(launches)
    found += [text for text in told if NOT_AS_ASKED in text]  # a comparison of other loads
    if summary["mode"] == "one_gpu":
        how = summary.get("sharing") or "in time slices"
        found.append(f"Ranks shared GPUs ({how}): not the durations of one GPU a rank.")
    found += _network(launches) + _prefill_graphs(summary)
    if summary["nsys"]:
        found.append("Under nsys: times are not comparable with runs without it.")
    measured = Counter(launch["case"] for launch in launches if launch["status"] == "ok")
    cases = dict.fromkeys(launch["case"] for launch in launches)
    if len(cases) > 1 and measured and min(measured.values()) < LEAST_LAUNCHES:
        most = max(measured.values())
        none = [name(summary, case) for case in cases if case not in measured]
        but = f", of {', '.join(none)} none" if none else ""
        found.append(
            f"{spread(measured.values())} {'launch' if most == 1 else 'launches'} a case{but}: too "
            "few to tell a difference from launch-to-launch noise."
        )
    if probe:
        found += _send_paths(summary)
    else:
        found += _sends(launches, summary["rehearsal"]) + load_split.remark(launches)
    found += hosts(launches)
    found += token_ids.remark(launches)
    found += resumed(summary) + summary.get("warnings", [])
    for _, text in _alike(("", text) for text in changes.lines(_of_the_machine(summary))):
        found.append(f"environment changed during the run: {text}")
    return found + [text for text in told if NOT_AS_ASKED not in text]


def hosts(launches: list[dict[str, Any]]) -> list[str]:
    """Which launches' hosts were not like the others' or had other work, in what, by how much."""
    unlike = [
        f"{each['label']}: its host was not like the others': {'; '.join(each['host_unlike'])}."
        for each in launches
        if each.get("host_unlike")
    ]
    said = [
        (each["label"], "; ".join(each["host_taken"]))
        for each in launches
        if each.get("host_taken")
    ]
    return unlike + [
        f"{', '.join(labels)}: its host had other work: {text}. It may be slower for that."
        for labels, text in _alike(said)
    ]


def _of_the_machine(summary: dict[str, Any]) -> list[changes.Change]:
    """What changed between the beginning and the end, without what a launch counted itself."""
    texts = [
        text
        for launch in summary["launches"]
        for text in (*launch.get("warnings", []), *(launch.get("reason") or "").split("; "))
    ]
    changed = [changes.Change(**each) for each in summary.get("environment_changes") or []]
    return [each for each in changed if not any(_says(text, each) for text in texts)]


def _says(text: str, change: changes.Change) -> bool:
    """Whether a launch's remark is of what this change is of."""
    if change.key == XID_LINES:
        return "Xid " in text
    word = next((word for key, word in COUNTED.items() if change.key.startswith(key)), None)
    return bool(word) and text.startswith(f"GPU {change.gpu}: ") and f" {word} " in text


def _network(launches: list[dict[str, Any]]) -> list[str]:
    """A remark where NCCL was kept from NVLink, and in which cases."""
    cases = {row["case"]: row.get("network", "") for row in launches}
    named = [case for case, how in cases.items() if how]
    if not named:
        return []
    where = "" if len(named) == len(cases) else f" ({', '.join(named)})"
    return [
        f"Ranks talked over {cases[named[0]]}{where}: a stand-in for hosts apart, on the loopback "
        "of one machine; not the times of a network."
    ]


def _prefill_graphs(summary: dict[str, Any]) -> list[str]:
    """A remark where some cases' prefills ran with CUDA graphs and others' did not."""
    cases = dict.fromkeys(row["case"] for row in summary["launches"] if row["status"] == "ok")
    graphs = [case for case in prefill_graphs(summary["launches"]) if case in cases]
    others = [name(summary, case) for case in cases if case not in graphs]
    if not graphs or not others:
        return []
    named = ", ".join(name(summary, case) for case in graphs)
    return [
        f"Prefills ran with CUDA graphs in {named}, not in {', '.join(others)}: TTFT differs for "
        "that as well, and TTFT alone is no control between them. With "
        "--disable-prefill-cuda-graph in server_args_base.txt they run without in all cases."
    ]


def _alike(
    said: Iterable[tuple[str, str]], every: Sequence[str] = ()
) -> list[tuple[list[str], str]]:
    """Who said what: texts that differ in numbers alone stand once, as the first has them, with
    who else said one. `every`: those who are not named one by one where most say it."""
    whose: dict[str, list[tuple[str, str]]] = {}
    for who, text in said:
        whose.setdefault(_NUMBER.sub("#", text), []).append((who, text))
    found = []
    for its in whose.values():
        first = its[0][1]
        same = list(dict.fromkeys(who for who, text in its if text == first))
        others = list(dict.fromkeys(who for who, _ in its if who not in same))
        more = len({text for _, text in its}) - 1
        tail = ""
        if others:
            who = _others(others, [each for each in every if each not in same])
            tail = f" ({who}: likewise, {_others_have([text for _, text in its])})"
        elif more:
            tail = f" (and {more} more like it, with other numbers)"
        found.append((same, first + tail))
    return found


def _others(some: list[str], every: list[str]) -> str:
    """`the other launches but A_r2`, where they are most of all others; else each by its name."""
    lacking = [each for each in every if each not in some]
    if not every or len(lacking) >= len(some):
        return ", ".join(some)
    return "the other launches" + (f" but {', '.join(lacking)}" if lacking else "")


def _others_have(texts: list[str]) -> str:
    """`1.2 to 1.48 s`: one or two numbers in which texts of one form differ, in those after the
    first; a number without a word of what it is also as the first has it (`3 in place of 4`). Of
    more than two that they differ."""
    columns = zip(*(_IN_WORDS.findall(text) for text in texts), strict=True)
    apart = [column for column in columns if len(set(column)) > 1]
    if len(apart) > MOST_NUMBERS:
        return "with other numbers"
    said = []
    for (before, first, behind), *others in apart:
        values = sorted({value for _, value, _ in others if value != first}, key=_size)
        span = " to ".join(dict.fromkeys((values[0], values[-1])))
        known = before or behind
        said.append(f"{before}{span}{behind}" if known else f"{span} in place of {first}")
    return "; ".join(said)


def _size(number: str) -> float:
    try:
        return float(number)
    except ValueError:  # a version, as 0.5.2
        return 0.0


def of_launches(launches: list[dict[str, Any]]) -> list[str]:
    """Why launches did not end well, then all warnings: what several say alike stands once."""
    said = [(launch["label"], launch["reason"]) for launch in launches if launch.get("reason")]
    for launch in launches:
        texts = launch.get("warnings", []) + launch["client_warnings"]
        said += [(launch["label"], text) for text in texts]
    ended = [each["label"] for each in launches if each["status"] not in _BROKEN_OFF]
    every = ended if len(ended) > 2 else []
    return [
        f"{'every launch' if labels == every else ', '.join(labels)}: {text}"
        for labels, text in _alike(said, every)
    ]


def of_other_loads(launches: list[dict[str, Any]]) -> list[str]:
    """What the client said of its passes under the other loads of a sweep: what several have alike
    stands once, with how many they are and one of them."""
    passes = [
        (f"{launch['label']} under {load['load']}", load)
        for launch in launches
        for load in launch.get("loads", ())
        if load["status"] == "ok" and load.get("metrics") != launch["metrics"]  # the main load's
    ]
    said: dict[str, list[tuple[str, str]]] = {}
    for who, load in passes:
        for text in load.get("client_warnings", ()):
            said.setdefault(_NUMBER.sub("#", text), []).append((who, text))
    return [
        f"{len({who for who, _ in its})} of {len(passes)} passes under other loads, one of them "
        f"{its[0][0]}: {its[0][1]}"
        for its in said.values()
    ]


def _send_paths(summary: dict[str, Any]) -> list[str]:
    """The probe's send path of each case, once where all have the same."""
    by_case = {name(summary, each["case"]): each["sends"] for each in summary["launches"]}
    if len(set(by_case.values())) == 1:
        return [f"The sends of all cases are {next(iter(by_case.values()))} (docs/mechanism.md)."]
    return [f"{case}: send path {sends}" for case, sends in by_case.items()]


def _rehearsal(summary: dict[str, Any]) -> str:
    """That its numbers are none of GPUs', and which files are of which arm."""
    labels: dict[str, str] = {}
    for launch in sorted(summary["launches"], key=lambda launch: launch["label"]):
        labels.setdefault(name(summary, launch["case"]), launch["label"])
    if len(labels) == 1:
        return "REHEARSAL on a CPU: no CUDA graphs, so its numbers say nothing about #10865."
    files = ", ".join(f"{arm} is {label}" for arm, label in labels.items() if arm != label)
    text = "its numbers do not tell how these cases compare on GPUs"
    if {launch["case"] for launch in summary["launches"]} >= ISSUE_CASES:
        text = (
            "there are no CUDA graphs, so no difference comes from them; its numbers say nothing "
            "about #10865"
        )
    return f"REHEARSAL on a CPU: {text}" + (f" (in the files {files})." if files else ".")


def resumed(summary: dict[str, Any]) -> list[str]:
    """A remark where launches were measured before and after a --resume."""
    begun: dict[int, list[str]] = {}
    for launch in summary["launches"]:
        if launch.get("session"):
            begun.setdefault(launch["session"], []).append(launch["label"])
    if len(begun) < 2:
        return []
    parts = [
        f"session {number}, begun {summary['sessions'][number - 1]}: {', '.join(labels)}"
        for number, labels in sorted(begun.items())
        if number <= len(summary["sessions"])
    ]
    return [
        f"Resumed ({'; '.join(parts)}): a difference between launches of different sessions may "
        "come from what changed in between."
    ]


def _sends(launches: list[dict[str, Any]], rehearsal: bool) -> list[str]:
    cases: dict[tuple[str, str], list[str]] = {}
    for launch in launches:
        ranks = launch.get("pp_size") or launch.get("resolved", {}).get("pp_size")  # of its traces
        if ranks == 1:  # which sends nothing
            continue
        names = cases.setdefault((launch["sglang_version"], launch["sends"]), [])
        names += [launch["label"]] if launch["round"] == 1 else []
    found = []
    for (version, how), names in cases.items():
        where = f" ({', '.join(names)})" if len(cases) > 1 else ""
        on = "on GPUs " * rehearsal  # a CPU's send copies, and waits for no GPU
        meaning = f": {on}{SENDS_MEAN[how]}" if how in SENDS_MEAN else ""
        found.append(f"sglang {version}{where}: PP sends are {how}{meaning}.")
    return found
