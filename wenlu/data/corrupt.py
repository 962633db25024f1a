"""What encoders learn from: tokens masked (BERT), spans taken out (T5). Pure functions of ids and keys, in numpy.

Masking: Devlin et al. 2018, 3.1, and google-research/bert's whole-word masking (create_pretraining_data.py, 2019). For
scripts without spaces, short spans stand for words (Cui et al. 2019 cut Chinese into words, of two characters mostly).
Spans: Raffel et al. 2020, 3.1.4, and `random_spans_noise_mask` of google-research/text-to-text-transfer-transformer.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wenlu.data.batch import NO_TARGET
from wenlu.data.keyed import draws
from wenlu.tokenization.tokenizer import Tokenizer

if TYPE_CHECKING:
    from jaxtyping import Bool, Int64, UInt64

RATE = 0.15
"""Of the tokens, masked or taken out."""
MASKED, RANDOM = 0.8, 0.1
"""Of the chosen tokens, those replaced by the mask and by any token; the rest is kept as it is."""
LONGEST = 8
"""Tokens of a word, at least, before it is cut."""
SPAN = 3.0
"""Mean length of what is taken out at once, in tokens."""
WORD = 3
"""Characters, at most, that stand for a word where there are no spaces."""
CUT = 0.5
"""How often such a word ends after a character, before it is that long."""
SPACELESS = ((0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF))
SPACELESS += ((0xF900, 0xFAFF), (0x20000, 0x323AF))
"""Code points of Han characters and kana."""
_OTHER, _LETTER, _SPACELESS = 0, 1, 2


@dataclass(frozen=True)
class Words:
    """Of every token: whether it is special, and how it joins its neighbours in a word. Arrays [vocab]."""

    special: np.ndarray
    left: np.ndarray
    """What kind of character it begins with."""
    right: np.ndarray
    """What kind it ends with."""
    inside: np.ndarray
    """Whether it begins inside a character, as tokens of bytes may."""
    characters: np.ndarray
    """How many characters begin in it."""

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Words:
        rows = [_traits(tokenizer.token_bytes(id) if id in tokenizer else b"") for id in range(tokenizer.vocab)]
        left, right, inside, characters = (np.array(column) for column in zip(*rows, strict=True))
        special = np.zeros(tokenizer.vocab, dtype=bool)
        special[[id for id in range(tokenizer.vocab) if id in tokenizer.special_ids or id not in tokenizer]] = True
        return cls(special, left, right, inside.astype(bool), characters)

    def starts(self, ids: Int64[np.ndarray, "batch seq"], keys: UInt64[np.ndarray, " batch"]) -> np.ndarray:
        """Where a word begins, bool [batch, seq]; words of scripts without spaces by the keys."""
        left, right = self.left[ids][:, 1:], self.right[ids][:, :-1]
        joined = (left == _LETTER) & (right == _LETTER)
        spaceless = (left == _SPACELESS) & (right == _SPACELESS)
        if spaceless.any():
            joined |= spaceless & self._short(ids, keys)
        joined = (joined | self.inside[ids][:, 1:]) & ~self.special[ids][:, 1:] & ~self.special[ids][:, :-1]
        return np.pad(~joined, ((0, 0), (1, 0)), constant_values=True)

    def _short(self, ids: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Whether each token but the first may join the one before, so that no word exceeds `WORD` characters.

        Characters are counted from each cut on; a word lies within a stretch of `WORD` of them.
        """
        cut = draws(keys[:, None], np.arange(ids.shape[1]), 0) < CUT
        cut |= self.left[ids] != _SPACELESS
        cut &= ~self.inside[ids]
        cut[:, 0] = True
        size = self.characters[ids]
        end = np.cumsum(size, axis=1)
        begin = end - size - self.inside[ids]
        begin, end = (x - np.maximum.accumulate(np.where(cut, begin, 0), axis=1) for x in (begin, end))
        first, last = begin // WORD, np.maximum(end - 1, begin) // WORD
        within = first == last
        return ~cut[:, 1:] & within[:, 1:] & within[:, :-1] & (first[:, 1:] == first[:, :-1])


def _traits(piece: bytes) -> tuple[int, int, bool, int]:
    """Kinds of the first and last character of a token, whether it begins inside one, how many begin in it."""
    if not piece:
        return _OTHER, _OTHER, False, 0
    begins = [byte & 0xC0 != 0x80 for byte in piece]
    count = sum(begins)
    if not count:  # the inside of a character: of which kind only the token before could say
        return _SPACELESS, _SPACELESS, True, 0
    first = begins.index(True)
    last = len(piece) - 1 - begins[::-1].index(True)
    second = next((i for i in range(first + 1, len(piece)) if begins[i]), len(piece))
    return _kind(piece[first:second]), _kind(piece[last:]), first > 0, count


def _kind(raw: bytes) -> int:
    """Of one character in UTF-8; of the beginning of one what its first byte says."""
    try:
        character = raw.decode()
    except UnicodeDecodeError:
        return _SPACELESS if 0xE4 <= raw[0] <= 0xE9 else _LETTER
    if any(low <= ord(character) <= high for low, high in SPACELESS):
        return _SPACELESS
    return _LETTER if character.isalnum() else _OTHER


def choose(
    ids: Int64[np.ndarray, "batch seq"], keys: UInt64[np.ndarray, " batch"], words: Words
) -> Bool[np.ndarray, "batch seq"]:
    """Whole words in random order until `RATE` of a row's tokens is reached, special ones neither counted nor chosen.

    The word that goes beyond it is taken as often as makes the rate exact on average. What is longer than `LONGEST`
    tokens and than that part of a row, such as a line of code or a number, is cut: it would leave nothing to see.
    """
    batch, seq = ids.shape
    special, columns, starts = words.special[ids], np.arange(seq), words.starts(ids, keys)
    inside = columns - np.maximum.accumulate(np.where(starts, columns, 0), axis=1)
    number = np.cumsum(starts | (inside % max(LONGEST, round(RATE * seq)) == 0), axis=1) - 1
    place = draws(keys[:, None], number, 1) + 2.0 * special
    order = np.argsort(place, axis=1, kind="stable")
    number_there = np.take_along_axis(number, order, axis=1)
    rank = np.broadcast_to(np.arange(seq), (batch, seq))
    new = np.diff(number_there, axis=1, prepend=-1) != 0
    begin = np.maximum.accumulate(np.where(new, rank, 0), axis=1)
    ends = np.where(np.append(new[:, 1:], np.ones((batch, 1), bool), axis=1), rank + 1, seq)
    end = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
    budget = RATE * (seq - special.sum(axis=1, keepdims=True))
    chance = draws(keys[:, None], number_there, 2)
    taken = (budget - begin) / (end - begin) > chance
    chosen = np.empty((batch, seq), dtype=bool)
    np.put_along_axis(chosen, order, taken, axis=1)
    return chosen & ~special


def mask(
    ids: Int64[np.ndarray, "batch seq"], keys: UInt64[np.ndarray, " batch"], words: Words, mask_id: int
) -> tuple[Int64[np.ndarray, "batch seq"], Int64[np.ndarray, "batch seq"]]:
    """Masked ids, and as targets the original ones where a token was chosen, elsewhere -100."""
    chosen = choose(ids, keys, words)
    rows, columns = np.nonzero(chosen)
    fate = draws(keys[rows], columns, 3)
    ordinary = np.flatnonzero(~words.special)
    other = ordinary[(draws(keys[rows], columns, 4) * len(ordinary)).astype(np.int64)]
    old = ids[rows, columns]
    masked = ids.copy()
    masked[rows, columns] = np.where(fate < MASKED, mask_id, np.where(fate < MASKED + RANDOM, other, old))
    return masked, np.where(chosen, ids, NO_TARGET)


def span_counts(tokens: int) -> tuple[int, int]:
    """How many of so many tokens are taken out, and in how many spans."""
    noise = min(max(round(tokens * RATE), 1), tokens - 1)
    return noise, min(max(round(noise / SPAN), 1), tokens - noise)


def span_lengths(inputs: int) -> tuple[int, int]:
    """The most tokens that give inputs of at most so many, the end token among them, and the length of the targets."""
    tokens = 2
    while True:
        noise, spans = span_counts(tokens + 1)
        if tokens + 1 - noise + spans + 1 > inputs:
            break
        tokens += 1
    return tokens, sum(span_counts(tokens)) + 1


def take_out(
    ids: Int64[np.ndarray, "batch seq"],
    keys: UInt64[np.ndarray, " batch"],
    sentinels: Int64[np.ndarray, " spans"],
    end: int,
) -> tuple[Int64[np.ndarray, "batch inputs"], Int64[np.ndarray, "batch targets"]]:
    """Inputs with a sentinel for each span that is taken out, and targets with each sentinel before its span.

    Both end in the token `end`. Every row begins with what stays, and every number of tokens has its own, fixed number
    of spans. The first sentinel stands for the first span.
    """
    batch, seq = ids.shape
    noise, spans = span_counts(seq)
    lengths = np.stack([_parts(keys, seq - noise, spans, 5), _parts(keys, noise, spans, 6)], axis=2)
    borders = np.cumsum(lengths.reshape(batch, 2 * spans), axis=1)[:, :-1]
    turns = np.zeros((batch, seq), dtype=np.int64)
    np.put_along_axis(turns, borders, 1, axis=1)
    part = np.cumsum(turns, axis=1)
    out, first = part % 2 == 1, turns == 1
    names = sentinels[part // 2]
    inputs = np.where(out, names, ids)[~out | first].reshape(batch, -1)
    # In the targets a sentinel stands for all that stays before a span: at the last place of it.
    last = np.append(first[:, 1:] & ~out[:, :-1], np.zeros((batch, 1), dtype=bool), axis=1)
    targets = np.where(out, ids, names)[out | last].reshape(batch, -1)
    return tuple(np.pad(side, ((0, 0), (0, 1)), constant_values=end) for side in (inputs, targets))


def sentinels(tokenizer: Tokenizer) -> Int64[np.ndarray, " spans"]:
    """The ids of <extra_id_0>, <extra_id_1> and so on, as many as the tokenizer has."""
    names = {tokenizer.token_bytes(id).decode("utf-8", "replace"): id for id in tokenizer.special_ids}
    found = list(
        itertools.takewhile(lambda id: id is not None, (names.get(f"<extra_id_{n}>") for n in itertools.count()))
    )
    return np.array(found, dtype=np.int64)


def _parts(keys: np.ndarray, items: int, parts: int, stream: int) -> np.ndarray:
    """`items` cut at random places into `parts` of at least one each: their lengths, int64 [batch, parts]."""
    places = np.argsort(draws(keys[:, None], np.arange(items - 1), stream), axis=1)[:, : parts - 1] + 1
    borders = np.pad(np.sort(places, axis=1), ((0, 0), (1, 1)), constant_values=0)
    borders[:, -1] = items
    return np.diff(borders, axis=1)


def put_back(inputs: list[int], targets: list[int], sentinels: list[int]) -> list[int]:
    """The tokens that `take_out` was given, of one row that holds no sentinels of its own."""
    known, spans, open_ = set(sentinels), {}, []
    for id in targets[:-1]:
        if id in known:
            open_ = spans[id] = []
        else:
            open_.append(id)
    return [each for id in inputs[:-1] for each in (spans[id] if id in known else [id])]
