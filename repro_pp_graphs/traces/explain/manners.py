"""What the host does in a trace's token sends, by how they behave, and which releases do so."""

from __future__ import annotations

from repro_pp_graphs.traces.analysis_record import Analysis, Manner
from repro_pp_graphs.traces.explain.words import WORTH_SAYING

# manner -> what it means, with the releases whose source does so
MEANING: dict[Manner, str] = {
    "on_device": "the send blocks: its metadata is first copied to the GPU (as in sglang 0.5.2 and "
    "with the shim sync_send)",
    "synchronous": "the send waits for gloo only (as in sglang 0.5.3 to 0.5.6): the host waits for "
    "the GPU in a later call",
    "asynchronous": "the send does not hold the host (as from sglang 0.5.7): the token ids leave "
    "when the GPU has computed them",
    "batched": "token ids go in one batch with what is received (batch_isend_irecv): they leave "
    "when the GPU has computed them",
    "unknown": "how the send behaves is not known",
}
WITHOUT_WAIT = (
    "the send's metadata is copied to the GPU, and the host does not wait for that (as with the "
    "shim event_send: pinned memory): it waits for its peer and the transfer only"
)
COPY_UNSEEN = (
    "the send's metadata is sent from the GPU; the copy to it for which the host waits in sglang "
    "0.5.2 is not in the trace"
)


def meaning(facts: Analysis) -> str:
    """What the host does in a trace's token sends, in a sentence without its full stop."""
    returned = facts.token_return
    if facts.sends != "on_device" or returned is None or returned.upload_us:
        return MEANING[facts.sends]
    held, split = returned.host_us, returned.split_us
    if held is None or split is None or not returned.enough:
        return COPY_UNSEEN
    own = (split.blocked_on_own_graph, split.blocked_on_own_compute, split.blocked_otherwise)
    waits = sum(each.mean for each in own) > WORTH_SAYING * held.send.mean
    return COPY_UNSEEN if waits else WITHOUT_WAIT
