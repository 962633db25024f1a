"""Where a token stands: rotary positions (Su et al. 2021) in the half-split form of Llama, and T5's relative ones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from wenlu.models.config import ModelConfig, RopeScaling
from wenlu.models.layers import by_hand

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class Rotary(nn.Module):
    """Tables of cos(p · θ^(−2i/d)) and sin for positions p and pairs i; they grow when a longer text comes."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.head_dim, self.theta, self.scaling = config.head_dim, config.rope_theta, config.rope
        self.register_buffer("cos", torch.empty(0), persistent=False)
        self.register_buffer("sin", torch.empty(0), persistent=False)
        self.extend(config.context)

    def _apply(self, function, recurse=True):
        """Moved with the model, but never rounded: in bf16 the angles of neighbouring positions would be one."""
        super()._apply(function, recurse)
        if self.cos.dtype != torch.float32:
            length, device = len(self.cos), self.cos.device
            self.cos = self.sin = torch.empty(0, device=device)
            self.extend(length)
        return self

    def extend(self, length: int) -> None:
        """Make the tables at least `length` positions long. Angles are computed in f32, as Transformers does."""
        if length <= len(self.cos):
            return
        length = max(length, 2 * len(self.cos))
        device = self.cos.device
        with torch.inference_mode(False):
            pairs = torch.arange(0, self.head_dim, 2, dtype=torch.float32, device=device) / self.head_dim
            frequencies = scaled(1.0 / self.theta**pairs, self.theta, self.scaling)
            angles = torch.outer(torch.arange(length, dtype=torch.float32, device=device), frequencies)
            self.cos, self.sin = angles.cos() * self.scaling.attention, angles.sin() * self.scaling.attention

    def forward(
        self, x: Float[Tensor, "batch seq heads head_dim"], positions: Int[Tensor, "batch seq"] | slice
    ) -> Float[Tensor, "batch seq heads head_dim"]:
        """Turn each pair (xᵢ, xᵢ₊d/₂) of every head by its position's angle."""
        cos, sin = self.cos[positions].unsqueeze(-2), self.sin[positions].unsqueeze(-2)
        if by_hand(x):
            return _Rotate.apply(x, cos, sin)
        first, second = x.chunk(2, dim=-1)
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)


def scaled(frequencies: Float[Tensor, " pairs"], theta: float, scaling: RopeScaling) -> Float[Tensor, " pairs"]:
    """Angles per token, slowed down as `scaling` says; the formulas are those of Transformers' modeling_rope_utils."""
    slow = frequencies / scaling.factor
    if scaling.kind == "none":
        return frequencies
    if scaling.kind == "linear":
        return slow
    if scaling.kind == "llama3":
        turns = scaling.context * frequencies / (2 * math.pi)
        kept = ((turns - scaling.low) / (scaling.high - scaling.low)).clamp(0, 1)
        return torch.lerp(slow, frequencies, kept)

    def pair(turns: float) -> float:
        """The pair that makes so many turns in the old context."""
        return len(frequencies) * math.log(scaling.context / (turns * 2 * math.pi)) / math.log(theta)

    first, last = pair(scaling.high), pair(scaling.low)
    if scaling.whole_pairs:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * len(frequencies) - 1)
    width = last - first or 0.001
    kept = 1 - ((torch.arange(len(frequencies), device=frequencies.device) - first) / width).clamp(0, 1)
    return torch.lerp(slow, frequencies, kept)


class _Rotate(torch.autograd.Function):
    """A rotation; its gradient is turned back by the same angles."""

    @staticmethod
    def forward(context, x, cos, sin):
        context.save_for_backward(cos, sin)
        return _turn(x, cos, sin, 1.0)

    @staticmethod
    def backward(context, gradient):
        return _turn(gradient, *context.saved_tensors, -1.0), None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor, direction: float) -> Tensor:
    result = torch.empty_like(x)
    (first, second), (to_first, to_second) = x.chunk(2, dim=-1), result.chunk(2, dim=-1)
    torch.mul(first, cos, out=to_first).addcmul_(second, sin, value=-direction)
    torch.mul(second, cos, out=to_second).addcmul_(first, sin, value=direction)
    return result


class RelativePositions(nn.Module):
    """T5's bias of attention's weights (Raffel et al. 2020, section 2.1): a learned number for each head and bucket.

    A bucket is a distance j − i between the token that looks, i, and the one looked at, j: near ones are told apart
    one by one, those from buckets/4 on (decoder: buckets/2) by their logarithm, up to `distance`; all beyond are one.
    The encoder has its buckets half for tokens before, half for tokens after; the decoder looks at those before only.
    """

    def __init__(self, config: ModelConfig, both_ways: bool):
        super().__init__()
        self.embed = nn.Embedding(config.buckets, config.heads)
        self.distance = config.distance
        distances = torch.arange(-config.distance, config.distance + 1)
        self.register_buffer("bucket", _bucket(distances, both_ways, config.buckets, config.distance), persistent=False)

    def forward(self, places: slice | Int[Tensor, "rows new"], whole: int) -> Float[Tensor, "*rows heads new whole"]:
        """For tokens at these places, what is added to their weights of all `whole` tokens."""
        if isinstance(places, Tensor):
            distances = torch.arange(whole, device=places.device) - places[:, :, None]
            return self._biases(distances).movedim(-1, 1)
        # One row of biases by distance, cut into a window for each token: its backward pass is one of a short table.
        distances = torch.arange(1 - whole, whole - places.start, device=self.bucket.device)
        return self._biases(distances).T.unfold(-1, whole, 1).flip(-2)

    def _biases(self, distances: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape heads"]:
        return self.embed(self.bucket[distances.clamp(-self.distance, self.distance) + self.distance])


def _bucket(distances: Tensor, both_ways: bool, buckets: int, distance: int) -> Tensor:
    """As Transformers' `_relative_position_bucket` numbers them, its roundings too."""
    offset = torch.zeros_like(distances)
    if both_ways:
        buckets //= 2
        offset = (distances > 0) * buckets
        distances = distances.abs()
    else:
        distances = -distances.clamp(max=0)
    exact = buckets // 2
    far = exact + ((distances / exact).log() / math.log(distance / exact) * (buckets - exact)).long()
    return offset + torch.where(distances < exact, distances, far.clamp(max=buckets - 1))
