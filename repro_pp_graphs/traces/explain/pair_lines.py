"""The analysis as lines: messages paired between ranks, and how good times between ranks are."""

from __future__ import annotations

from repro_pp_graphs.traces.analysis_record import Analysis, EdgeFacts
from repro_pp_graphs.traces.explain.words import clock_doubt_us, column, time, wrapped

# More rows than these are summed up.
MOST_ROWS = 12
# Of an edge's messages, the share whose times stand for all: those left out may be another sort.
FEW_PAIRED = 0.8


def pairs(facts: Analysis) -> list[str]:
    """Sends paired with their receives, each edge a row; means, ms."""
    edges = [*facts.p2p, *facts.p2p_gloo]
    if not edges:
        return []
    heads = f"{'paired':>14}{'transfer':>10}{'late recv':>12}{'late send':>12}"
    several = len(facts.hosts) > 1 or bool(clock_doubt_us(facts.clocks, facts.hosts))
    heads += f"{'+-':>9}" if several else ""
    found = [f"{'messages, means in ms':<23}{heads}"]
    shown = edges if len(edges) <= 2 * MOST_ROWS else _longest(edges)
    for edge in shown:
        name = f"{edge.backend} PP{edge.src} -> PP{edge.dst}" + (
            f" TP{edge.tp}" if facts.tp_size > 1 else ""
        )
        paired = f"{edge.pairs} of {max(edge.sends, edge.recvs)}"
        cells = "".join(
            column(spread.mean if spread else None, width)
            for spread, width in (
                (edge.transfer_us, 10),
                (edge.send_wait_us, 12),
                (edge.recv_wait_us, 12),
            )
        )
        cells += column(_doubt(edge), 9) if several else ""
        few = edge.pairs < FEW_PAIRED * min(edge.sends, edge.recvs)
        found.append(
            f"{name:<23}{paired:>14}" + ("  too few paired: see the warnings" if few else cells)
            if edge.pairs
            else f"{name:<23}{paired:>14}  not paired: see the warnings"
        )
    if len(shown) < len(edges):
        found.append(
            f"(the {len(shown)} edges with the longest waits of {len(edges)}: --json has all)"
        )
    text = (
        "(late recv: how long after its send a receive began; the send waits so long, the sender's "
        "host only where sends block. late send: how long after its receive a send "
        "began. Ranks' files begin and end at different steps, so a few at the "
        "edges have no partner.)"
    )
    if several:
        text = text[:-1] + " +-: what the clocks of the two ranks may change of each.)"
    return [*found, *wrapped(text, ""), *_numbers(edges)]


def _doubt(edge: EdgeFacts) -> float | None:
    """How far the clocks of an edge's ranks may be apart, us; None where nothing bounds them."""
    low, high = edge.clock_us.low_us, edge.clock_us.high_us
    return None if low is None or high is None else max(abs(low), abs(high))


def _numbers(edges: list[EdgeFacts]) -> list[str]:
    """That pairs are by number, where there are numbers."""
    known = [edge.by_number for edge in edges if edge.by_number]
    if not known:
        return []
    some = "" if len(known) == len(edges) else " on the edges where they have numbers"
    return wrapped(f"Pairs are exact{some}, by the numbers that pp_clock gave the messages.", "")


def _longest(edges: list[EdgeFacts]) -> list[EdgeFacts]:
    """The edges with the longest mean waits, and those that are not paired, in their order."""

    def weight(edge: EdgeFacts) -> float:
        waits = [spread.mean for spread in (edge.send_wait_us, edge.recv_wait_us) if spread]
        return max(waits, default=float("inf"))

    chosen = sorted(edges, key=weight, reverse=True)[:MOST_ROWS]
    return [edge for edge in edges if any(edge is other for other in chosen)]


def _host_clocks(facts: Analysis) -> list[str]:
    """How far the hosts' clocks are apart, a sentence for each two, at most MOST_ROWS."""
    found = []
    for row in facts.host_clocks[:MOST_ROWS]:
        head = f"{row.b}'s clock against {row.a}'s: "
        if row.low_us is None or row.high_us is None:
            text = "not bounded, messages went one way only or none is paired"
        else:
            text = f"{_ahead(row.low_us)} to {_ahead(row.high_us)}, by {row.messages} messages"
            text += f" ({row.numbered} by number)"
            if row.moved_us:
                way = "later" if row.moved_us > 0 else "earlier"
                text += f"; its times are taken to be {time(abs(row.moved_us))} {way}"
        found += wrapped(f"{head}{text}.", "")
    if len(facts.host_clocks) > MOST_ROWS:
        found.append(f"(and {len(facts.host_clocks) - MOST_ROWS} more: --json has all)")
    return found


def _ahead(us: float) -> str:
    return f"{time(abs(us))} {'ahead' if us >= 0 else 'behind'}"


def clocks(facts: Analysis) -> list[str]:
    """How good times between ranks are, in a sentence; of several hosts, how far they are apart."""
    return [*_common_clock(facts), *_host_clocks(facts)]


def _common_clock(facts: Analysis) -> list[str]:
    rows = facts.clocks
    if not rows:
        return []
    widths = [
        max(abs(row.low_us), abs(row.high_us))
        for row in rows
        if row.low_us is not None and row.high_us is not None
    ]
    hosts = f"{len(facts.hosts)} hosts: " if len(facts.hosts) > 1 else ""
    if len(facts.hosts) == 1 and len(widths) < len(rows):
        return wrapped("one host, one clock: times between ranks are good as they are", "")
    if not widths:
        return wrapped(
            f"{hosts}nothing bounds the ranks' clocks: times between ranks may be off", ""
        )
    apart = "may differ by" if clock_doubt_us(rows, facts.hosts) else "agree to"
    text = f"{hosts}clocks {apart} {time(max(widths))}: times between ranks are good to that"
    if len(widths) < len(rows):
        text += f" ({len(rows) - len(widths)} of {len(rows)} pairs of ranks are not bounded)"
    return wrapped(text, "")
