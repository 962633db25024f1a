"""How well a model predicts texts: nats per token, perplexity and bits per byte, each with a 95 % interval."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from wenlu.base.config import at_least
from wenlu.base.errors import UserError
from wenlu.evaluation.windows import at_once
from wenlu.inference.generator import begin_id, check_together
from wenlu.inference.likelihood import log_likelihoods
from wenlu.inference.reading import evaluating
from wenlu.metrics.intervals import Estimate, Interval, blocks, ratio_interval
from wenlu.models.size import WHOLE_LOGITS
from wenlu.tokenization.tokenizer import Tokenizer

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

_POOL = 64
"""Batches' worth of windows that are sorted by length together, so that little is computed on padding."""
NOTHING = "there is nothing to evaluate: the texts hold no token"


@dataclass(frozen=True)
class Settings:
    """How texts are cut for the model. Raises UserError for a value out of its range."""

    context: int = 0
    """Tokens in a window; 0 = the longest sequence that the model was trained on."""
    overlap: int = 0
    """Tokens of a window that were scored before and only serve as context; 0 = none, the honest and quick way."""
    batch: int = 16
    """Windows computed at once; it changes the speed, not the figures."""

    def __post_init__(self):
        at_least("", self, 0, "context", "overlap")
        at_least("", self, 1, "batch")


@dataclass(frozen=True)
class Document:
    """A text as tokens, without special ones."""

    ids: np.ndarray
    bytes: int
    """Size of the text in UTF-8."""
    widths: np.ndarray | None = None
    """[tokens], bytes of each token, for the interval of bits per byte; None = all alike."""
    lossless: bool = True
    """Whether the tokens give back every byte of the text."""


@dataclass(frozen=True)
class Result:
    """What was measured. Every token of every document counts once; nothing else counts."""

    nats_per_token: Estimate
    perplexity: Estimate
    """exp(nats per token); comparable only between models with the same tokenizer."""
    bits_per_byte: Estimate | None
    """None where the tokenizer loses part of the text: the figure would then flatter it."""
    why_no_bits: str
    """The reason, or empty."""
    tokens: int
    bytes: int
    documents: int
    """Those with at least one token."""
    context: int
    overlap: int


Advance = Callable[[float], None]
"""Told how many bytes of text have been scored since the last call."""


def evaluate(
    model: nn.Module,
    tokenizer: Tokenizer | None,
    texts: Iterable[str],
    settings: Settings | None = None,
    advance: Advance | None = None,
) -> Result:
    """Score every token of every text exactly once, the first of each after bos (or eos, where there is no bos).

    Texts are cut into windows of `context` tokens; at `overlap` 0 a window's first token sees only the one before it.
    Raises UserError for texts without a single token, a tokenizer without a token to begin with, one that does not
    belong to the model, a context that the model cannot read, and losses that are not finite.
    """
    begin = _begin(model, tokenizer)
    return evaluate_documents(model, (_document(tokenizer, text) for text in texts), begin, settings, advance)


def evaluate_each(model: nn.Module, tokenizer: Tokenizer | None, texts: Sequence[str]) -> list[tuple[Document, float]]:
    """The same of every text by itself, without intervals: its tokens, and its nats per token.

    Windows of short texts are computed together. Raises UserError as `evaluate` does, also for one of the texts.
    """
    begin, documents = _begin(model, tokenizer), [_document(tokenizer, text) for text in texts]
    if not all(len(document.ids) for document in documents):
        raise UserError(NOTHING)
    settings = Settings()
    nats = _nats(model, documents, begin, _context(model, settings), settings)
    parts = np.split(nats, np.cumsum([len(document.ids) for document in documents])[:-1])
    return [(document, float(part.sum() / len(part))) for document, part in zip(documents, parts, strict=True)]


def _begin(model: nn.Module, tokenizer: Tokenizer | None) -> int:
    check_together(model, tokenizer)
    begin = begin_id(model, tokenizer)
    begin = tokenizer.eos_id if begin is None else begin
    if begin is None:
        raise UserError(
            "the first token of a document is scored after bos or eos, and this tokenizer has neither: "
            "name its bos_token in tokenizer_config.json"
        )
    return begin


def _document(tokenizer: Tokenizer, text: str) -> Document:
    ids = tokenizer.encode(text) if text else []
    pieces, content = tokenizer.pieces(ids), text.encode()
    widths = np.fromiter(map(len, pieces), np.int32, len(ids))
    return Document(np.asarray(ids, np.int64), len(content), widths, b"".join(pieces) == content)


def evaluate_documents(
    model: nn.Module,
    documents: Iterable[Document],
    begin: int,
    settings: Settings | None = None,
    advance: Advance | None = None,
) -> Result:
    """`evaluate` for what is tokens already; `begin` is the token that stands before each document."""
    settings = settings or Settings()
    context = _context(model, settings)
    kept: list[Document] = []
    lossy = 0

    def noted() -> Iterator[Document]:
        nonlocal lossy
        for number, document in enumerate(documents, 1):
            if not document.lossless and not lossy:
                lossy = number
            if len(document.ids):
                widths = None if document.widths is None else document.widths.astype(np.int32)
                kept.append(replace(document, ids=document.ids.astype(np.int32), widths=widths))
                yield document

    nats = _nats(model, noted(), begin, context, settings, advance)
    why = f"the tokenizer does not give back every byte of the texts (the first is document {lossy})" if lossy else ""
    return _result(nats, kept, why, context, settings.overlap)


def _nats(
    model: nn.Module,
    documents: Iterable[Document],
    begin: int,
    context: int,
    settings: Settings,
    advance: Advance | None = None,
) -> np.ndarray:
    """Of every token of documents that have some, one document after the other."""
    windows = (window for document in documents for window in _windows(document, begin, context, settings.overlap))
    with evaluating(model):
        nats = list(_score(model, windows, at_once(settings.batch, context), advance or (lambda _: None)))
    if not nats:
        raise UserError(NOTHING)
    total = np.concatenate(nats)
    refuse_nonfinite(total)
    return total


@dataclass(frozen=True)
class _Window:
    """Consecutive inputs, the token after each of them, and how many of those were scored before."""

    inputs: np.ndarray
    targets: np.ndarray
    scored: int
    bytes: float
    """Share of the document's bytes that is scored here, for the progress."""


def _context(model: nn.Module, settings: Settings) -> int:
    context = settings.context or model.config.context
    if model.config.family == "gpt2" and context > model.config.context:
        raise UserError(f"this gpt2 reads at most {model.config.context} tokens: context {context} is too long for it")
    if settings.overlap >= context:
        raise UserError(f"overlap ({settings.overlap}) must be smaller than the context ({context})")
    return context


def _windows(document: Document, begin: int, context: int, overlap: int) -> Iterator[_Window]:
    """Windows over one document, the first `overlap` targets of each but the first being context only."""
    series = np.concatenate([[begin], document.ids])
    count = len(document.ids)
    width = document.bytes / count
    end = 0
    while end < count:
        start = max(0, end - overlap)
        scored, end = end - start, min(start + context, count)
        yield _Window(series[start:end], series[start + 1 : end + 1], scored, (end - start - scored) * width)


def _score(model: nn.Module, windows: Iterator[_Window], batch: int, advance: Advance) -> Iterator[np.ndarray]:
    """Nats of each window's new targets, in order; windows of like length are computed together."""
    while pool := list(itertools.islice(windows, batch * _POOL)):
        found: list[np.ndarray | None] = [None] * len(pool)
        by_length = sorted(range(len(pool)), key=lambda index: -len(pool[index].inputs))
        for first in range(0, len(pool), batch):
            members = by_length[first : first + batch]
            for index, nats in zip(members, _batch_nats(model, [pool[m] for m in members]), strict=True):
                found[index] = nats
            advance(sum(pool[m].bytes for m in members))
        yield from found


def _batch_nats(model: nn.Module, windows: list[_Window]) -> list[np.ndarray]:
    """Shorter windows are filled up on the right, where a causal model's earlier positions cannot see it."""
    shape = (len(windows), max(len(window.inputs) for window in windows))
    ids, targets, wanted = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape, bool)
    for row, window in enumerate(windows):
        length = len(window.inputs)
        ids[row, :length], targets[row, :length] = window.inputs, window.targets
        wanted[row, window.scored : length] = True
    device = next(model.parameters()).device
    hidden = model.hidden(torch.from_numpy(ids).to(device))[torch.from_numpy(wanted).to(device)]
    nats = token_nats(model, hidden, torch.from_numpy(targets[wanted]).to(device)).cpu().numpy()
    return np.split(nats, np.cumsum(wanted.sum(1))[:-1])


def refuse_nonfinite(nats: np.ndarray) -> None:
    """Raise `UserError` where a loss is NaN or infinite."""
    if not np.isfinite(nats).all():
        raise UserError("the model's losses are not finite: its weights have diverged, use an earlier checkpoint")


def token_nats(
    model: nn.Module, hidden: Float[Tensor, "tokens dim"], targets: Int[Tensor, " tokens"]
) -> Float[Tensor, " tokens"]:
    """−log p of each target after its hidden state, in f64; the logits of a large vocabulary are made in parts."""
    rows = max(1, WHOLE_LOGITS // model.config.vocab)
    parts = zip(hidden.split(rows), targets.split(rows), strict=True)
    return torch.cat([-log_likelihoods(model.head(h), t) for h, t in parts])


def _result(nats: np.ndarray, documents: list[Document], why: str, context: int, overlap: int) -> Result:
    lengths = np.array([len(document.ids) for document in documents])
    size = sum(document.bytes for document in documents)
    starts = blocks(lengths)
    sums = np.add.reduceat(nats, starts)
    tokens = np.diff(np.append(starts, len(nats)))
    mean = Estimate(float(nats.sum() / len(nats)), ratio_interval(sums, tokens))
    bits = None
    if not why:
        widths = np.concatenate([_widths(document) for document in documents])
        bits_of = sums / math.log(2)
        bits = Estimate(float(bits_of.sum() / size), ratio_interval(bits_of, np.add.reduceat(widths, starts)))
    return Result(mean, exponential(mean), bits, why, len(nats), size, len(documents), context, overlap)


def _widths(document: Document) -> np.ndarray:
    even = np.full(len(document.ids), document.bytes / len(document.ids))
    return even if document.widths is None else document.widths


def exponential(estimate: Estimate) -> Estimate:
    """exp of a figure and of the ends of its interval."""
    ends = estimate.interval and Interval(_exp(estimate.interval.low), _exp(estimate.interval.high))
    return Estimate(_exp(estimate.value), ends)


def _exp(value: float) -> float:
    """exp, infinite where it is beyond a float."""
    return math.exp(value) if value < 709 else math.inf
