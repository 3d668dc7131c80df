"""A pipeline stage: transformer-shaped layers with made-up weights, the same on every rank.

All state is on the device and changed in place (key-value cache, positions, message counter), so
that one CUDA graph serves every micro-batch and every step, as sglang's decode graphs do.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

HEAD = 128
QUERIES_A_KEY = 4
SEED = 10865


@dataclass(frozen=True, slots=True)
class Shape:
    """The model: sizes in elements, `context` in tokens, dtype by torch's name."""

    hidden: int
    layers: int
    batch: int
    micro_batches: int
    steps: int
    dtype: str
    vocabulary: int = 8192
    context: int = 64

    @property
    def head(self) -> int:
        return min(HEAD, self.hidden // QUERIES_A_KEY)

    @property
    def heads(self) -> int:
        return self.hidden // self.head

    @property
    def key_heads(self) -> int:
        return max(1, self.heads // QUERIES_A_KEY)

    @property
    def inner(self) -> int:
        """Width of the MLP, 3.5 times the hidden size as in Llama-3-70B."""
        return self.hidden * 7 // 2 // 8 * 8

    @property
    def length(self) -> int:
        """Tokens a sequence can grow to."""
        return self.context + self.steps


def layers_of(rank: int, ranks: int, layers: int) -> range:
    """The layers of a rank: equal shares, the first ranks take what is left over."""
    share, rest = divmod(layers, ranks)
    first = rank * share + min(rank, rest)
    return range(first, first + share + (rank < rest))


def _made_up(seed: int, device: torch.device, dtype: torch.dtype, *size: int) -> Tensor:
    # The seed, not the rank, decides: so a single process builds the same weights.
    generator = torch.Generator(device).manual_seed(SEED + seed)
    made = torch.empty(size, dtype=dtype, device=device)
    return made.normal_(0, size[-1] ** -0.5, generator=generator)


def _norm(x: Tensor) -> Tensor:
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6)).to(x.dtype)


class Layer:
    """Attention over a cache of all micro-batches, then a gated MLP."""

    def __init__(self, shape: Shape, number: int, device: torch.device) -> None:
        dtype = getattr(torch, shape.dtype)
        kv = shape.key_heads * shape.head
        seeds = iter(range(number * 16, number * 16 + 16))

        def make(*size: int) -> Tensor:
            return _made_up(next(seeds), device, dtype, *size)

        self.shape = shape
        self.qkv = make(shape.hidden + 2 * kv, shape.hidden)
        self.out = make(shape.hidden, shape.hidden)
        self.gate_up = make(2 * shape.inner, shape.hidden)
        self.down = make(shape.hidden, shape.inner)
        rows = shape.micro_batches * shape.batch
        self.keys = make(rows, shape.length, shape.key_heads, shape.head)
        self.values = make(rows, shape.length, shape.key_heads, shape.head)

    def __call__(self, x: Tensor, rows: Tensor, position: Tensor, visible: Tensor) -> Tensor:
        """x (batch, hidden); rows (batch) of the cache; position (batch); visible (1, length)."""
        shape = self.shape
        kv = shape.key_heads * shape.head
        query, key, value = (_norm(x) @ self.qkv.T).split([shape.hidden, kv, kv], dim=-1)
        heads = (len(x), shape.key_heads, shape.head)
        self.keys.index_put_((rows, position), key.view(heads))
        self.values.index_put_((rows, position), value.view(heads))
        query = query.view(len(x), shape.key_heads, -1, shape.head)
        scores = query @ self.keys[rows].permute(0, 2, 3, 1) * shape.head**-0.5
        scores = scores.masked_fill(~visible, float("-inf")).float().softmax(-1).to(x.dtype)
        mixed = scores @ self.values[rows].transpose(1, 2)
        x = x + mixed.reshape(len(x), shape.hidden) @ self.out.T
        gate, up = (_norm(x) @ self.gate_up.T).chunk(2, dim=-1)
        return x + (torch.nn.functional.silu(gate) * up) @ self.down.T


class Stage:
    """The layers of one rank with their inputs and outputs, all at fixed addresses.

    `hidden_in`, `hidden_out`: (batch + 1, hidden), `tokens_in`, `tokens_out`: (batch + 1). The last
    row or element carries the message's number, so that a message taken for another is seen.
    """

    def __init__(self, shape: Shape, rank: int, ranks: int, device: torch.device) -> None:
        dtype = getattr(torch, shape.dtype)
        self.shape, self.device = shape, device
        self.first, self.last = rank == 0, rank == ranks - 1
        self.layers = [Layer(shape, n, device) for n in layers_of(rank, ranks, shape.layers)]
        vocabulary = (shape.vocabulary, shape.hidden)
        self.embedding = _made_up(10**6, device, dtype, *vocabulary) if self.first else None
        self.head = _made_up(10**6 + 1, device, dtype, *vocabulary) if self.last else None
        sizes = (shape.batch + 1, shape.hidden)
        self.hidden_in = torch.zeros(sizes, dtype=dtype, device=device)
        self.hidden_out = torch.zeros(sizes, dtype=dtype, device=device)
        self.tokens_in = torch.zeros(shape.batch + 1, dtype=torch.long, device=device)
        self.tokens_out = torch.zeros(shape.batch + 1, dtype=torch.long, device=device)
        self.micro_batch = torch.zeros(1, dtype=torch.long, device=device)
        self.positions = torch.zeros(shape.micro_batches, dtype=torch.long, device=device)
        self.turn = torch.zeros(1, dtype=torch.long, device=device)
        self.wrong = torch.zeros(1, dtype=torch.long, device=device)
        self.indices = [
            torch.tensor([m], dtype=torch.long, device=device) for m in range(shape.micro_batches)
        ]
        self._offsets = torch.arange(shape.batch, device=device)
        self._cells = torch.arange(shape.length, device=device).unsqueeze(0)

    def reset(self) -> None:
        """Back to before the first step."""
        self.positions.fill_(self.shape.context)
        self.wrong.zero_()

    def start_tokens(self, micro_batch: int) -> Tensor:
        """The token ids that a micro-batch starts from, (batch + 1)."""
        first = micro_batch * 7919
        ids = [(first + n * 104729) % self.shape.vocabulary for n in range(self.shape.batch)]
        return torch.tensor([*ids, -1], dtype=torch.long, device=self.device)

    def forward(self) -> None:
        """One decode step of the micro-batch that `micro_batch` names; reads and writes in place.

        `turn` is the number the outgoing message gets, and the incoming hidden states must have.
        """
        batch = self.shape.batch
        position = self.positions[self.micro_batch].expand(batch)
        rows = self.micro_batch * batch + self._offsets
        visible = (self._cells <= position[:1, None]).unsqueeze(1).unsqueeze(1)
        if self.embedding is not None:
            x = self.embedding[self.tokens_in[:batch]]
        else:
            x = self.hidden_in[:batch]
            self.wrong += self.number_of(self.hidden_in) != self.turn
        for layer in self.layers:
            x = layer(x, rows, position, visible)
        if self.head is not None:
            self.tokens_out[:batch] = (_norm(x) @ self.head.T).float().argmax(-1)
            self.tokens_out[batch:] = self.turn
        else:
            self.hidden_out[:batch] = x
            self.number_of(self.hidden_out).copy_(self.turn)
        self.positions.index_add_(0, self.micro_batch, torch.ones_like(self.micro_batch))

    def number_of(self, hidden: Tensor) -> Tensor:
        """The message's number in the last row of hidden states: a view of one int64."""
        return hidden[self.shape.batch].view(torch.long)[:1]


def reference_tokens(shape: Shape, ranks: int, device: torch.device) -> list[list[list[int]]]:
    """Token ids of a single process without messages, graphs or threads: [micro-batch][step][n]."""
    stages = [Stage(shape, rank, ranks, device) for rank in range(ranks)]
    tokens = [stages[0].start_tokens(m) for m in range(shape.micro_batches)]
    found: list[list[list[int]]] = [[] for _ in tokens]
    for stage in stages:
        stage.reset()
    for _ in range(shape.steps):
        for m in range(shape.micro_batches):
            stages[0].tokens_in.copy_(tokens[m])
            for before, stage in zip([None, *stages], stages, strict=False):
                if before is not None:
                    stage.hidden_in.copy_(before.hidden_out)
                stage.micro_batch.copy_(stage.indices[m])
                stage.forward()
            tokens[m] = stages[-1].tokens_out.clone()
            found[m].append(tokens[m][: shape.batch].tolist())
    return found
