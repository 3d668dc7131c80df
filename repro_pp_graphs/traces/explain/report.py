"""The analysis as lines for a terminal of 80 columns: the token return and its reasons first."""

from __future__ import annotations

from textwrap import wrap
from typing import Any

WIDTH = 80
# A send in which the host waits for less than this share of its time is called fine.
FINE_SHARE = 0.1
# A part of a time that is smaller than this is not worth a word in the conclusion.
WORTH_SAYING = 0.1

Facts = dict[str, Any]


def lines(facts: Facts) -> list[str]:
    """Lines that show one case's analysis (the dict that `analyze` returns)."""
    ranks = _count(facts["pp_size"], "PP rank")
    ranks += f" x {facts['tp_size']} TP" if facts["tp_size"] > 1 else ""
    read = len(facts["ranks"])
    ranks += f", {read} with a trace" if read < facts["pp_size"] * facts["tp_size"] else ""
    window_us = facts["window_us"]
    window = f"recorded together for {time(window_us)}" if window_us else "not recorded together"
    found = _wrapped(f"{facts['case']}: {ranks}, {window}", "")
    for part in (_token_return, _ranks, _pairs, _clocks, _warnings):
        text = part(facts)
        found += ["", *text] if text else []
    return found


def time(value_us: float | None) -> str:
    """A time in the unit that reads best; `-` for none."""
    if value_us is None:
        return "-"
    if abs(value_us) >= 1e6:
        return f"{value_us / 1e6:.2f} s"
    if abs(value_us) >= 1e3:
        return f"{value_us / 1e3:.2f} ms"
    return f"{value_us:.1f} us" if value_us else "0 us"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}%"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + "s" * (number != 1)


def _wrapped(text: str, indent: str) -> list[str]:
    return wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent or "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _name(rank: int, facts: Facts) -> str:
    pp, tp = divmod(rank, facts["tp_size"])
    return f"PP{pp}.{tp}" if facts["tp_size"] > 1 else f"PP{pp}"


def _on_gpu(facts: Facts) -> bool:
    return any(row["basis"] == "gpu" for row in facts["ranks"].values() if "basis" in row)


def _ranks(facts: Facts) -> list[str]:
    on_gpu = _on_gpu(facts)
    names = ("busy", "P2P", "idle") if on_gpu else ("batch", "recv", "other")
    found = [
        f"{'rank':<6} batches {'graphs ' if on_gpu else ''}"
        + "".join(f"{name:>7}" for name in names)
        + "   decode steps by batch size"
    ]
    for label, row in facts["ranks"].items():
        graphs = f"{facts['graph_launches'][label]:>7}" if on_gpu else ""
        shares = [row[key] for key in ("busy_fraction", "p2p_fraction", "idle_fraction")]
        cells = "".join(f"{_share(share):>7}" for share in shares)
        line = f"PP{label:<4} {row['batches']:>7}{graphs} {cells}   "
        found.append((line + _sizes(row["decode_batch_sizes"], WIDTH - len(line))).rstrip())
    ring = facts["ring"]
    what = "no compute" if on_gpu else "outside run_batch"
    found.append(
        f"bubble {_share(ring['bubble_fraction'])} ({what}); "
        f"at best {_share(ring['ideal_bubble_fraction'])} with "
        f"{_count(ring['micro_batches'], 'micro-batch').replace('chs', 'ches')} "
        f"in {_count(facts['pp_size'], 'stage')}"
    )
    return found


def _sizes(steps: dict[str, int], width: int) -> str:
    """Decode steps by batch size; in brief where there are too many sizes for the width."""
    text = ", ".join(f"{count} of {size}" for size, count in steps.items())
    if len(text) <= width:
        return text
    sizes = [int(size) for size in steps]
    return f"{sum(steps.values())} of {min(sizes)} to {max(sizes)}"


def _pairs(facts: Facts) -> list[str]:
    edges = [*facts["p2p"], *facts["p2p_gloo"]]
    if not edges:
        return []
    found = ["P2P, medians    sends recvs offset pairs  transfer send wait recv wait       lag"]
    for edge in edges:
        name = f"{edge['backend']} {edge['src']}->{edge['dst']}" + (
            f" tp{edge['tp']}" if facts["tp_size"] > 1 else ""
        )
        offset = "-" if edge["offset"] is None else f"{edge['offset']:+d}"
        cells = " ".join(
            f"{time(edge[key].get('median')):>9}"
            for key in ("transfer_us", "send_wait_us", "recv_wait_us", "lag_us")
        )
        found.append(
            f"{name:<15} {edge['sends']:>5} {edge['recvs']:>5} {offset:>6} "
            f"{edge['pairs']:>5} " + (cells if edge["pairs"] else " not paired: see the warnings")
        )
    found.append("(send wait: sent, the recv not yet posted; lag: the recv ends after the send)")
    return found


def _clocks(facts: Facts) -> list[str]:
    if not facts["clocks"]:
        return []
    found = ["clocks: how far the second rank's can be ahead of the first's, by causality"]
    if len(facts["hosts"]) > 1:
        found.append(f"  {len(facts['hosts'])} hosts: waits and lags are good to these intervals")
    cells = []
    for row in facts["clocks"]:
        low = "-inf" if row["low_us"] is None else time(row["low_us"])
        high = "inf" if row["high_us"] is None else time(row["high_us"])
        cells.append(f"{_name(row['a'], facts)} {_name(row['b'], facts)}: {low} to {high}")
    return found + [
        f"  {left:<39}{right}".rstrip()
        for left, right in zip(cells[::2], [*cells[1::2], ""], strict=False)
    ]


def _warnings(facts: Facts) -> list[str]:
    return [f"warning: {text}" for text in facts["warnings"]]  # whole lines: for grep


def _token_return(facts: Facts) -> list[str]:
    told = facts["token_return"]
    if not told:
        return _no_token_return(facts)
    on_gpu = _on_gpu(facts)
    counted = (
        "" if told["steps_counted"] == told["steps"] else f" ({told['steps_counted']} counted)"
    )
    src, dst = f"PP{told['src']}", f"PP{told['dst']}"
    title = f"token return {src} -> {dst}: {_count(told['steps'], 'step')}{counted}, "
    found = _wrapped(title + f"by {told['found_by']}", "")
    for sentence in conclusion(facts):
        found += _wrapped(sentence, "  ")
    known = "in #10865: 100, 30 and 70 ms" if on_gpu else ""
    found += ["", f"  {known:<34} {'median':>10} {'p99':>10} {'max':>10}"]
    for title, group in (("host in the send", "host"), ("until the last byte left", "delivery")):
        rows = told.get(f"{group}_us", {})  # no delivery where no gloo send could be paired
        if rows:
            found.append(_row(title, rows["send"]))
        if rows and on_gpu:
            found.append(_row("  overlapped with its decode graph", rows["overlapped_with_graph"]))
            found.append(_row("  idle (no compute kernel runs)", rows["idle"]))
    if "until_received_us" in told:
        found.append(_row(f"until {dst} has received it", told["until_received_us"]))
    waits = {key: text for key, text in _waits(src, dst).items() if told["split_us"][key]["mean"]}
    if waits:
        texts = waits | {"other_host": "nothing: other host work"}
        found += ["", "  what the host waits for in the send (means add up)"]
        found += _shares(told["split_us"], texts, told["host_us"]["send"]["mean"])
        calls = [
            f"{row['name']} {time(row['total_us'])} in {_count(row['calls'], 'call')}"
            for row in told["blocking_calls"][:3]
        ]
        found += _wrapped(f"it blocks in {'; '.join(calls)}", "    ") if calls else []
    if "delivery_split_us" in told:
        found += ["", "  what happens until the last byte left (means add up)"]
        whole = told["delivery_us"]["send"]["mean"]
        found += _shares(told["delivery_split_us"], _happens(src, dst), whole)
    return found


def _waits(src: str, dst: str) -> dict[str, str]:
    """Keys of `split_us` for which the host waits, in words."""
    return {
        "blocked_on_own_graph": f"{src}'s own decode graph",
        "blocked_on_own_compute": f"{src}'s own other kernels",
        "peer_late": f"{dst} to post its recv",
        "transfer": "the transfer",
        "blocked_otherwise": "something else",
    }


def _happens(src: str, dst: str) -> dict[str, str]:
    """Keys of `delivery_split_us` in words."""
    return {
        "own_graph": f"{src}'s own decode graph runs",
        "own_compute": f"{src}'s other kernels run",
        "peer_late": f"{dst} has not started its recv",
        "transfer": "the transfer runs",
        "other": "no send is under way yet",
    }


def conclusion(facts: Facts) -> list[str]:
    """What to make of the token return, in a sentence on the host and one on the delivery.

    The send is fine where its host waits in it for at most FINE_SHARE of the recorded time.
    """
    told = facts["token_return"]
    src, dst = f"PP{told['src']}", f"PP{told['dst']}"
    host, split = told["host_us"]["send"], told["split_us"]
    texts = _waits(src, dst)
    waited = sum(split[key]["mean"] for key in texts)
    if waited <= WORTH_SAYING * host["mean"]:
        back = f"back after {time(host['median'])} (median)"
        found = [f"Fine: {src}'s host does not wait in the send; {back}."]
    else:
        top = max(texts, key=lambda key: split[key]["mean"])
        lanes_us = facts["window_us"] * facts["tp_size"]
        share = waited * told["steps_counted"] / lanes_us if lanes_us else None
        verdict = "" if share is None else "Fine: " if share <= FINE_SHARE else "Slow: "
        found = [
            f"{verdict}{src}'s host waits {time(waited)} of {time(host['mean'])} in a send (means)"
            + ("" if share is None else f", {_share(share)} of its time")
            + f", most for {texts[top]}: {time(split[top]['mean'])}."
            + " Before that ends there are no token ids." * (top == "blocked_on_own_graph")
        ]
    unpaired = [
        edge["backend"]
        for edge in (*facts["p2p"], *facts["p2p_gloo"])
        if (edge["src"], edge["dst"]) == (told["src"], told["dst"]) and not edge["pairs"]
    ]
    if unpaired:
        names = " and ".join(dict.fromkeys(unpaired))
        return [*found, f"What {dst} does meanwhile is not known: no {names} sends are paired."]
    if "delivery_us" not in told or told["delivery_us"]["send"]["mean"] <= 1.1 * host["mean"]:
        return found
    whole = told["delivery_us"]["send"]["mean"]
    parts = {key: told["delivery_split_us"][key]["mean"] for key in _happens(src, dst)}
    most_first = sorted(parts.items(), key=lambda item: -item[1])
    said = [
        f"for {time(mean)} {_happens(src, dst)[key]}"
        for key, mean in most_first
        if mean > WORTH_SAYING * whole
    ]
    return [*found, f"The last byte leaves after {time(whole)} (mean): {', '.join(said)}."]


def _no_token_return(facts: Facts) -> list[str]:
    last = facts["pp_size"] - 1
    if not last:
        return ["token return: none, there is one PP rank"]
    if not any(label.split(".")[0] == str(last) for label in facts["ranks"]):
        return [f"token return: not seen, PP{last} has no trace"]
    if any(label.split(".")[0] == str(last) for label in facts["p2p_without_metadata"]):
        return [f"token return: not seen, no P2P kernel of PP{last} tells its peer"]
    return [f"token return: not seen, PP{last} sent no tokens while it was recorded"]


def _shares(parts: Facts, texts: dict[str, str], whole_us: float) -> list[str]:
    """Parts of a time in words, those that are not 0."""
    return [
        f"    {text:<50} {time(parts[key]['mean']):>10} {_share(parts[key]['mean'] / whole_us):>7}"
        for key, text in texts.items()
        if parts[key]["mean"]
    ]


def _row(title: str, cell: dict[str, float]) -> str:
    return f"  {title:<34} " + " ".join(
        f"{time(cell[key]):>10}" for key in ("median", "p99", "max")
    )
