"""One update of a model's weights: gradients over a batch, micro-batch by micro-batch, clipped, to the optimiser."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from wenlu.base.device import bf16_products, by_autocast, has_bf16
from wenlu.base.errors import UserError
from wenlu.models.passes import Passes, passes, using
from wenlu.training.material import Material, tokens_in
from wenlu.training.objectives import Batch, Objective
from wenlu.training.optimizers import Optimizer
from wenlu.training.recipe import Recipe

WIDE = 128
"""Width of a model from which a processor gains by products in bf16; those of smaller ones take longer to begin."""


def in_bf16(recipe: Recipe, device: torch.device) -> bool:
    """Whether the products of a run are made in bf16; refused where that is wanted and the hardware lacks it."""
    dtype, wide = recipe.training.dtype, recipe.model.dim >= WIDE or device.type == "cuda"
    if dtype == "bf16" and not has_bf16(device):
        raise UserError(f"this {device.type} device has no bf16 arithmetic of its own: use --training.dtype f32")
    return dtype == "bf16" or (dtype == "auto" and wide and has_bf16(device))


def products(bf16: bool, device: torch.device) -> str:
    """How products are made, as models.size names it: f32, bf16 (rounded on the way), autocast (of copies in bf16)."""
    if not bf16:
        return "f32"
    return "autocast" if by_autocast(device.type) else "bf16"


def kernels_for(device: torch.device, compiled: bool = False) -> Passes | None:
    """The kernels that training uses beside torch's products: on a processor, unless torch compiles some itself."""
    return passes() if device.type == "cpu" and not compiled else None


@contextmanager
def arithmetic(bf16: bool, kernels: Passes | None) -> Iterator[None]:
    """The number format of products and the kernels beside them, for as long as a model is trained."""
    with bf16_products(bf16), using(kernels):
        yield


class Gradients(NamedTuple):
    """What the gradients of a batch were made of."""

    loss: float
    """Summed, in nats."""
    count: int
    """Targets that it is of."""
    norm: float
    """Of the mean loss's gradient."""
    tokens: int
    """Read, padding not counted."""


class Updates:
    """What `recipe` does to the weights of `model`, by an objective on the samples of some material."""

    def __init__(
        self,
        recipe: Recipe,
        model: nn.Module,
        material: Material,
        objective: Objective,
        device: torch.device,
        bf16: bool,
    ):
        self.recipe, self.model, self.material, self.objective = recipe, model, material, objective
        self.device, self.bf16 = device, bf16
        self.optimizer = Optimizer(model, recipe.optimizer)
        self._weights = tuple(model.parameters())

    def gradients(self, step: int) -> Gradients:
        """Leave the gradients of the summed loss of a step's batch on the weights."""
        total, count, tokens = 0.0, 0, 0
        for number, (batch, size) in enumerate(self._micro_batches(step)):
            if self.model.config.dropout:
                torch.manual_seed(_key(self.recipe.training.seed, step, number))
            with self.precision():
                loss, targets = self.objective.loss(self.model, batch)
            loss.backward()
            total += float(loss.detach())
            count += int(targets)
            tokens += size
        norm = float(torch.nn.utils.get_total_norm(self._gradients())) / max(1, count)
        return Gradients(total, max(1, count), norm, tokens)

    def apply(self, count: int, norm: float, scale: float) -> None:
        """Clip the mean gradient, move the weights at `scale` times the peak learning rate, drop the gradients."""
        clip = self.recipe.optimizer.clip
        torch._foreach_mul_(self._gradients(), min(1.0, clip / (norm + 1e-6)) / count if clip else 1 / count)
        self.optimizer.step(scale)
        for weight in self._weights:
            weight.grad = None

    def finite(self) -> bool:
        """Whether every weight is."""
        return all(bool(torch.isfinite(weight).all()) for weight in self._weights)

    def batches(self, step: int) -> Iterator[Batch]:
        """The batch of a step, as many samples at once as the recipe says, on the device."""
        return (batch for batch, _ in self._micro_batches(step))

    def _micro_batches(self, step: int) -> Iterator[tuple[Batch, int]]:
        order, at_once = self.material.order, self.at_once
        samples, epochs = order.batch_at(step), order.epochs_at(step)
        for first in range(0, len(samples), at_once):
            part = slice(first, first + at_once)
            batch = self.material.batch(samples[part], epochs[part])
            yield self._placed(batch), tokens_in(batch)

    @property
    def at_once(self) -> int:
        """Samples computed at once."""
        return self.recipe.training.micro_batch or self.recipe.training.batch

    @torch.no_grad()
    def held_out(self) -> dict[str, Any]:
        """`held_out`, the loss per target over what is held out, and the other figures of the objective."""
        sums: dict[str, float] = defaultdict(float)
        self.model.eval()
        for batch in self.material.held_out(self.recipe.training.eval_tokens, self.at_once):
            batch = self._placed(batch)
            with self.precision():
                found = self.objective.judge(self.model, batch)
            for name, value in found.items():
                sums[name] += float(value)
        self.model.train()
        if not sums["count"]:
            raise UserError(
                f"the {self.recipe.training.eval_tokens:,} held-out tokens that are read hold nothing to foretell: "
                "raise training.eval-tokens, or hold more out"
            )
        return {"held_out": sums["loss"] / sums["count"], **self.objective.figures(dict(sums))}

    def _placed(self, batch: dict[str, np.ndarray]) -> Batch:
        return {name: torch.from_numpy(array).to(self.device, non_blocking=True) for name, array in batch.items()}

    def precision(self):
        """Where autocast makes the products; what oneDNN rounds on the way is set for a whole run."""
        kind = self.device.type
        return torch.autocast(kind, torch.bfloat16) if self.bf16 and by_autocast(kind) else nullcontext()

    def _gradients(self) -> list[Tensor]:
        return [weight.grad for weight in self._weights if weight.grad is not None]


def _key(*parts: int) -> int:
    """A 63-bit seed that is a function of nothing but `parts`."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "little") >> 1
