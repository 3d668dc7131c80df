"""The analysis as lines for a terminal of 80 columns: what to make of it, then the tables."""

from __future__ import annotations

from repro_pp_graphs.traces.analysis_record import Analysis, Cause, Portion, Row, Spread, Turn
from repro_pp_graphs.traces.explain import step_path
from repro_pp_graphs.traces.explain.conclusion import conclusion
from repro_pp_graphs.traces.explain.pair_lines import MOST_ROWS, clocks, pairs
from repro_pp_graphs.traces.explain.token_return_words import delivered, sends_held
from repro_pp_graphs.traces.explain.words import (
    CAUSE_TITLES,
    GPU_IDLE,
    OWN_IDLE,
    ROW_TITLES,
    SOMETHING_ELSE,
    WIDTH,
    clock_doubt_us,
    column,
    count,
    gpu_idle_us,
    names_of,
    on_gpu,
    own_idle_us,
    share,
    time,
    wrapped,
)

# As many ranks fit beside one another in the table of turns.
RANKS_ABREAST = 4
# A wait that is at least this share of the turn has a line of its own.
WORTH_A_LINE = 0.02
# Of the call that blocks longest, what another must have to be named.
WORTH_NAMING = 0.01


def lines(facts: Analysis, tables: bool = True) -> list[str]:
    """Lines that show one case's analysis: what to make of it, tables where asked for, warnings."""
    found = [line for paragraph in conclusion(facts) for line in wrapped(paragraph)]
    numbers = (step_path.lines, _turns, _token_return, _ranks, pairs, clocks) if tables else ()
    for part in (*numbers, _warnings):
        text = part(facts)
        found += ["", *text] if text else []
    return found


def _shown(labels: list[str]) -> list[str]:
    """The ranks that the table of turns shows: all, or the first and the last three."""
    if len(labels) <= RANKS_ABREAST:
        return labels
    return [labels[0], *labels[1 - RANKS_ABREAST :]]


def _turns(facts: Analysis) -> list[str]:
    """Where each rank's host spends a turn: means and p99, ms; the means add up."""
    turns = facts.turns
    if not turns:
        return []
    labels = _shown(list(turns))
    left_out = len(turns) - len(labels)
    title = "a turn of each host's loop, ms"
    if left_out:
        title += f" ({left_out} more: --json)"
    head = "".join(f"{'PP' + label:>7}{'p99':>6}" for label in labels)
    found = [f"{title:<28}{head}"] if len(title) <= 28 else [title, f"{'':<28}{head}"]
    causes_shown = _causes(facts)
    rows = [name for name in ROW_TITLES if any(name in turns[label].rows for label in labels)]
    for name in rows:
        cells = [turns[label].rows.get(name) for label in labels]
        if not any(cell and cell.mean for cell in cells):
            continue
        found.append(f"{ROW_TITLES[name]:<28}" + "".join(_cell(cell) for cell in cells))
        for causes, text in causes_shown.items():
            waits = [sum(cell.waits.get(c, 0) for c in causes) if cell else 0 for cell in cells]
            lengths = [turns[label].mean for label in labels]
            if any(w >= WORTH_A_LINE * whole for w, whole in zip(waits, lengths, strict=True)):
                found.append(f"  {text:<26}" + "".join(_lone(us) for us in waits))
    found.append(f"{'the whole turn':<28}" + "".join(_cell(turns[label]) for label in labels))
    if on_gpu(facts):
        found += _idle_rows(facts, labels)
    found = [line.rstrip() for line in found]
    note = (
        "means, which add up, and p99; indented: what the host waits for in it, as far as the "
        "traces show"
    )
    returned = facts.token_return
    last = turns.get(str(returned.src)) if returned else None
    if returned and last and last.turns != returned.steps_counted:
        note += (
            f". PP{returned.src}'s rows are of the {last.turns} turns from one send of token ids "
            f"to the next, the token return below of all {returned.steps_counted} sends"
        )
    if facts.pp_size > 1:
        note += ". Token ids go from the last rank to PP0, and on from there"
    if facts.sends == "asynchronous":
        note += ". To a send's row belongs the later wait until it is done"
    if any(CAUSE_TITLES["otherwise"] in line for line in found):
        note += f". {SOMETHING_ELSE}"
    return found + wrapped(f"({note})", "")


def _idle_rows(facts: Analysis, labels: list[str]) -> list[str]:
    """How much of a turn no kernel of a rank runs; where ranks share a GPU, none of all there."""
    rows = {
        OWN_IDLE: [own_idle_us(facts, label) for label in labels],
        GPU_IDLE: [gpu_idle_us(facts, label) for label in labels],
    }
    return [
        f"  {title:<26}" + "".join(map(_lone, cells))
        for title, cells in rows.items()
        if any(us is not None for us in cells)
    ]


def _causes(facts: Analysis) -> dict[tuple[Cause, ...], str]:
    """The causes of waits that have a line each: with clocks apart it is not known when a peer
    was there, and so what of a wait was the transfer."""
    if not clock_doubt_us(facts.clocks, facts.hosts):
        return {(cause,): text for cause, text in CAUSE_TITLES.items()}
    found: dict[tuple[Cause, ...], str] = {("own_graph",): CAUSE_TITLES["own_graph"]}
    found["own_compute",] = CAUSE_TITLES["own_compute"]
    found["peer_late", "transfer"] = "for a peer, or transfer"
    return found | {("otherwise",): CAUSE_TITLES["otherwise"]}


def _lone(value_us: float | None) -> str:
    """A mean without a p99 beside it; nothing where it rounds to 0."""
    there = value_us is None or value_us >= 5
    return (column(value_us, 7) if there else " " * 7) + " " * 6


def _cell(cell: Row | Turn | None) -> str:
    if cell is None or not cell.mean:
        return " " * 13
    return column(cell.mean, 7) + column(cell.p99, 6)


def _token_return(facts: Analysis) -> list[str]:
    """The token return beside the numbers of #10865, ms: those with decode graphs, or of a case in
    which none ran the one without."""
    returned, held = facts.token_return, sends_held(facts)
    if returned is None or held is None:
        return []
    src, dst = f"PP{returned.src}", f"PP{returned.dst}"
    gpu = on_gpu(facts)
    found = [
        f"{f'token return {src} -> {dst}, ms ({returned.steps_counted} steps)':<42}"
        f"{'mean':>8}{'p99':>8}" + (f"{'in #10865':>11}" if gpu else "")
    ]

    def row(title: str, cell: Spread | None, issue: str = "") -> None:
        if cell:
            numbers = column(cell.mean, 8) + column(cell.p99, 8)
            found.append((f"{title:<42}{numbers}" + (f"{issue:>11}" if gpu else "")).rstrip())

    def portion(title: str, cells: Portion, theirs: tuple[str, str, str] = ("", "", "")) -> None:
        row(title, cells.send, theirs[0])
        if gpu:
            row("  its own decode graph runs meanwhile", cells.overlapped_with_graph, theirs[1])
            if not facts.shared_gpus:
                row(f"  {GPU_IDLE} meanwhile", cells.idle, theirs[2])
                return
            row(f"  {OWN_IDLE} meanwhile", cells.idle)
            row(f"  {GPU_IDLE} meanwhile", cells.idle_of_all, theirs[2])

    host, known, under_way = held[0], delivered(facts), False
    what = "the batch" if facts.sends == "batched" else "the send"
    bound = ", at most" if gpu and facts.sends == "batched" else ""
    graphs = any(facts.graph_launches.values())
    issue = ("100", "30", "70") if graphs else ("3", "", "")
    portion(f"{what} holds {src}'s host", host, issue)
    row("  in the copy of its metadata to the GPU", returned.upload_us)
    calls = [
        f"{call.name} {time(call.total_us / returned.steps_counted)} a step"
        for call in returned.blocking_calls[:3]
        if call.total_us >= WORTH_NAMING * returned.blocking_calls[0].total_us
    ]
    found += wrapped(f"the send blocks in {', '.join(calls)}", "  ") if calls else []
    if known:
        if known[0] == host:
            same = "as long as the send itself"
            found += [f"until the last byte has left{bound}: {same}"] if gpu else []
        elif gpu:  # gloo tells the sender with the receive that its message is over
            portion("until the last byte has left" + bound, known[0])
            parted = known[1].own_graph.mean < known[0].overlapped_with_graph.mean
            under_way = gpu and parted and known[0].send.mean > 1.1 * host.send.mean
        row(f"until {dst} has received it" + bound, returned.until_received_us)
    row(f"in prefill steps the send holds {src}'s host", returned.prefill_us, "3")
    if under_way:
        found += wrapped(
            "(The graph's time in these rows also counts while a send is under way; the sentence "
            "above counts it only while none is.)",
            "",
        )
    if gpu and returned.upload_us and returned.blocking_calls:
        found += wrapped(
            "(The copy waits for the batch, and the CUDA call is in the copy: these rows measure "
            "one wait in several ways. Do not add them up"
            f"{'. A graph runs while its kernels do, gaps between them left out' * graphs}.)",
            "",
        )
    return found


def _ranks(facts: Analysis) -> list[str]:
    gpu = on_gpu(facts)
    names = ("computes", "P2P only", "idle") if gpu else ("run_batch", "gloo recv", "other")
    names = (*names[:2], "neither") if facts.shared_gpus else names
    found = [
        f"{'rank':<6} batches {'graphs ' if gpu else ''}"
        + "".join(f"{name:>10}" for name in names)
        + "   decode steps"
    ]
    for label in _some(list(facts.ranks)):
        row = facts.ranks[label]
        graphs = f"{facts.graph_launches[label]:>7}" if gpu else ""
        cells = "".join(
            f"{share(part):>10}"
            for part in (row.busy_fraction, row.p2p_fraction, row.idle_fraction)
        )
        batches = "-" if row.batches is None else row.batches
        line = f"PP{label:<4} {batches:>7}{graphs} {cells}  "
        found.append((line + _sizes(row.decode_batch_sizes, WIDTH - len(line))).rstrip())
    if len(facts.ranks) > MOST_ROWS:
        found.append(f"({len(facts.ranks)} ranks in all: --json has each)")
    whole = "and steps are counted where a trace has them whole: they may differ by one or two"
    shares = "shares of the hosts' time; gloo recv: in gloo alone, the receives above hold more"
    note = f"batches, graphs {whole}" if gpu else f"{shares}; batches {whole}"
    return [*found, *_of_shared_gpus(facts), *wrapped(f"({note})", ""), *wrapped(_bubble(facts))]


def _of_shared_gpus(facts: Analysis) -> list[str]:
    """The shares of a GPU that several ranks use, or may use, together."""
    found = []
    for gpu in facts.shared_gpus:
        if gpu.busy_fraction is None:  # of what all of its ranks do too little is known
            continue
        shares = gpu.busy_fraction, gpu.p2p_fraction, gpu.idle_fraction
        what = "together" if gpu.shared else "if they share a GPU"
        head = f"{names_of(gpu.ranks)} {what}"
        cells = "".join(f"{share(part):>10}" for part in shares)
        found += [f"{head:<22}{cells}"] if len(head) <= 22 else [head, f"{'':<22}{cells}"]
    if found:
        found += wrapped(
            "(of a rank: its own kernels, its own P2P kernels alone, neither; together: those of "
            "any of these ranks, and the GPU idle)",
            "",
        )
    return found


def _bubble(facts: Analysis) -> str:
    """The share of the time without compute, of the GPUs; or that it cannot be told."""
    ring, gpu = facts.ring, on_gpu(facts)
    if not all(each.shared for each in facts.shared_gpus):
        text = "bubble: cannot tell, as ranks may share a GPU (above)"
        if any(each.shared for each in facts.shared_gpus):
            return text
        return f"{text}; if these ranks did have a GPU each, it is {share(own_bubble(facts))}"
    if facts.shared_gpus:
        return f"bubble {share(ring.bubble_fraction)} (no compute, mean of the GPUs)"
    what = "no compute" if gpu else "outside run_batch"
    text = f"bubble {share(ring.bubble_fraction)} ({what}, mean of the ranks)"
    if ring.micro_batches and facts.pp_size > 1:
        batches = count(ring.micro_batches, "micro-batch")
        stages = count(facts.pp_size, "stage")
        enough = ring.micro_batches >= facts.pp_size
        text += f"; {batches} in {stages} " + (
            "could keep every stage busy"
            if enough
            else f"leave {share(ring.ideal_bubble_fraction)} at least"
        )
    return text


def own_bubble(facts: Analysis) -> float | None:
    """The mean of the ranks' time without own kernels: the bubble where each has its own GPU."""
    busy = [row.busy_fraction for row in facts.ranks.values() if row.busy_fraction is not None]
    return 1 - sum(busy) / len(busy) if busy else None


def _some(labels: list[str]) -> list[str]:
    """All labels, or the first and the last few where there are too many to read."""
    return labels if len(labels) <= MOST_ROWS else [*labels[:4], *labels[-4:]]


def _sizes(steps: dict[str, int], width: int) -> str:
    """Decode steps by batch size; in brief where there are too many sizes for the width."""
    text = ", ".join(f"{number} at batch {size}" for size, number in steps.items())
    if len(text) <= width:
        return text
    brief = ", ".join(f"{number} at {size}" for size, number in steps.items())
    if len(brief) <= width:
        return brief
    sizes = [int(size) for size in steps]
    return f"{sum(steps.values())} at {min(sizes)} to {max(sizes)}"


def _warnings(facts: Analysis) -> list[str]:
    return [line for text in facts.warnings for line in wrapped(f"warning: {text}")]
