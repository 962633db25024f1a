"""A start from bigrams: embedding and head of a new model such that it already knows which token follows which.

A transformer whose blocks begin as the identity computes logits = W · norm(e): of the token before, and of nothing
else. So the best that it can know at its first step is a table of bigrams of low rank, and that table need not be
learned step by step: it is counted, and cut to the model's width by a singular value decomposition. That is how word
vectors are made of co-occurrences (Levy & Goldberg 2014); gradient descent, too, begins with bigrams (Chang & Bergen
2022), but takes a good part of a short run for it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from wenlu.base.errors import UserError
from wenlu.data.shards import TokenStore
from wenlu.models.config import ModelConfig

if TYPE_CHECKING:
    from jaxtyping import Float
    from scipy.sparse import csr_matrix

FAMILIES = ("llama", "qwen3")
"""Those whose blocks begin as the identity and whose last norm does not move the mean."""
TOKENS = 1 << 22
"""Of the training text, as many are counted."""
PRIOR = 100.0
"""How often every token counts as seen before, each time followed by the tokens of the text as frequent as they are."""
COMMON = 0.2
"""Part of an embedding's square that all tokens have in common; on it stands how frequent the next token is."""
RANK = 256
"""Most singular vectors; what a wider model has beside them begins at random, and small."""
ITERATIONS, SPARE = 3, 16
"""Of the randomised decomposition (Halko et al. 2011)."""


def refuse(config: ModelConfig) -> None:
    """Raise `UserError` for a model that cannot begin so."""
    if config.family not in FAMILIES:
        raise UserError(
            f"training.start bigrams is for {' and '.join(FAMILIES)}, not {config.family}: leave it at random"
        )
    if config.tied:
        raise UserError(
            "training.start bigrams needs a head of its own, since what follows a token is not what it follows: "
            "add --model.tied false"
        )
    if config.dim < 8:
        raise UserError(f"training.start bigrams needs a width of 8 at least, not {config.dim}: leave it at random")


def start_from_bigrams(model: nn.Module, store: TokenStore, seed: int) -> None:
    """Set embedding and head of a new model to the bigrams of a training text: a function of it and the seed."""
    refuse(model.config)
    vocab, dim = model.embed.weight.shape
    generator = np.random.default_rng([seed, 1])
    counts = count(store.tokens(0, TOKENS), vocab)
    embedding, head = factors(counts, dim, generator)
    with torch.no_grad():
        model.embed.weight.copy_(torch.from_numpy(embedding))
        model.lm_head.weight.copy_(torch.from_numpy(head))


def count(ids: np.ndarray, vocab: int) -> csr_matrix:
    """How often each token (column) follows each (row)."""
    from scipy.sparse import csr_matrix

    pairs, times = np.unique(ids[:-1] * vocab + ids[1:], return_counts=True)
    return csr_matrix((times.astype(np.float32), (pairs // vocab, pairs % vocab)), shape=(vocab, vocab))


def surprise(before: np.ndarray, after: np.ndarray, vocab: int) -> float:
    """Nats that the bigrams of the ids `before` need for those `after` the first of the others."""
    counts = count(before, vocab)
    frequent, seen = _frequencies(counts), np.asarray(counts.sum(axis=1)).ravel()
    rows, columns = after[:-1], after[1:]
    times = np.asarray(counts[rows, columns]).ravel()
    return -float(np.log((times + PRIOR * frequent[columns]) / (seen[rows] + PRIOR)).sum())


def _frequencies(counts: csr_matrix) -> np.ndarray:
    """How frequent every token is, none never."""
    times = np.asarray(counts.sum(axis=0)).ravel() + 0.5
    return times / times.sum()


def factors(
    counts: csr_matrix, dim: int, generator: np.random.Generator
) -> tuple[Float[np.ndarray, "vocab dim"], Float[np.ndarray, "vocab dim"]]:
    """Embeddings e and head W with softmax(W eᵢ) ≈ p(· | i), every e of root mean square 1, so that RMSNorm keeps it.

    p(j | i) = (cᵢⱼ + α pⱼ) / (cᵢ + α), p being how frequent tokens are, has the logarithm log pⱼ + Sᵢⱼ − log(1 + cᵢ/α)
    with S = log(1 + cᵢⱼ / (α pⱼ)), which is zero wherever a pair was never seen; what depends on i alone does not
    matter to a softmax. S ≈ F Gᵀ by its largest singular vectors; one dimension more holds log p, and one makes every
    embedding as long as the others.
    """
    vocab = counts.shape[0]
    frequent = _frequencies(counts)
    known = counts.tocoo()
    known.data = np.log1p(known.data / (PRIOR * frequent[known.col])).astype(np.float32)
    left, right = low_rank(known.tocsr(), min(RANK, dim - 2), generator)
    common = math.sqrt(COMMON * dim)
    longest = np.sqrt((left**2).sum(axis=1).max())
    gain = math.sqrt(dim - common**2) / max(float(longest), 1e-6)
    left, right = left * gain, right / gain
    rest = np.sqrt(np.maximum(0.0, dim - common**2 - (left**2).sum(axis=1)))
    level = np.log(frequent) - np.log(frequent).mean()
    embedding = np.zeros((vocab, dim), np.float32)
    head = generator.normal(0, 1e-3, (vocab, dim)).astype(np.float32)
    width = 2 + left.shape[1]
    embedding[:, :width] = np.column_stack((np.full(vocab, common), rest, left))
    head[:, :width] = np.column_stack((level / common, np.zeros(vocab), right))
    turn, _ = np.linalg.qr(generator.standard_normal((dim, dim)))  # so that no dimension differs from another
    turn = turn.astype(np.float32)
    return embedding @ turn, head @ turn


def low_rank(
    matrix: csr_matrix, rank: int, generator: np.random.Generator
) -> tuple[Float[np.ndarray, "rows rank"], Float[np.ndarray, "columns rank"]]:
    """F, G of `rank` columns at most with F Gᵀ ≈ the matrix: a randomised decomposition, singular values shared."""
    probes = min(rank + SPARE, *matrix.shape)
    basis, _ = np.linalg.qr(matrix @ generator.standard_normal((matrix.shape[1], probes), np.float32))
    for _ in range(ITERATIONS):
        basis, _ = np.linalg.qr(matrix.T @ basis)
        basis, _ = np.linalg.qr(matrix @ basis)
    left, values, right = np.linalg.svd((matrix.T @ basis).T, full_matrices=False)
    root = np.sqrt(values[:rank])
    return (basis @ left[:, :rank]) * root, right[:rank].T * root
