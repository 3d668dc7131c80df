"""What pp_clock's calls are called in a report, and their colours there (web/src/report.css)."""

from __future__ import annotations

# kind of call -> (title, colour)
KINDS = {
    "send_tokens": ("send of token ids", "token_send"),
    "wait_sent_tokens": ("wait for an earlier send of token ids", "otherwise"),
    "recv_tokens": ("receive of token ids", "token_recv"),
    "send_hidden": ("send of hidden states", "hidden_send"),
    "wait_sent_hidden": ("wait for an earlier send of hidden states", "path_queueing"),
    "recv_hidden": ("receive of hidden states", "hidden_recv"),
    "exchange": ("sends and receives, a batch", "exchange"),
    "send_requests": ("send of requests", "requests"),
    "wait_sent_requests": ("wait for an earlier send of requests", "transfer"),
    "recv_requests": ("receive of requests", "peer_late"),
    "wait_results": ("wait for results", "results"),
    "launch": ("launch of the batch", "launch"),
    "process": ("work on results (sglang 0.5.6 and older wait for them here)", "host"),
}
REST = ("the rest: Python", "python")


def peer(kind: str, pp_rank: int, pp_size: int) -> int | None:
    """The PP rank that a rank waits for in a kind of call, as messages go round the ring; None for
    what is its own."""
    step = {"send": 1, "wait_sent": 1, "recv": -1}.get(kind.rpartition("_")[0])
    return None if step is None else (pp_rank + step) % pp_size
