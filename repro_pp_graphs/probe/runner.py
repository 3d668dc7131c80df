"""Run a stage's decode step, eagerly or as a replayed CUDA graph."""

from __future__ import annotations

import torch
from torch import Tensor

from repro_pp_graphs.probe.model_stage import Stage

WARM_UPS = 2  # cuBLAS picks its kernels and workspaces before a capture


class Runner:
    """One stage; `capture` makes the graph that `run(graphs=True)` replays."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.graph: torch.cuda.CUDAGraph | None = None

    def capture(self) -> None:
        """Capture the step once for all micro-batches. Raises RuntimeError without CUDA."""
        stage = self.stage
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        stage.reset()
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                stage.forward()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            stage.forward()
        stage.reset()

    def run(self, turn: int, micro_batch: int, given: Tensor | None, graphs: bool) -> None:
        """Fill the inputs, then one step. `given`: token ids on the first rank, else None where the
        hidden states are in place already."""
        stage = self.stage
        stage.turn.fill_(turn)
        stage.micro_batch.copy_(stage.indices[micro_batch])
        if given is not None:
            (stage.tokens_in if stage.first else stage.hidden_in).copy_(given)
        if graphs and self.graph is not None:
            self.graph.replay()
        else:
            stage.forward()
