"""Log-probabilities of texts by models with an encoder: what t5 would write, and bert's pseudo-log-probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from wenlu.inference.likelihood import likeliest, log_likelihoods
from wenlu.inference.reading import Reader
from wenlu.inference.sample import finite
from wenlu.models.size import WHOLE_LOGITS

if TYPE_CHECKING:
    from wenlu.tokenization.tokenizer import Tokenizer

AT_ONCE = 4096
"""Tokens of sources, or of a bert's texts, that are read at once, padding among them."""

Found = list[tuple[np.ndarray, np.ndarray]]
"""Of each text: log-probabilities of its tokens in nats, and whether each is the likeliest in its place."""
Done = Callable[[int], None]
"""Told how many texts more are done."""


def written(
    model: nn.Module,
    texts: Sequence[tuple[Sequence[int], Sequence[int]]],
    vocab: int | None = None,
    done: Done | None = None,
) -> Found:
    """Of texts (what t5's encoder reads, what its decoder writes), which end where they end: no end token is asked for.

    Every source is read once, sources of like length side by side.
    """
    found: Found = [(np.empty(0), np.empty(0, bool))] * len(texts)
    of_source: dict[tuple[int, ...], list[int]] = {}
    for number, (source, _) in enumerate(texts):
        of_source.setdefault(tuple(source), []).append(number)
    written_after = {source: [len(texts[number][1]) for number in numbers] for source, numbers in of_source.items()}
    most = max(1, WHOLE_LOGITS // (vocab or model.config.vocab))
    for sources in _alike(sorted(of_source, key=len), written_after, most):
        numbers = [number for source in sources for number in of_source[source]]
        targets = [texts[number][1] for number in numbers]
        longest = max(map(len, targets))
        reader = Reader(model, vocab)
        first = reader.begin(sources, longest)
        rows = torch.tensor([row for row, source in enumerate(sources) for _ in of_source[source]], device=first.device)
        reader.cache.select(rows)
        ids = torch.tensor([[*target, *[0] * (longest - len(target))] for target in targets], device=first.device)
        logits = first[rows][:, None]
        if longest > 1:
            logits = torch.cat((logits, reader.read(ids[:, :-1])), dim=1)
        values, best = _of(logits, ids)
        for row, number in enumerate(numbers):
            length = len(targets[row])
            found[number] = values[row, :length], best[row, :length]
        if done:
            done(len(numbers))
    return found


def _alike(
    sources: list[tuple[int, ...]], written_after: dict[tuple[int, ...], list[int]], most: int
) -> Iterator[list[tuple[int, ...]]]:
    """Sources, the shortest first, as many together as are read at once, and as have no more than `most` places to be
    written after them, padding among them (of one source all are, however many)."""
    part: list[tuple[int, ...]] = []
    rows = longest = 0
    for source in sources:
        more, length = len(written_after[source]), max(written_after[source])
        too_many = (rows + more) * max(longest, length) > most
        if part and (too_many or len(source) * (len(part) + 1) > AT_ONCE):
            yield part
            part, rows, longest = [], 0, 0
        part.append(source)
        rows, longest = rows + more, max(longest, length)
    if part:
        yield part


def restored(
    model: nn.Module,
    tokenizer: Tokenizer,
    texts: Sequence[tuple[Sequence[int], Sequence[int]]],
    done: Done | None = None,
) -> Found:
    """Of texts (what stands before, what is asked for): each token that is asked for, given all others of both, by a
    bert that has it masked (pseudo-log-likelihood, Salazar et al. 2020). Each costs a reading of the whole text.
    """
    found: Found = [(np.zeros(len(asked)), np.zeros(len(asked), bool)) for _, asked in texts]
    by_length: dict[int, list[tuple[int, int]]] = {}
    for number, (before, asked) in enumerate(texts):
        places = by_length.setdefault(2 + len(before) + len(asked), [])
        places += [(number, place) for place in range(len(asked))]
    left = [len(asked) for _, asked in texts]
    device = next(model.parameters()).device
    for length, wanted in sorted(by_length.items()):
        rows = max(1, AT_ONCE // length)
        for start in range(0, len(wanted), rows):
            part = wanted[start : start + rows]
            whole = [[tokenizer.cls_id, *texts[n][0], *texts[n][1], tokenizer.sep_id] for n, _ in part]
            ids = torch.tensor(whole, device=device)
            at = torch.tensor([1 + len(texts[n][0]) + place for n, place in part], device=device)
            row = torch.arange(len(part), device=device)
            targets = ids[row, at]
            ids[row, at] = tokenizer.mask_id
            values, best = _of(model.head(model.hidden(ids)[row, at])[:, None, : tokenizer.vocab], targets[:, None])
            for (number, place), value, is_best in zip(part, values[:, 0], best[:, 0], strict=True):
                found[number][0][place], found[number][1][place] = value, is_best
                left[number] -= 1
            if done:
                done(sum(left[number] == 0 for number in {n for n, _ in part}))
    return found


def _of(logits: Tensor, ids: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of `ids` [rows, seq] by logits [rows, seq, vocab], and whether each is the likeliest."""
    logits, rows = logits.flatten(0, 1), torch.arange(ids.numel(), device=ids.device)
    values, best = finite(log_likelihoods(logits, ids.flatten())), likeliest(logits, ids.flatten(), rows)
    return values.view(ids.shape).cpu().numpy(), best.view(ids.shape).cpu().numpy()
