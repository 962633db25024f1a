"""How long an update of a model takes on this machine: a few shapes timed, all others by a model of the machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch

from wenlu.base.device import has_bf16
from wenlu.models.build import build
from wenlu.models.size import flops_per_token, hidden_weights, kept_by_block, training_bytes
from wenlu.training.material import Material
from wenlu.training.objectives import objective_of
from wenlu.training.recipe import Recipe
from wenlu.training.update import Updates, arithmetic, in_bf16, kernels_for, products

F32 = 3.0
"""How much longer an operation takes in f32 where the processor multiplies in bf16 (about, for the sizes timed)."""
LONGEST = 4.0
"""Times that a probe may take what it should, on a machine that has much else to do."""


class Machine:
    """How long an update takes here: shapes as timed, others by t = a · layers + b · numbers + c · operations.

    Numbers are those kept for the backward pass, logits among them; a, b, c ≥ 0 are fitted to all that was timed.
    """

    def __init__(self, material: Callable[[Recipe], Material], device: torch.device, probe_seconds: float):
        self._material, self.device, self._probe_seconds = material, device, probe_seconds
        self.timed: dict[tuple, tuple[Recipe, float]] = {}
        self._weights: np.ndarray | None = None

    def seconds(self, recipe: Recipe) -> float:
        """Of one update."""
        if key(recipe) in self.timed:
            return self.timed[key(recipe)][1]
        if self._weights is None:
            from scipy.optimize import nnls

            rows = np.array([self._features(known) / seconds for known, seconds in self.timed.values()])
            scale = rows.max(axis=0)
            self._weights = nnls(rows / scale, np.ones(len(rows)))[0] / scale
        return float(self._features(recipe) @ self._weights)

    def time(self, recipe: Recipe) -> None:
        """Time an update of this shape: the median of as many as fit into the time of a probe.

        Three at least, unless those would take `LONGEST` times as long as a probe should.
        """
        if key(recipe) in self.timed:
            return
        material = self._material(recipe)
        tokenizer = material.tokenizer
        config = replace(recipe.model, **{name: getattr(tokenizer, name) for name in ("bos_id", "eos_id", "pad_id")})
        bf16 = in_bf16(recipe, self.device)
        model = build(config, 0).to(self.device)
        updates = Updates(recipe, model, material, objective_of(config), self.device, bf16)
        taken, began = [], time.monotonic()
        with arithmetic(bf16, kernels_for(self.device)), _threads(recipe.training.threads):
            while (passed := time.monotonic() - began) < self._probe_seconds or len(taken) < 3:
                if taken and passed > LONGEST * self._probe_seconds:
                    break
                before = time.monotonic()
                found = updates.gradients(len(taken))
                updates.apply(found.count, found.norm, 1.0)
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)
                taken.append(time.monotonic() - before)
        self.timed[key(recipe)] = recipe, float(np.median(taken[1:] or taken))
        self._weights = None

    def bytes(self, recipe: Recipe) -> int:
        """Predicted peak."""
        micro = recipe.training.micro_batch or recipe.training.batch
        shape = (recipe.model.context, recipe.optimizer.name, self._dtype(recipe), self.device.type)
        return training_bytes(recipe.model, micro, *shape, accumulating=micro < recipe.training.batch)["total"]

    def _dtype(self, recipe: Recipe) -> str:
        return products(in_bf16(recipe, self.device), self.device)

    def _features(self, recipe: Recipe) -> np.ndarray:
        config = recipe.model.resolved()
        tokens = recipe.training.batch * config.context
        kept = sum(kept_by_block(config, config.context, self._dtype(recipe), self.device.type))
        numbers = tokens * (config.layers * kept + 3 * config.vocab)
        slower = F32 if self._dtype(recipe) == "f32" and has_bf16(self.device) else 1.0
        return np.array([config.layers, numbers, slower * work(recipe)])


@contextmanager
def _threads(wanted: int) -> Iterator[None]:
    """So many threads of the processor within this context; 0: as many as there are."""
    usual = torch.get_num_threads()
    torch.set_num_threads(wanted or usual)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


def work(recipe: Recipe) -> float:
    """Operations of one update, those of Muon's five iterations among them."""
    config = recipe.model
    muon = 25 * hidden_weights(config) * config.dim if recipe.optimizer.name == "muon" else 0
    return flops_per_token(config, config.context) * config.context * recipe.training.batch + muon


def key(recipe: Recipe) -> tuple:
    """What the time of an update depends on."""
    model = recipe.model
    return model.dim, model.layers, model.context, recipe.training.batch, bool(model.dropout), recipe.training.threads
