"""How the next token is chosen from logits: the best one, or a draw after the usual filters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from wenlu.base.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


EPSILON = 1e-4
"""How far a logit in f32 may be from what it is alone (law 8)."""


_MANY, _BLOCK = 1 << 17, 128
"""From so many logits on they are looked through in blocks of so many for the largest."""


class Choice(NamedTuple):
    """What was chosen, one id a row."""

    ids: Int[Tensor, " batch"]
    margin: Float[Tensor, " batch"]
    """How near another choice was: between the two best logits, or from a draw to the border of its token's part of
    [0, 1), less what those tokens hold that may lie on the other side of a cut. Borders that logits which are ε off
    would move by more than 2 ε (at temperatures below 1/4) count as nearer, by as much."""


@dataclass(frozen=True)
class Greedy:
    """Always the token with the largest logit; of equal ones, the one with the smallest id."""

    def choose(
        self,
        logits: Float[Tensor, "batch vocab"],
        generator: torch.Generator | Sequence[torch.Generator | None] | None = None,
    ) -> Choice:
        """The chosen ids; `generator` is not used. Raises UserError where a logit is NaN or +inf, or all are barred
        (-inf)."""
        ids, best, second = two_best(logits)
        _check(best)
        return Choice(ids, best - second)


@dataclass(frozen=True)
class Sampling:
    """A draw from softmax(logits / temperature), restricted by top_k, then top_p, then min_p.

    This is the order of Transformers' `generate`: each filter sees the probabilities that the one before it left.
    """

    temperature: float = 1.0
    """Above 0; below 1 sharpens, above 1 flattens. (0 is `Greedy`: see `strategy`.)"""
    top_k: int = 0
    """Keep the k most probable tokens (and whatever equals the last of them); 0 = all, 1 = greedy."""
    top_p: float = 1.0
    """Keep the fewest most probable tokens that hold this much probability (Holtzman et al. 2020); 1 = all."""
    min_p: float = 0.0
    """Drop tokens less probable than min_p times the most probable one (Nguyen et al. 2024); 0 = none."""

    def __post_init__(self):
        if not (0 < self.temperature < math.inf):
            raise UserError(f"temperature must be 0 (greedy) or a positive number, not {self.temperature}")
        if self.top_k < 0:
            raise UserError(f"top_k must be 0 (all tokens) or a positive whole number, not {self.top_k}")
        if not (0 < self.top_p <= 1):
            raise UserError(f"top_p must lie in (0, 1], where 1 keeps all tokens, not {self.top_p}")
        if not (0 <= self.min_p < 1):
            raise UserError(f"min_p must lie in [0, 1), where 0 keeps all tokens, not {self.min_p}")

    def probabilities(self, logits: Float[Tensor, "batch vocab"]) -> Float[Tensor, "batch vocab"]:
        """What `choose` draws from, in f64 (so that no positive temperature overflows)."""
        return self._cut(logits)[0].softmax(-1)

    def _cut(
        self, logits: Float[Tensor, "batch vocab"]
    ) -> tuple[Float[Tensor, "batch vocab"], Float[Tensor, "batch 1"]]:
        """Scores, -inf of what is dropped, and what those tokens hold, as a part of what is left, that may lie on the
        other side of a cut where logits are ε off: two of them then change places within 2 ε."""
        scores = _open(logits).double()
        scores = whole = (scores - scores.amax(-1, keepdim=True)) / self.temperature
        blur = 2 * EPSILON / self.temperature
        unsure = torch.zeros(1, 1, dtype=torch.bool, device=scores.device)
        if 0 < self.top_k < scores.shape[-1]:
            best = scores.topk(self.top_k + 1).values
            if (best[:, -2] - best[:, -1] <= blur).any():
                unsure = _around(scores, best[:, -1:], best[:, -2:-1], blur)
            scores = scores.masked_fill(scores < best[:, -2:-1], -torch.inf)
        if self.top_p < 1:
            ascending, order = scores.sort()
            reach = ascending.softmax(-1).cumsum(-1)
            drop = reach <= 1 - self.top_p
            drop[:, -1] = False
            most = self.top_p * (1 - self.top_p) * blur + _part(whole, unsure, scores)
            moved = ((reach - (1 - self.top_p)).abs() <= most) & (ascending > -torch.inf)
            first = drop.sum(-1, keepdim=True)
            below = ascending.gather(1, (first - 1).clamp(min=0)).masked_fill(first == 0, -torch.inf)
            moved |= _around(ascending, below, ascending.gather(1, first), blur)
            unsure = unsure | moved.scatter(1, order, moved)
            scores = scores.masked_fill(drop.scatter(1, order, drop), -torch.inf)
        if self.min_p > 0:
            chances = scores.softmax(-1)
            unsure = unsure | ((scores - math.log(self.min_p)).abs() <= blur)
            scores = scores.masked_fill(chances < self.min_p * chances.amax(-1, keepdim=True), -torch.inf)
        return scores, _part(whole, unsure, scores)

    def choose(
        self,
        logits: Float[Tensor, "batch vocab"],
        generator: torch.Generator | Sequence[torch.Generator | None] | None = None,
    ) -> Choice:
        """One drawn id a row.

        `generator` lives on the CPU: one for all rows, one for each, or None for torch's own. A row takes one number
        u ∈ [0, 1) and gets the first id at which the cumulative probability exceeds u, so a row's draw depends on
        its own generator alone, and is the same on every device. Raises UserError where a logit is NaN or +inf, or all
        are barred (-inf).
        """
        if self.top_k == 1:
            return Greedy().choose(logits)
        scores, unsure = self._cut(logits)
        reach = scores.softmax(-1).cumsum(-1)
        whole = reach[:, -1:]
        goal = torch.minimum(_draws(len(logits), generator).to(whole.device) * whole, whole.nextafter(0 * whole))
        ids = torch.searchsorted(reach, goal, right=True)
        above, below = reach.gather(1, ids), torch.where(ids > 0, reach.gather(1, (ids - 1).clamp(min=0)), 0)
        # The first number of the first token that can be drawn, and the last of the last, are no borders, unless others
        # may come before or after them.
        above = torch.where((above < whole) | (unsure > 0), above, torch.inf)
        below = torch.where((below > 0) | (unsure > 0), below, -torch.inf)
        margin = torch.minimum((above - goal) / self._moves(above), (goal - below) / self._moves(below)) - unsure
        return Choice(ids.squeeze(-1), margin.squeeze(-1))

    def _moves(self, border: Float[Tensor, "batch 1"]) -> Float[Tensor, "batch 1"]:
        """By how many times 2 ε logits that are ε off move a border, at least one: d c = c (1 - c) d score."""
        return (border * (1 - border) / self.temperature).clamp(min=1)


Strategy = Greedy | Sampling
GREEDY = Greedy()


def strategy(temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> Strategy:
    """`Greedy` where the settings leave nothing to chance (temperature 0, or top_k 1), else `Sampling`."""
    sampling = Sampling(temperature if temperature != 0 else 1.0, top_k, top_p, min_p)
    return Greedy() if temperature == 0 or top_k == 1 else sampling


def row_generators(seed: int, rows: int) -> list[torch.Generator]:
    """A generator for each row: row k is the same however many rows there are."""
    return [row_generator(seed, row) for row in range(rows)]


def row_generator(seed: int, row: int) -> torch.Generator:
    """The generator of one row of a seed."""
    # One 64-bit word from both, mixed as in SplitMix64, since neighbouring seeds must not give neighbouring streams.
    return torch.Generator().manual_seed(_mix(_mix(seed) + row) >> 1)


def _mix(value: int) -> int:
    mask = (1 << 64) - 1
    value = (value + 0x9E3779B97F4A7C15) & mask
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
    return value ^ (value >> 31)


def _draws(rows: int, generator: torch.Generator | Sequence[torch.Generator | None] | None) -> Float[Tensor, "batch 1"]:
    if generator is None or isinstance(generator, torch.Generator):
        return torch.rand(rows, 1, dtype=torch.float64, generator=generator)
    assert len(generator) == rows, f"{len(generator)} generators for {rows} rows"
    return torch.stack([torch.rand(1, dtype=torch.float64, generator=one) for one in generator])


def _around(
    scores: Float[Tensor, "batch vocab"],
    below: Float[Tensor, "batch 1"],
    above: Float[Tensor, "batch 1"],
    blur: float,
) -> Bool[Tensor, "batch vocab"]:
    """Those that lie at a cut between two scores, where these are so near that they may change places."""
    return (above - below <= blur) & (scores >= below - blur) & (scores <= above + blur)


def _part(
    scores: Float[Tensor, "batch vocab"], some: Bool[Tensor, "#batch #vocab"], left: Float[Tensor, "batch vocab"]
) -> Float[Tensor, "batch 1"]:
    """The probability of some tokens, mostly none, as a part of what is left."""
    if not some.any():
        return scores.new_zeros(len(scores), 1)
    return (scores.exp() * some).sum(-1, keepdim=True) / left.exp().sum(-1, keepdim=True)


def finite(logits: Tensor) -> Tensor:
    """The same logits; raises UserError where one is not finite."""
    if not torch.isfinite(logits).all():
        raise UserError(
            "the model's logits are not finite (NaN or infinity), so no token can be chosen: "
            "its weights have diverged, use an earlier checkpoint"
        )
    return logits


def two_best(
    logits: Float[Tensor, "batch vocab"],
) -> tuple[Int[Tensor, " batch"], Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """The first of the largest logits of each row, its value, and the next largest (-inf where there is one only).

    Many are looked through block by block: the largest value alone is found at many times the speed of its place, or of
    the two largest.
    """
    if logits.numel() < _MANY:
        best, ids = logits.max(-1)  # the first of equal ones, in a part of argmax's time
        single = logits.shape[-1] == 1
        return ids, best, torch.full_like(best, -torch.inf) if single else logits.topk(2).values[:, 1]
    rows, whole = torch.arange(len(logits), device=logits.device), logits.shape[-1] // _BLOCK
    cut = whole * _BLOCK
    blocks, rest = logits[:, :cut].unflatten(1, (whole, _BLOCK)), logits[:, cut:]
    rest = F.pad(rest, (0, _BLOCK - rest.shape[-1]), value=-torch.inf)
    largest = torch.cat([blocks.amax(-1), rest.amax(-1, keepdim=True)], 1)
    best, block = largest.max(-1)
    inside = torch.where((block < whole)[:, None], blocks[rows, block.clamp(max=whole - 1)], rest) if whole else rest
    place = inside.max(-1).indices
    largest[rows, block] = -torch.inf
    others = inside.index_put((rows, place), inside.new_tensor(-torch.inf))
    return block * _BLOCK + place, best, torch.maximum(largest.amax(-1), others.amax(-1))


def _open(logits: Tensor) -> Tensor:
    """The same logits, of which a token can be chosen in every row."""
    _check(logits.amax(-1))
    return logits


def _check(best: Tensor) -> None:
    """Whether a token can be chosen where these logits are the largest; raises UserError otherwise."""
    values = best.flatten().tolist()
    if -math.inf in values:
        raise UserError("no token is left to choose: a constraint or a bias of -inf bars them all; loosen it")
    if not all(map(math.isfinite, values)):
        finite(best)
