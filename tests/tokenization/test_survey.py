"""The survey counts every token once, in the scripts of its bytes."""

import pytest
import tokenizers
from tokenizers import decoders, models

from wenlu.base.errors import UserError
from wenlu.tokenization.learn import learn
from wenlu.tokenization.survey import SAMPLES, SCRIPTS, script_of, survey, vocabulary
from wenlu.tokenization.tokenizer import Tokenizer


@pytest.mark.parametrize(
    ("characters", "script"),
    [
        ("aZéßЖ"[:4], "Latin"),
        ("ａ", "Latin"),
        ("中龘\U00020000々⼀", "Han"),
        ("あカーｱ", "Kana"),
        ("한ㄱ", "Hangul"),
        ("Жы", "Cyrillic"),
        ("عً"[:1], "Arabic"),
        ("ש", "Hebrew"),
        ("Ωά", "Greek"),
        ("नी्", "Devanagari"),
        ("กิ่", "Thai"),
        ("0９٣½Ⅷ", "digits"),
        (".,，。$+—«", "punctuation"),
        (" \n\t\u3000\u00a0\u2028", "space"),
        ("🙂\u200d\u0301\x00\ue000\uffff\u0378", "other"),
    ],
)
def test_scripts(characters, script):
    assert [script_of(character) for character in characters] == [script] * len(characters)


def test_bytes_survey_as_one_byte_a_token():
    rows = survey(learn("byte", []))
    assert {row.script for row in rows} == set(SCRIPTS) - {"digits", "other"}
    assert all(row.bytes_per_token == 1 for row in rows)
    assert sum(row.bytes for row in rows) == sum(len(text.encode()) for text in SAMPLES.values())
    assert sum(row.characters for row in rows) == sum(map(len, SAMPLES.values()))
    assert [row.script for row in rows] == [script for script in SCRIPTS if script in {row.script for row in rows}]


def test_characters_survey_as_one_character_a_token():
    for row in survey(learn("char", SAMPLES.values())):
        assert row.tokens == row.characters


def test_a_token_over_two_scripts_counts_in_both_by_bytes():
    tokenizer = learn("bpe", ["x the the the"] * 9, 270)
    assert len(tokenizer.encode(" the")) == 1
    rows = {row.script: row for row in survey(tokenizer, [" the"])}
    assert (rows["space"].tokens, rows["Latin"].tokens) == (0.25, 0.75)
    assert rows["Latin"].bytes_per_token == 4


def test_rows_sum_to_all_tokens():
    tokenizer = learn("bpe", list(SAMPLES.values()) * 3, 600)
    texts = [*SAMPLES.values(), "", "a中1 🙂"]
    assert sum(row.tokens for row in survey(tokenizer, texts)) == pytest.approx(
        sum(map(len, tokenizer.encode_batch(texts)))
    )
    assert survey(tokenizer, [""]) == []


def test_a_lossy_tokenizer_is_refused():
    inner = tokenizers.Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    inner.decoder = decoders.ByteLevel()
    with pytest.raises(UserError, match="not lossless on 'ab'"):
        survey(Tokenizer(inner), ["ab"])


def test_vocabulary_as_text():
    tokenizer = learn("char", ["a\n中"])
    rows = vocabulary(tokenizer)
    assert len(rows) == tokenizer.vocab
    assert (rows[0].text, rows[0].bytes, rows[0].special) == ("<|endoftext|>", b"<|endoftext|>", True)
    assert (rows[0xE4 + 1].text, rows[0xE4 + 1].special) == ("\\xe4", False)
    assert [(row.id, row.text, row.bytes) for row in rows[257:]] == [
        (257, "\\n", b"\n"),
        (258, "a", b"a"),
        (259, "中", "中".encode()),
    ]
    assert [row.id for row in vocabulary(tokenizer, 258, 10)] == [258, 259]
    assert vocabulary(tokenizer, 1000) == []


@pytest.mark.data
def test_foreign_tokenizers_are_surveyed(data_dir):
    for name in ("stories260K", "tokenizers/minimind_6400", "tokenizers/gpt2"):
        tokenizer = Tokenizer.load(data_dir / name)
        total = sum(len(tokenizer.encode(text)) for text in SAMPLES.values())
        assert sum(row.tokens for row in survey(tokenizer)) == pytest.approx(total)
