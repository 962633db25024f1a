"""Masks and spans: the published rates, words whole, nothing lost, the same for the same key."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from wenlu.data.batch import NO_TARGET
from wenlu.data.corrupt import Words, choose, mask, put_back, span_counts, span_lengths, take_out
from wenlu.data.keyed import keys
from wenlu.tokenization.learn import learn

ENGLISH = "The old stove's embers, half-forgotten, were glowing; nobody remembered who had lighted it in 1843.\n" * 9
CHINESE = "满纸荒唐言，一把辛酸泪。都云作者痴，谁解其中味？列位看官：你道此书从何而来？\n" * 9
SENTINELS = np.arange(999, 899, -1)


@pytest.fixture(scope="module")
def one():
    """A tokenizer whose tokens are parts of words, single characters, and bytes of rare ones."""
    return learn("bpe", [ENGLISH, CHINESE.replace("痴", "")], 340)


@pytest.fixture(scope="module")
def words(one):
    return Words.of(one)


def rows(tokenizer, text: str, seq: int = 60, count: int = 400) -> np.ndarray:
    ids = np.array(tokenizer.encode(text))
    return np.stack([np.roll(ids, -n)[:seq] for n in range(count)])


def some(count: int, epoch: int = 0) -> np.ndarray:
    return keys(1, np.arange(count), np.full(count, epoch))


def shown(tokenizer, words, ids: np.ndarray, key: np.ndarray) -> list[bytes]:
    parts: list[bytes] = []
    for start, id in zip(words.starts(ids[None], key)[0], ids.tolist(), strict=True):
        parts += [b""] if start else []
        parts[-1] += tokenizer.token_bytes(id)
    return parts


def test_words_are_whole(one, words):
    ids = np.array(one.encode("nobody remembered half-forgotten 1843,embers!\nwho"))
    assert len(ids) > 12
    found = [part.decode().strip(" ") for part in shown(one, words, ids, some(1))]
    expected = ["nobody", "remembered", "half", "-", "forgotten", "1843", ",", "embers", "!", "\n", "who"]
    assert [part for part in found if part] == expected


def test_chinese_words_are_one_to_three_characters_and_none_is_cut():
    tokenizer = learn("char", [CHINESE], 20)
    ids, lengths = np.array(tokenizer.encode("列位看官你道此书从何而来都云作者痴，谁解")), set()
    words = Words.of(tokenizer)
    assert len(ids) > 30, "some characters are in bytes"
    for key in some(200):
        found = [part.decode() for part in shown(tokenizer, words, ids, key[None])]
        assert "，" in found, "a mark is no part of a word"
        lengths |= {len(part) for part in found if part != "，"}
    assert lengths == {1, 2, 3}


def test_tokens_of_several_characters_make_no_longer_words():
    tokenizer = learn("bpe", [CHINESE] * 3, 420)
    words, ids = Words.of(tokenizer), np.array(tokenizer.encode("满纸荒唐言一把辛酸泪都云作者痴谁解其中味"))
    longest = max(len(tokenizer.token_bytes(int(id)).decode()) for id in ids)
    for key in some(100):
        found = [len(part.decode()) for part in shown(tokenizer, words, ids, key[None])]
        assert max(found) <= max(3, longest)


@pytest.mark.parametrize("text", [ENGLISH, CHINESE])
def test_the_rates_are_those_of_the_paper(one, words, text):
    ids = rows(one, text, count=4000)
    masked, targets = mask(ids, some(4000), words, one.eos_id)
    chosen = targets != NO_TARGET
    assert chosen.mean() == pytest.approx(0.15, abs=0.004)
    kinds = [
        (masked == one.eos_id) & chosen,
        chosen & (masked != one.eos_id) & (masked != ids),
        chosen & (masked == ids),
    ]
    counts = [int(kind.sum()) for kind in kinds]
    vocab = int((~words.special).sum())
    expected = np.array([0.8, 0.1 * (1 - 1 / vocab), 0.1 + 0.1 / vocab]) * chosen.sum()
    assert stats.chisquare(counts, expected).pvalue > 1e-3
    assert np.array_equal(masked[~chosen], ids[~chosen]) and np.array_equal(targets[chosen], ids[chosen])


def test_every_place_and_every_token_of_a_word_is_chosen_alike(words):
    """χ² over places, for words of one token; the last word of a choice may be any."""
    bare = dataclasses.replace(words, left=np.zeros_like(words.left), inside=np.zeros_like(words.inside))
    ids = np.full((6000, 20), 300)
    chosen = choose(ids, some(6000), bare)
    assert chosen.sum() == 6000 * 3, "three of twenty, exactly"
    assert stats.chisquare(chosen.sum(axis=0)).pvalue > 1e-3


def test_random_tokens_are_any_but_special_ones(one, words):
    ids = rows(one, ENGLISH, count=2000)
    masked, targets = mask(ids, some(2000), words, one.eos_id)
    other = masked[(targets != NO_TARGET) & (masked != one.eos_id) & (masked != ids)]
    assert not words.special[other].any()
    assert len(np.unique(other)) > 0.9 * (~words.special).sum()


def test_words_are_chosen_whole(one, words):
    ids = rows(one, ENGLISH + CHINESE)
    chosen, starts = choose(ids, some(400), words), words.starts(ids, some(400))
    assert not (chosen[:, 1:] != chosen[:, :-1])[~starts[:, 1:]].any()


def test_what_is_longer_than_any_word_is_cut(one, words):
    ids = np.array(one.encode("abcdefghijklmnopqrstuvwxyz" * 12))[None, :200].repeat(300, axis=0)
    chosen = choose(ids, some(300), words)
    assert chosen.mean() == pytest.approx(0.15, abs=0.005) and chosen.any(axis=1).all()
    assert chosen.sum(axis=1).max() <= 60, "never all of it"


def test_special_tokens_are_never_chosen(one, words):
    ids = rows(one, ENGLISH, seq=5)
    ids[:, 2] = one.eos_id
    chosen = choose(ids, some(400), words)
    assert not chosen[:, 2].any() and chosen.mean() == pytest.approx(0.8 * 0.15, abs=0.02)
    assert not choose(np.full((3, 4), one.eos_id), some(3), words).any()


def test_masks_are_of_their_key_alone(one, words):
    ids = rows(one, ENGLISH + CHINESE)
    whole = mask(ids, some(400), words, one.eos_id)
    part = mask(ids[30:40], some(400)[30:40], words, one.eos_id)
    assert all(np.array_equal(a[30:40], b) for a, b in zip(whole, part, strict=True))
    assert (mask(ids, some(400, epoch=1), words, one.eos_id)[1] != whole[1]).any(axis=1).mean() > 0.99
    restored = np.where(whole[1] != NO_TARGET, whole[1], whole[0])
    assert np.array_equal(restored, ids), "ids and targets together are the text"


def test_lengths_are_those_of_t5():
    """568 tokens for 512 inputs and 114 targets (T5's own figures)."""
    assert span_lengths(512) == (568, 114)
    for inputs in (8, 33, 128, 1024):
        tokens, targets = span_lengths(inputs)
        noise, spans = span_counts(tokens)
        assert inputs - 1 <= tokens - noise + spans + 1 <= inputs and targets == noise + spans + 1


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 600), st.integers(0, 10**6))
def test_every_token_comes_back(seq, first):
    ids = np.arange(5 * seq).reshape(5, seq) % 800
    sample = keys(0, first + np.arange(5), np.zeros(5, dtype=np.int64))
    inputs, targets = take_out(ids, sample, SENTINELS, 1)
    noise, spans = span_counts(seq)
    assert inputs.shape == (5, seq - noise + spans + 1) and targets.shape == (5, noise + spans + 1)
    assert (inputs[:, -1] == 1).all() and (targets[:, -1] == 1).all() and (targets[:, 0] == 999).all()
    for row in range(5):
        assert put_back(inputs[row].tolist(), targets[row].tolist(), SENTINELS.tolist()) == ids[row].tolist()
        assert [id for id in inputs[row] if id > 899] == SENTINELS[:spans].tolist(), "in falling order"


def test_spans_have_the_lengths_of_t5():
    """Cutting n into k parts at random gives the first part a known distribution: χ² against it."""
    ids = np.zeros((20000, 141), dtype=np.int64)
    _, targets = take_out(ids, keys(3, np.arange(20000), np.zeros(20000, dtype=np.int64)), SENTINELS, 1)
    noise, spans = span_counts(141)
    assert (noise, spans) == (21, 7)
    first = np.argmax(targets == 998, axis=1) - 1
    lengths = np.arange(1, noise - spans + 2)
    from scipy.special import comb

    chance = comb(noise - 1 - lengths, spans - 2) / comb(noise - 1, spans - 1)
    counts = np.bincount(first, minlength=len(lengths) + 1)[1:]
    few = chance * 20000 < 5
    counts, chance = np.append(counts[~few], counts[few].sum()), np.append(chance[~few], chance[few].sum())
    assert stats.chisquare(counts, 20000 * chance).pvalue > 1e-3
    assert first.mean() == pytest.approx(3, rel=0.02)
