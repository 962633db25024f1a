"""Learning a tokenizer: deterministic, bounded, and said when less came out than was asked for."""

import lzma
import re
import subprocess
import sys
import time

import pytest

from wenlu.base.errors import UserError
from wenlu.tokenization import learn as module
from wenlu.tokenization.learn import (
    LONGEST_TOKEN,
    Sample,
    Spec,
    choose_vocab,
    learn,
    parse_spec,
)
from wenlu.tokenization.unigram import LONGEST_PIECE

CORPUS = ["the cat sat on the mat, the dog on the log\n", "天地玄黄，宇宙洪荒；天地玄黄\n"] * 20


def test_specs(tmp_path, monkeypatch):
    assert parse_spec("bpe") == Spec("bpe")
    assert parse_spec("bpe:8192") == Spec("bpe", 8192)
    assert parse_spec("unigram:8192") == Spec("unigram", 8192)
    assert parse_spec("char") == Spec("char")
    assert parse_spec("char:3000") == Spec("char", 3000)
    assert parse_spec("byte") == Spec("byte")
    assert parse_spec(str(tmp_path)) == Spec("folder", folder=tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bpe").mkdir()
    assert parse_spec("bpe").kind == "bpe"
    assert parse_spec("./bpe").kind == "folder"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "bpee",
            r"'bpee' is neither bpe, unigram, char, bpe:N, unigram:N, char:N, byte nor .* folder. Did you mean 'bpe'\?",
        ),
        ("/no/such/folder", "nor an existing folder"),
        ("", "nor an existing folder"),
        ("bpe:", "the size must be a whole number, as in bpe:4096"),
        ("bpe:8k", "the size must be a whole number, as in bpe:4096"),
        ("bpe:-1", "the size must be a whole number"),
        ("bpe:²", "the size must be a whole number"),
        ("bpe:256", "needs at least 257 tokens .*, not 256"),
        ("unigram:258", "a unigram tokenizer needs at least 259 tokens .* two pieces.*, not 258"),
        ("unigran:300", r"Did you mean 'unigram'\?"),
        ("char:0", "must keep at least 1 character, not 0"),
        ("byte:256", "byte always has 257 tokens; write byte alone"),
    ],
)
def test_wrong_specs_are_refused(spec, message):
    with pytest.raises(UserError, match=message):
        parse_spec(spec)


def test_wrong_requests_are_refused():
    with pytest.raises(UserError, match=r"kind 'wordpiece' cannot be learned: choose bpe, unigram, char or byte"):
        learn("wordpiece", CORPUS)
    with pytest.raises(UserError, match="a byte tokenizer always has 257 tokens, not 300"):
        learn("byte", CORPUS, 300)
    with pytest.raises(UserError, match="needs at least 257 tokens"):
        learn("bpe", CORPUS, 256)
    for kind in ("bpe", "unigram", "char"):
        with pytest.raises(UserError, match=f"no text to learn a {kind} tokenizer from"):
            learn(kind, ["", ""])
        with pytest.raises(UserError, match="lone surrogate"):
            learn(kind, ["\ud800"])


def test_vocabulary_grows_with_the_corpus():
    assert choose_vocab(0, 0) == 320
    assert choose_vocab(100_000, 65) == 576
    assert choose_vocab(1_115_394, 65) == 1600
    assert choose_vocab(2_600_000, 4400) == 4416
    assert choose_vocab(100_000_000, 200) == 11648
    assert choose_vocab(10**10, 9000) == 32768
    sizes = [choose_vocab(10**power, 100) for power in range(2, 11)]
    assert sizes == sorted(sizes)
    assert all(size % 64 == 0 for size in sizes)


def test_bpe_learns_merges_and_keeps_the_size():
    tokenizer = learn("bpe", CORPUS, 298)
    assert tokenizer.vocab == 298
    tokens = {tokenizer.token_bytes(id) for id in range(298)}
    assert {b" the", "天地玄黄".encode()} <= tokens
    assert {bytes([byte]) for byte in range(256)} <= tokens


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_learning_is_the_same_every_time(kind):
    code = f"from wenlu.tokenization.learn import learn\nprint(learn({kind!r}, {CORPUS!r}, 300).fingerprint)"
    processes = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        for _ in range(2)
    }
    assert processes == {learn(kind, iter(CORPUS), 300).fingerprint} == {learn(kind, CORPUS, 300).fingerprint}


@pytest.mark.data
def test_bpe_of_a_novel_is_the_same_every_time(data_dir):
    text = lzma.decompress((data_dir / "english" / "ABronte_Agnes.txt.xz").read_bytes()).decode("utf-8-sig")
    first, second = learn("bpe", [text]), learn("bpe", [text])
    assert first.fingerprint == second.fingerprint
    assert first.lossless_on(text)


def test_what_a_text_does_not_hold_is_said(capsys):
    tokenizer = learn("bpe", ["ab ab ab"], 1000)
    assert tokenizer.vocab < 300
    assert f"has merges for {tokenizer.vocab} tokens only, not 1,000" in _one_line(capsys)
    assert learn("char", ["abc"], 10).vocab == 257 + 3
    assert "has 3 distinct characters only, not 10" in _one_line(capsys)
    learn("char", ["abc"])
    assert _one_line(capsys) == ""


def _one_line(capsys) -> str:
    return " ".join(capsys.readouterr().err.split())


def test_characters_have_ids_in_order_and_rare_ones_are_bytes():
    full = learn("char", CORPUS)
    characters = sorted(set("".join(CORPUS)))
    assert full.vocab == 257 + len(characters)
    assert full.encode("".join(characters)) == list(range(257, full.vocab))
    few = learn("char", ["aaabbbccd天"], 3)
    assert few.vocab == 260
    assert few.encode("abc") == [257, 258, 259]
    assert few.encode("天") == [1 + byte for byte in "天".encode()]
    assert few.decode(few.encode("天d")) == "天d"


def test_a_sample_is_bounded_even_and_repeatable(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 100)
    texts = [f"{number:04d}" + "x" * 396 for number in range(500)]
    sample = Sample(iter(texts), limit=50_000)
    assert sample.total == 200_000
    assert 15_000 < sample.kept == sum(map(len, sample.blocks)) <= 50_000
    assert sample.blocks == Sample(texts, limit=50_000).blocks
    heads = [int(block[:4]) for block in sample.blocks if block[:4].isdigit()]
    assert heads == sorted(heads)
    assert sum(head < 250 for head in heads) == pytest.approx(len(heads) / 2, rel=0.5)
    whole = Sample(texts, limit=10**6)
    assert whole.kept == whole.total
    assert "".join(whole.blocks) == "".join(texts)


def test_many_tiny_texts_are_bounded():
    assert len(Sample(("a" for _ in range(10_000)), limit=6500).blocks) <= 100


def test_sampling_is_said(monkeypatch, capsys):
    monkeypatch.setattr(module, "BLOCK", 20)
    monkeypatch.setattr(module, "SAMPLE_BYTES", 500)
    learn("bpe", CORPUS, 260)
    assert re.search(r"merges are learned from \d+ of [\d,]+ bytes, evenly sampled", _one_line(capsys))


def test_tokens_are_of_bounded_length():
    tokenizer = learn("bpe", ["-" * 60 + "\n" + "子曰学而时习之不亦说乎有朋自远方来" * 3] * 50, 1000)
    assert max(len(tokenizer.token_bytes(id)) for id in range(1, tokenizer.vocab)) <= LONGEST_TOKEN
    tokenizer = learn("unigram", ["-" * 60 + "\n" + "子曰学而时习之不亦说乎有朋自远方来" * 3] * 50, 1000)
    longest = max(len(tokenizer.token_bytes(id).decode()) for id in range(257, tokenizer.vocab))
    assert 4 < longest <= LONGEST_PIECE


@pytest.mark.data
def test_chinese_without_any_space_is_learned_in_bounded_time(data_dir):
    text = lzma.decompress((data_dir / "chinese" / "红楼梦.txt.xz").read_bytes()).decode("utf-8")
    run = re.sub(r"\W", "", text)
    start = time.perf_counter()
    tokenizer = learn("bpe", [run], 4096)
    assert time.perf_counter() - start < 20  # seconds; measured 3, and 38 to 147 with the run whole
    assert tokenizer.lossless_on(run)
