"""Choosing the pieces of a Unigram tokenizer (Kudo 2018): many candidates, the least useful taken away by turns.

Candidates are those of a larger BPE over characters. Then, until few enough are left: every word is cut in its most
probable way (Viterbi, by the library), pieces are counted, their log-probabilities follow, and the quarter is dropped
whose loss would cost the text's likelihood least. Counts are whole numbers, so that the same words give the same
pieces. The library's own trainer gives scores that differ from run to run, takes a minute a megabyte for Chinese
(text without spaces), and proposes no piece that occurs in one word only.
"""

import math
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, islice, zip_longest

import numpy as np
import tokenizers
from tokenizers import models, trainers

CANDIDATES = 3
"""Times the wanted number of pieces."""
COVERAGE = 0.9995
"""Of a text's characters, by those that always have a piece of their own."""
KEPT = 0.75
"""Of the pieces, in each turn."""
LONGEST_PIECE = 16
"""Characters."""
BYTE_COST = 4.0
"""Nats that a byte of a character without a piece costs, about, beside the rarest piece."""
FEED = 1 << 12
"""Words handed to the library at a time."""


@contextmanager
def one_thread() -> Iterator[None]:
    """The library without its threads: a merge is too little work to share, and takes twice as long shared."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def repeated(words: Counter[str]) -> Iterator[list[str]]:
    """Every word as often as it occurs, in lists, as a trainer reads them."""
    for word, count in words.items():
        for start in range(0, count, FEED):
            yield [word] * min(FEED, count - start)


def choose_pieces(words: Counter[str], size: int) -> list[tuple[str, float]]:
    """At most `size` pieces with their log-probabilities, the most frequent first.

    The commonest characters are never dropped: what is not in the words can be written with them.
    """
    characters = _characters(words)
    safe = dict.fromkeys(_common(characters, size // 2))
    candidates = _candidates(words, characters, size)
    scores = {piece: -math.log(place + 10) for place, piece in enumerate(candidates)}
    texts, weights = list(words), np.fromiter(words.values(), dtype=np.int64)
    while True:
        counts = _count(texts, weights, scores)
        counts |= {character: 1 for character in safe if character not in counts}
        total = sum(counts.values())
        scores = {piece: math.log(count / total) for piece, count in counts.items()}
        if len(scores) <= size:
            break
        losses = {piece: counts[piece] * (score - _without(piece, scores)) for piece, score in scores.items()}
        losses |= dict.fromkeys(safe, math.inf)
        kept = max(size, int(KEPT * len(losses)))
        scores = {piece: scores[piece] for piece in sorted(losses, key=lambda p: (-losses[p], p))[:kept]}
    # Where the words use fewer, parts of words fill up: other text may want them.
    spare = (piece for piece in candidates if piece not in scores)
    scores |= dict.fromkeys(islice(spare, size - len(scores)), -math.log(total))
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))


def _characters(words: Counter[str]) -> list[tuple[str, int]]:
    """Every character and how often it occurs, the most frequent first."""
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            counts[character] += count
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _common(characters: list[tuple[str, int]], limit: int) -> list[str]:
    """The fewest characters that make up `COVERAGE` of the text, at most `limit`."""
    left = COVERAGE * sum(count for _, count in characters)
    common = []
    for character, count in characters[:limit]:
        if left <= 0:
            break
        common.append(character)
        left -= count
    return common


def _candidates(words: Counter[str], characters: list[tuple[str, int]], size: int) -> list[str]:
    """Characters, and the merges of a BPE over them, each in their order, by turns: about the order of frequency."""
    inner = tokenizers.Tokenizer(models.BPE())
    limit = len(characters) + CANDIDATES * size
    trainer = trainers.BpeTrainer(vocab_size=limit, max_token_length=LONGEST_PIECE, show_progress=False)
    with one_thread():
        inner.train_from_iterator(repeated(words), trainer)
    vocab = inner.get_vocab()
    longer = sorted((piece for piece in vocab if len(piece) > 1), key=vocab.__getitem__)
    singles = [character for character, _ in characters]
    return [piece for pair in zip_longest(singles, longer) for piece in pair if piece is not None]


def _count(texts: list[str], weights: np.ndarray, scores: dict[str, float]) -> dict[str, int]:
    """How often each piece is used in the most probable cut of all words; pieces that are not used are left out."""
    pieces = list(scores)
    inner = tokenizers.Tokenizer(models.Unigram([("", 0.0), *scores.items()], unk_id=0))
    counts = np.zeros(len(pieces) + 1, dtype=np.int64)
    for start in range(0, len(texts), 1 << 16):
        cut = [encoding.ids for encoding in inner.encode_batch_fast(texts[start : start + (1 << 16)])]
        lengths = np.fromiter(map(len, cut), dtype=np.int64, count=len(cut))
        ids = np.fromiter(chain.from_iterable(cut), dtype=np.int64, count=int(lengths.sum()))
        np.add.at(counts, ids, np.repeat(weights[start : start + (1 << 16)], lengths))
    return {piece: int(count) for piece, count in zip(pieces, counts[1:], strict=True) if count}


def _without(piece: str, scores: dict[str, float]) -> float:
    """The log-probability of the best cut of a piece into others; a character without a piece falls to bytes."""
    lowest = -20.0
    best = [0.0] + [-math.inf] * len(piece)
    for end in range(1, len(piece) + 1):
        for start in range(end):
            part = piece[start:end]
            score = scores.get(part) if part != piece else None
            if score is None:
                if end - start > 1:
                    continue
                score = lowest if part != piece else -BYTE_COST * len(part.encode())
            best[end] = max(best[end], best[start] + score)
    return best[-1]
