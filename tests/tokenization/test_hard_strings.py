"""Strings that break tokenizers go through every kind, whole and streamed, unchanged."""

import time

import pytest

from wenlu.tokenization.learn import learn
from wenlu.tokenization.tokenizer import Tokenizer

HARD = {
    "empty": "",
    "one space": " ",
    "spaces around": "  a  b   ",
    "tabs": "\t\ta\t",
    "line feeds": "\n\n\n",
    "carriage return and line feed": "a\r\nb\r\n\r\n",
    "lone carriage return": "a\rb\r",
    "mixed line ends": "a\r\r\n\n\rb",
    "line and paragraph separators": "a\u2028b\u2029c",
    "next line, form feed, vertical tab": "a\x85b\x0cc\x0bd",
    "separators that Python calls spaces": "a\x1cb\x1dc\x1ed\x1f",
    "spaces of all widths": "a\u00a0\u1680\u2003\u202f\u3000b",
    "NUL": "a\x00b\x00",
    "all of ASCII": "".join(map(chr, range(128))),
    "all of Latin-1": "".join(map(chr, range(256))),
    "byte order mark": "\ufeffa\ufeff",
    "zero-width": "a\u200bb\u200cc\u2060d",
    "noncharacters": "\ufffe\uffff\ufdd0\U0001ffff\U0010ffff",
    "replacement character": "a\ufffdb\ufffd",
    "private use": "\ue000\uf8ff\U000f0000",
    "unassigned": "\u0378\U000e0080",
    "around the surrogates": "\ud7ff\ue000",
    "emoji": "🙂🚀✅",
    "family joined by ZWJ": "👩‍👩‍👧‍👦 👨🏽‍💻",
    "flags": "🇨🇳🇩🇪🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "keycap and variation selectors": "1️⃣ ☺︎ ☺️",
    "Chinese": "子曰：「学而时习之，不亦说乎？」",
    "CJK extension B": "𠀀𠮷𪚥",
    "compatibility ideographs": "豈更車",
    "Japanese and Korean": "カタカナ ｶﾀｶﾅ 한국어 한",
    "right to left": "שלום עולם مرحبا بالعالم",
    "bidirectional controls": "a\u202eb\u202cc\u2066d\u2069",
    "vowel marks": "मनुष्यों มนุษย์ ខ្មែរ",
    "combining marks": "e\u0301 é Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢",
    "a mark alone": "\u0301\u0301",
    "ligatures and full width": "ﬁ ﬀ Ｆｕｌｌ ½ ²",
    "Turkish i and German s": "İıßẞ",
    "special tokens": "<|endoftext|><|im_start|></s><s><pad>[MASK]<unk>",
    "byte tokens": "<0x41><0xE4><0xB8><0xAD><0x0A>",
    "marks of tokenizers": "▁a ▁▁ Ġb Ċ ##c",
    "contractions": "I'm you've they'LL 's 'tis don’t",
    "digits": "3.14159 1234567890 ٣٤ ²³",
    "URL": "https://example.org/" + "a1B2%20" * 300 + "?q=" + "x" * 3000 + "#中文",
    "base64": "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo=" * 60,
    "underscores": "_" * 500 + "-" * 500,
    "mixed scripts": "a中б1ا🙂\u0301 ก\r\n",
    "code": "def f(x):\n    return x if x else {'a': [1, 2]}\t# 注释\n",
}


@pytest.fixture(scope="module", params=["bpe", "unigram", "char", "char:30", "byte"])
def tokenizer(request) -> Tokenizer:
    kind, _, size = request.param.partition(":")
    texts = ["The quick brown fox, it's 1 2 3.\n", *(text for name, text in HARD.items() if name != "emoji" and text)]
    return learn(kind, texts, 700 if kind in ("bpe", "unigram") else int(size) if size else None)


def test_there_are_forty():
    assert len(HARD) >= 40


@pytest.mark.parametrize("name", HARD)
def test_hard_string(tokenizer, name):
    text = HARD[name]
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == tokenizer.decode(ids, skip_special=False) == text
    stream = tokenizer.stream()
    assert "".join(map(stream.push, ids)) == text
    assert stream.flush() == ""
    assert tokenizer._inner.decode(ids, skip_special_tokens=False) == text
    assert tokenizer.encode_batch(["x", text])[1] == ids
    assert tokenizer.eos_id not in ids


@pytest.mark.parametrize(
    ("character", "count"), [("a", 10**6), (" ", 10**6), ("中", 350_000), ("\n", 10**6), ("龘", 350_000)]
)
def test_a_megabyte_of_one_character_takes_linear_time(tokenizer, character, count):
    text = character * count
    start = time.perf_counter()
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert time.perf_counter() - start < 20  # seconds; measured below 1, quadratic time would be hours
