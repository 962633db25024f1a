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
import torch.nn.functional as F
from torch import Tensor, nn

from wenlu.base.errors import UserError
from wenlu.models.cache import LSTMState
from wenlu.models.config import ModelConfig

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
        x = F.dropout(self.embed(ids), self.config.dropout, self.training).transpose(0, 1)
        zeros = x.new_zeros(x.shape[1], self.config.dim)
        states = [(zeros, zeros)] * len(self.layers)
        if cache is not None and cache.length:
            states = list(zip(cache.hidden, cache.cell, strict=True))
        after = []
        for layer, state in zip(self.layers, states, strict=True):
            x, *state = layer(x, *state)
            x = F.dropout(x, self.config.dropout, self.training)
            after.append(state)
        if cache is not None:
            cache.hidden, cache.cell = [list(kind) for kind in zip(*after, strict=True)]
            cache.length += ids.shape[1]
        return x.transpose(0, 1)

    def head(self, hidden: Float[Tensor, "... dim"]) -> Float[Tensor, "... vocab"]:
        """Logits of the next token: Σ wᵢ hᵢ + b."""
        return F.linear(hidden, self.embed.weight if self.lm_head is None else self.lm_head.weight, self.head_bias)

    def forward(self, ids: Int[Tensor, "batch seq"], **context) -> Float[Tensor, "batch seq vocab"]:
        return self.head(self.hidden(ids, **context))

    def new_cache(self, batch: int, length: int = 0) -> LSTMState:
        """The state before any text; an LSTM's takes the same room for texts of every `batch` and `length`."""
        return LSTMState()


class Layer(nn.Module):
    """One LSTM layer; its gates stand one below the other in the rows of `w`, `u` and `b`: i, f, o, g."""

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
        inputs = F.linear(x, self.w, self.b)
        with torch.autocast(x.device.type, enabled=False):
            outputs, cells = _Recurrence.apply(inputs.to(self.u.dtype), self.u, h.to(self.u.dtype), c.to(self.u.dtype))
        return outputs, outputs[-1], cells[-1]


class _Recurrence(torch.autograd.Function):
    """The loop over time: W x + b of all steps in, h and c of all steps out.

    Autograd would sum U's gradient step by step. Here the backward loop only carries ∂L/∂h and ∂L/∂c back through
    time, and U's gradient, Σₜ ∂L/∂gatesₜᵀ hₜ₋₁, is one product at the end.
    """

    @staticmethod
    def forward(context, inputs, u, h, c):
        seq, batch, rows = inputs.shape
        dim = rows // 4
        gates = torch.empty_like(inputs)
        outputs, cells, tanhs = (inputs.new_empty(seq, batch, dim) for _ in range(3))
        first, transposed = (h, c), u.T
        for t in range(seq):
            gate = torch.addmm(inputs[t], h, transposed, out=gates[t])
            gate[:, : 3 * dim].sigmoid_()
            gate[:, 3 * dim :].tanh_()
            i, f, o, g = gate.split(dim, dim=1)
            c = torch.mul(f, c, out=cells[t]).addcmul_(i, g)
            h = torch.mul(o, torch.tanh(c, out=tanhs[t]), out=outputs[t])
        context.save_for_backward(u, gates, outputs, cells, tanhs, *first)
        return outputs, cells

    @staticmethod
    def backward(context, of_outputs, of_cells):
        u, gates, outputs, cells, tanhs, h_0, c_0 = context.saved_tensors
        seq, dim = len(gates), gates.shape[2] // 4
        of_gates = torch.empty_like(gates)
        of_h, of_c = torch.zeros_like(h_0), torch.zeros_like(c_0)
        for t in reversed(range(seq)):
            i, f, o, g = gates[t].split(dim, dim=1)
            to_i, to_f, to_o, to_g = of_gates[t].split(dim, dim=1)
            of_h = of_outputs[t] + of_h
            torch.mul(of_h, tanhs[t], out=to_o)
            of_c = (of_c + of_cells[t]).add_(torch.ops.aten.tanh_backward(of_h * o, tanhs[t]))
            torch.mul(of_c, g, out=to_i)
            torch.mul(of_c, cells[t - 1] if t else c_0, out=to_f)
            torch.mul(of_c, i, out=to_g)
            of_c = of_c * f
            squashed = of_gates[t][:, : 3 * dim]
            torch.ops.aten.sigmoid_backward.grad_input(squashed, gates[t][:, : 3 * dim], grad_input=squashed)
            torch.ops.aten.tanh_backward.grad_input(to_g, g, grad_input=to_g)
            of_h = of_gates[t] @ u
        before = torch.cat((h_0[None], outputs[:-1]))
        of_u = of_gates.flatten(0, 1).T @ before.flatten(0, 1)
        return of_gates, of_u, of_h, of_c
