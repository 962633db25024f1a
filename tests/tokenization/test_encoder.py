"""Laws of encoding: the fast library's ids are those of `tokenizers`, for every form, character and cut."""

import random

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, models, pre_tokenizers

from wenlu.tokenization import encoder as module
from wenlu.tokenization.encoder import PROBE, Encoder, whole
from wenlu.tokenization.learn import learn
from wenlu.tokenization.tokenizer import Tokenizer

from tokenizer_forms import FORMS, by_expression, sentencepiece

CORPUS = [
    "The cat sat on the mat; the dogs don't, they'LL bark 1984 times.\n",
    "天地玄黄，宇宙洪荒。日月盈昃，辰宿列张。\n",
    "Ünïcödé 🙂 3.14\r\n",
    PROBE,
] * 5
TEXT = st.text() | st.text(" \n\r\t'sLl1２中，é\u0301\u3000\u200d🏽<|>endoftext\u2581.")
ASCII = "".join(map(chr, range(33, 127)))
MERGED = ("bpe", "qwen2", "llama-bpe", "smollm", "composed", "sentencepiece")
"""Forms in byte-pair encoding."""


@pytest.fixture(scope="module")
def learned() -> dict[str, Tokenizer]:
    found = {name: FORMS[name]() for name in ("qwen2", "llama-bpe", "smollm")}
    found["composed"] = by_expression(r"\p{N}", composed=True)
    found["sentencepiece"] = sentencepiece(pieces=("▁t", "he", "▁the", "aa", "aaa", "炉火", ASCII))
    found |= {kind: learn(kind, CORPUS, 500) for kind in ("bpe", "unigram")}
    return found | {"char": learn("char", CORPUS), "byte": learn("byte", [])}


def _by_library(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [found.ids for found in tokenizer._inner.encode_batch(texts, add_special_tokens=False)]


def _fast(tokenizer: Tokenizer) -> Encoder:
    encoder = Encoder(tokenizer._inner, tokenizer.cut)
    encoder._worth = 0
    return encoder


@pytest.fixture(scope="module")
def opened(learned) -> dict[str, Encoder]:
    return {kind: _fast(learned[kind]) for kind in MERGED}


@settings(max_examples=400, deadline=None)
@given(texts=st.lists(TEXT, max_size=4))
def test_both_libraries_give_the_same_ids(learned, opened, texts):
    for kind, encoder in opened.items():
        assert [ids.tolist() for ids in encoder(texts)] == _by_library(learned[kind], texts), kind
        assert encoder.fast is not None


@pytest.mark.parametrize("kind", ["bpe", "qwen2"])
def test_both_libraries_give_the_same_ids_for_every_character(learned, kind):
    """A character's class, letter, digit, space or other, decides where a text is parted."""
    # Planes 4 to 13 hold nothing, 15 and 16 what is private: some of each.
    codes = [*range(0xD800), *range(0xE000, 0x40000), *range(0x40000, 0x110000, 97), *range(0xE0000, 0xE1000)]
    encoder, characters = _fast(learned[kind]), list(map(chr, codes))
    for start in range(0, len(characters), 1 << 16):
        each = [f"a{c} {c}1{c}" for c in characters[start : start + (1 << 16)]]
        texts = ["\n".join(each[first : first + 256]) for first in range(0, len(each), 256)]
        assert [ids.tolist() for ids in encoder(texts)] == _by_library(learned[kind], texts), hex(start)


def test_both_libraries_give_the_same_ids_for_long_words_and_long_spaces(learned):
    draw = random.Random(0)
    texts = [" " * 5000 + "x" * 5000, "".join(chr(draw.randrange(0x4E00, 0x9FFF)) for _ in range(5000)), "a\n" * 5000]
    for kind in MERGED:
        assert [ids.tolist() for ids in _fast(learned[kind])(texts)] == _by_library(learned[kind], texts), kind


def test_the_fast_library_is_opened_once_there_is_much_text(learned):
    tokenizer = learned["bpe"]
    encoder = Encoder(tokenizer._inner, tokenizer.cut)
    encoder(["little text"])
    assert not encoder._fast
    texts = ["the cat sat "] * 4000
    assert [ids.tolist() for ids in encoder(texts)] == _by_library(tokenizer, texts)
    assert encoder._fast[0] is not None


@pytest.mark.parametrize("kind", ["unigram", "char", "byte"])
def test_no_fast_library_where_no_pairs_are_merged(learned, kind, capsys):
    encoder = _fast(learned[kind])
    assert [ids.tolist() for ids in encoder(CORPUS)] == _by_library(learned[kind], CORPUS)
    assert encoder.fast is None
    assert capsys.readouterr().err == ""


def test_ids_that_differ_are_told_and_not_used(learned, monkeypatch, capsys):
    other = learn("bpe", ["quite another text, of other words\n"] * 9, 300)
    open_fast = module.fastokens.Tokenizer.from_json_str

    class Wrong:
        from_json_str = staticmethod(lambda _: open_fast(other._inner.to_str()))

    monkeypatch.setattr(module.fastokens, "Tokenizer", Wrong)
    capsys.readouterr()
    encoder = _fast(learned["bpe"])
    assert [ids.tolist() for ids in encoder(CORPUS)] == _by_library(learned["bpe"], CORPUS)
    said = " ".join(capsys.readouterr().err.split())
    assert said == "text is encoded by tokenizers, not by fastokens, which is faster: its ids differ"


def test_special_tokens_that_the_fast_library_finds_in_a_text_are_told(capsys):
    """It takes one for a token where the vocabulary lacks its first character."""
    tokenizer = sentencepiece()
    assert _fast(tokenizer)(["a <unk> b"])[0].tolist() == _by_library(tokenizer, ["a <unk> b"])[0]
    assert "its ids differ" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "tokens, text",
    [
        ((AddedToken("  "), AddedToken("<|im|>", normalized=False, lstrip=True, rstrip=True)), "<|im|>  b\n<|im|>"),
        ((AddedToken("the", normalized=False), AddedToken("<x>y", single_word=True)), "<x>ythe"),
    ],
)
def test_added_tokens_that_look_beside_themselves_are_left_to_tokenizers(tokens, text, capsys):
    inner = learn("bpe", CORPUS, 400).copy_of_library()
    inner.add_tokens(list(tokens))
    tokenizer = Tokenizer(inner)
    capsys.readouterr()
    assert _fast(tokenizer)([text])[0].tolist() == _by_library(tokenizer, [text])[0]
    assert "added tokens that take spaces or want words of their own" in " ".join(capsys.readouterr().err.split())


def test_an_expression_with_anchors_is_left_to_tokenizers(learned, capsys):
    inner = learned["qwen2"].copy_of_library()
    split = pre_tokenizers.Split(Regex(r"^#+|#|[^#]+"), "isolated")
    inner.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer = Tokenizer(inner)
    assert _fast(tokenizer)(["a\n##b ##"])[0].tolist() == _by_library(tokenizer, ["a\n##b ##"])[0]
    assert "where a line or a word begins or ends" in " ".join(capsys.readouterr().err.split())


def test_ids_are_not_to_be_written_to(learned):
    for encoder in (_fast(learned["bpe"]), learned["bpe"]._encoder):
        assert not any(ids.flags.writeable for ids in encoder(["one text", "", "x y " * 9000]))


def test_a_form_that_the_fast_library_does_not_know_is_told(capsys):
    vocab = {"a": 0, "b": 1, "<unk>": 2, "▁": 3, "▁b": 4}
    inner = tokenizers.Tokenizer(models.BPE(vocab, [("▁", "b")], unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    encoder = Encoder(inner, whole)
    encoder._worth = 0
    assert encoder(["a b"])[0].tolist() == [3, 0, 4]
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith("text is encoded by tokenizers, not by fastokens, which is faster: ") and "Metaspace" in said


def test_long_texts_are_read_in_parts(learned, monkeypatch):
    text = "".join(CORPUS) * 20
    monkeypatch.setattr(module, "WAVE", 500)
    monkeypatch.setattr(module, "PART", 50)
    for kind in ("bpe", "unigram", "char", "byte"):
        tokenizer = learned[kind]
        assert len(list(_fast(tokenizer)._waves([text, "x"]))) > 3
        assert tokenizer.encode_batch([text, "x", ""]) == _by_library(tokenizer, [text, "x", ""])
