"""Documents cut into windows for models that read whole windows at once, equally long ones together."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from torch import nn

from wenlu.base.errors import UserError

TOGETHER = 1 << 14
"""Tokens read at once at most, where a window has no more: a model of half a billion weights takes 1.5 GiB for them."""


def context_of(model: nn.Module, wanted: int) -> int:
    """Tokens in a window; more than a model with learned positions reads are refused."""
    context = wanted or model.config.context
    if model.config.family == "bert" and context > model.config.context:
        raise UserError(f"this bert reads at most {model.config.context} tokens: context {context} is too long for it")
    if context < 8:
        raise UserError(f"context must be at least 8, not {context}")
    return context


def at_once(batch: int, context: int) -> int:
    """Windows to compute at once: `batch`, or fewer of long ones for the memory's sake; the figures are the same."""
    return max(1, min(batch, TOGETHER // context))


@dataclass(frozen=True)
class Window:
    """Consecutive tokens of a document."""

    document: int
    ids: np.ndarray


def cut(documents: Iterable[np.ndarray], length: int) -> Iterator[Window]:
    """Every token once, the last window of a document as long as is left."""
    for number, ids in enumerate(documents):
        for start in range(0, len(ids), length):
            yield Window(number, ids[start : start + length])


def by_length(windows: list[Window], batch: int) -> Iterator[tuple[list[int], np.ndarray]]:
    """Numbers and ids [batch, length] of windows that are equally long, so that nothing is padded."""
    order = sorted(range(len(windows)), key=lambda index: -len(windows[index].ids))
    for _, group in itertools.groupby(order, key=lambda index: len(windows[index].ids)):
        members = list(group)
        for first in range(0, len(members), batch):
            part = members[first : first + batch]
            yield part, np.stack([windows[index].ids for index in part])
