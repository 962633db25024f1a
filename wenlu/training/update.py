"""One update of a model's weights: gradients over a batch, micro-batch by micro-batch, clipped, to the optimiser."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from wenlu.base.device import has_bf16
from wenlu.base.errors import UserError
from wenlu.data.shards import TokenStore
from wenlu.training.objectives import causal
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


class Updates:
    """What `recipe` does to the weights of `model`, on the training text `store`."""

    def __init__(self, recipe: Recipe, model: nn.Module, store: TokenStore, device: torch.device, bf16: bool):
        self.recipe, self.model, self.store, self.device, self.bf16 = recipe, model, store, device, bf16
        self.optimizer = Optimizer(model, recipe.optimizer)
        self._weights = tuple(model.parameters())

    def gradients(self, starts: np.ndarray, step: int) -> tuple[float, int, float]:
        """Leave the gradients of the summed loss on the weights; the sum in nats, its count, the mean's norm."""
        total, count = 0.0, 0
        for number, windows in enumerate(self.micro_batches(starts)):
            if self.model.config.dropout:
                torch.manual_seed(_key(self.recipe.training.seed, step, number))
            with self.precision():
                loss, targets = causal(self.model, windows)
            loss.backward()
            total += float(loss.detach())
            count += targets
        return total, count, float(torch.nn.utils.get_total_norm(self._gradients())) / count

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

    def micro_batches(self, starts: np.ndarray) -> Iterator[Tensor]:
        """The windows of a batch, as many at once as the recipe says, on the device."""
        size = self.recipe.training.micro_batch or self.recipe.training.batch
        for first in range(0, len(starts), size):
            yield self.windows(self.store, starts[first : first + size])

    def windows(self, store: TokenStore, starts: np.ndarray) -> Tensor:
        """Ids from each start on: a context, and the token after it."""
        windows = torch.from_numpy(store.windows(starts, self.model.config.context + 1))
        return windows.to(self.device, non_blocking=True)

    def precision(self):
        """For a GPU; a processor's products are set for a whole run."""
        autocast = self.bf16 and self.device.type != "cpu"
        return torch.autocast(self.device.type, torch.bfloat16) if autocast else nullcontext()

    def _gradients(self) -> list[Tensor]:
        return [weight.grad for weight in self._weights if weight.grad is not None]


def _key(*parts: int) -> int:
    """A 63-bit seed that is a function of nothing but `parts`."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "little") >> 1
