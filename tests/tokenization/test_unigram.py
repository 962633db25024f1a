"""Words are those of the library's expression; pieces are chosen from them, the same every time."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from wenlu.tokenization import learn as module
from wenlu.tokenization.encoder import cut_at_spaces, whole
from wenlu.tokenization.learn import learn
from wenlu.tokenization.tokenizer import Tokenizer
from wenlu.tokenization.unigram import choose_pieces, repeated
from wenlu.tokenization.words import EXPRESSION, count_words, expression

OURS = pre_tokenizers.Split(Regex(EXPRESSION), "isolated")
GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)


@settings(max_examples=300, deadline=None)
@given(
    text=st.text(st.characters(exclude_categories=("Cs", "Cn")))
    | st.text(alphabet="ab's 't\t\r\n\u00a0\x1c\x1f\u3000天é\u0301नी1½.,", max_size=40)
)
def test_words_are_those_of_the_library(text):
    found = expression(True).findall(text)
    assert "".join(found) == text
    assert found == [word for word, _ in OURS.pre_tokenize_str(text)]
    spans = [span for _, span in GPT2.pre_tokenize_str(text)]
    assert expression(False).findall(text) == [text[start:end] for start, end in spans]


def test_long_words_count_in_parts():
    assert count_words(["中" * 10 + " a a"], 4, marks=True) == Counter({"中" * 4: 2, "中" * 2: 1, " a": 2})
    assert count_words([], 4, marks=True) == Counter()


def test_words_are_repeated_as_often_as_they_occur():
    lists = list(repeated(Counter({"a": 10_000, "b": 1})))
    assert Counter(word for words in lists for word in words) == {"a": 10_000, "b": 1}
    assert max(map(len, lists)) < 5000


def test_pieces_are_frequent_words_and_every_common_character():
    words = Counter({" the": 90, " cat": 40, " cats": 20, "天地": 30, "q": 1})
    pieces = dict(choose_pieces(words, 14))
    assert len(pieces) == 14
    assert {" the", " cat", "天地"} <= pieces.keys()
    assert {" ", "t", "h", "e", "c", "a"} <= pieces.keys()
    assert list(pieces.values()) == sorted(pieces.values(), reverse=True)
    assert all(score < 0 for score in pieces.values())
    assert choose_pieces(words, 14) == list(pieces.items())


def test_what_a_text_does_not_hold_is_said(capsys):
    tokenizer = learn("unigram", ["ab ab ab"], 1000)
    assert tokenizer.vocab < 300
    said = " ".join(capsys.readouterr().err.split())
    assert f"has pieces for {tokenizer.vocab} tokens only, not 1,000" in said


def test_sampling_is_said(monkeypatch, capsys):
    monkeypatch.setattr(module, "BLOCK", 20)
    monkeypatch.setattr(module, "UNIGRAM_BYTES", 500)
    learn("unigram", ["the cat sat on the mat\n"] * 50, 280)
    assert "pieces are learned from" in " ".join(capsys.readouterr().err.split())


def test_the_size_is_kept_and_no_text_is_read_as_the_name_of_a_byte():
    tokenizer = learn("unigram", ["<0x41> <0x58><|endoftext|> A the cat\n"] * 40, 290)
    assert tokenizer.vocab == 290
    for text, name in (("<0x41>", 1 + 0x41), (" <0x58>", 1 + 0x58), ("x<|endoftext|>", 0)):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert name not in ids


@pytest.mark.parametrize("change", ["regex", "normalizer", "metaspace"])
def test_a_foreign_unigram_is_not_cut(change):
    inner = learn("unigram", ["the cat sat\n"] * 9, 290)._inner
    if change == "regex":
        inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s+"), "isolated")
    elif change == "metaspace":
        inner.pre_tokenizer = pre_tokenizers.Metaspace()
    else:
        from tokenizers import normalizers

        inner.normalizer = normalizers.NFKC()
    tokenizer = Tokenizer(inner)
    assert (tokenizer.kind, tokenizer.cut) == ("other", whole)
    assert learn("unigram", ["the cat sat\n"] * 9, 290).cut is cut_at_spaces
