"""The LSTM language model (Hochreiter & Schmidhuber 1997; Gers et al. 2000): embedding → n layers → linear.

A neuron is y = f(Σ wᵢ xᵢ + b). Each of an LSTM layer's four gates is `dim` such neurons, which look at the token's
input xₜ and at what the layer said before, hₜ₋₁:

    iₜ = σ(Wᵢ xₜ + Uᵢ hₜ₋₁ + bᵢ)        what to take in
    fₜ = σ(W_f xₜ + U_f hₜ₋₁ + b_f)      what to keep
    gₜ = tanh(W_g xₜ + U_g hₜ₋₁ + b_g)   what is new
    oₜ = σ(Wₒ xₜ + Uₒ hₜ₋₁ + bₒ)        what to say
    cₜ = fₜ cₜ₋₁ + iₜ gₜ                 the memory
    hₜ = oₜ tanh(cₜ)                     the output, the next layer's xₜ
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from wenlu.base.errors import UserError
from wenlu.models.cache import LSTMState
from wenlu.models.config import ModelConfig
from wenlu.models.layers import dropout, project

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class LSTM(nn.Module):
    """logits = head(hidden(ids)). The state starts at zero, unless a cache holds that of the text so far."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config = config.resolved()
        self.embed = nn.Embedding(config.vocab, config.dim)
        self.layers = nn.ModuleList(Layer(config.dim) for _ in range(config.layers))
        self.lm_head = None if config.tied else nn.Linear(config.dim, config.vocab, bias=False)
        self.head_bias = nn.Parameter(torch.zeros(config.vocab))

    def hidden(
        self, ids: Int[Tensor, "batch seq"], positions=None, segments=None, cache: LSTMState | None = None
    ) -> Float[Tensor, "batch seq dim"]:
        """The last layer's outputs. An LSTM knows positions by itself; `cache` is read and brought up to date."""
        if positions is not None or segments is not None:
            raise UserError("an LSTM reads one text from its beginning on: it takes no positions and no segments")
        x = dropout(self.embed(ids), self.config.dropout, self.training).transpose(0, 1)
        zeros = x.new_zeros(x.shape[1], self.config.dim)
        states = [(zeros, zeros)] * len(self.layers)
        if cache is not None and cache.length:
            states = list(zip(cache.hidden, cache.cell, strict=True))
        after = []
        for layer, state in zip(self.layers, states, strict=True):
            x, *state = layer(x, *state)
            x = dropout(x, self.config.dropout, self.training)
            after.append(state)
        if cache is not None:
            cache.hidden, cache.cell = [list(kind) for kind in zip(*after, strict=True)]
            cache.length += ids.shape[1]
        return x.transpose(0, 1)

    def head(self, hidden: Float[Tensor, "... dim"]) -> Float[Tensor, "... vocab"]:
        """Logits of the next token: Σ wᵢ hᵢ + b."""
        return project(hidden, self.lm_head or self.embed, self.head_bias)

    def forward(self, ids: Int[Tensor, "batch seq"], **context) -> Float[Tensor, "batch seq vocab"]:
        return self.head(self.hidden(ids, **context))

    def new_cache(self, batch: int, length: int = 0) -> LSTMState:
        """The state before any text; an LSTM's takes the same room for texts of every `batch` and `length`."""
        return LSTMState()


class Layer(nn.Module):
    """One LSTM layer; its gates stand one below the other in the rows of `w`, `u` and `b`: i, f, g, o.

    The loop over time is torch's own, one fused operator (oneDNN on a processor, cuDNN on a GPU).
    """

    def __init__(self, dim: int):
        super().__init__()
        self.w = nn.Parameter(torch.empty(4 * dim, dim))
        self.u = nn.Parameter(torch.empty(4 * dim, dim))
        self.b = nn.Parameter(torch.zeros(4 * dim))
        self.stacked = {"w": (dim,) * 4, "u": (dim,) * 4}

    def forward(
        self, x: Float[Tensor, "seq batch dim"], h: Float[Tensor, "batch dim"], c: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "seq batch dim"], Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
        """Outputs at every step, and the last hidden state and cell."""
        return self.run(x, h, c, self.w, self.u, self.b)

    @staticmethod
    def run(x: Tensor, h: Tensor, c: Tensor, w: Tensor, u: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A layer with these weights."""
        with torch.autocast(x.device.type, enabled=False):
            outputs, h, c = torch.lstm(
                x.to(w.dtype),
                (h[None].to(w.dtype), c[None].to(w.dtype)),
                (w, u, b, torch.zeros_like(b)),
                has_biases=True,
                num_layers=1,
                dropout=0.0,
                train=torch.is_grad_enabled(),  # whether a backward pass may follow; there is no dropout inside
                bidirectional=False,
                batch_first=False,
            )
        return outputs, h[0], c[0]


def step(
    gates: Float[Tensor, "batch gates"], c: Float[Tensor, "batch dim"]
) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
    """The new hidden state and cell from the gates' sums W x + U h + b: one token, where products are made apart."""
    i, f, g, o = gates.chunk(4, dim=-1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c
