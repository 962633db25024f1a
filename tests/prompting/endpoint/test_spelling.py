"""Tokens as endpoints show them, and where they lie in a text: what is told is true, whatever is torn."""

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wenlu.prompting.endpoint.spelling import ends, first_beyond, token_bytes

TEXTS = st.text(alphabet="ab 炉火é😀\ufffd", min_size=1, max_size=12)


def cut(text, places):
    """The bytes of a text, in parts."""
    whole = text.encode()
    places = sorted({place % (len(whole) + 1) for place in places})
    return [whole[start:end] for start, end in zip([0, *places], [*places, len(whole)])]


def shown(part, torn):
    try:
        return part.decode()
    except UnicodeDecodeError:
        escaped = "".join(chr(byte) if byte < 0x80 else f"\\x{byte:02x}" for byte in part)
        return part.decode("utf-8", "replace") if torn else f"bytes:{escaped}"


@given(TEXTS, st.lists(st.integers(0, 60), max_size=8), st.booleans())
def test_the_true_ends_are_among_those_told(text, places, torn):
    parts = cut(text, places)
    tokens = [shown(part, torn) for part in parts]
    found, true = ends(tokens, text), list(accumulate(map(len, parts)))
    assert all(least <= end <= greatest for (least, greatest), end in zip(found, true, strict=True))
    if not any("\ufffd" in token for token in tokens):
        assert [least for least, _ in found] == true
    for place in accumulate(map(len, map(str.encode, text)), initial=0):
        starts = [0, *true]
        expected = next((n for n, end in enumerate(true) if starts[n] >= place or end > place), len(true))
        assert first_beyond(found, place) in (expected, None)
        assert torn or "\ufffd" in text or first_beyond(found, place) == expected


@given(TEXTS, st.lists(st.integers(0, 60), max_size=8), st.data())
def test_tokens_of_another_text_do_not_spell_this(text, places, data):
    tokens = [shown(part, False) for part in cut(text, places)]
    other = data.draw(TEXTS.filter(lambda other: other.replace("\ufffd", "") != text.replace("\ufffd", "")))
    if "\ufffd" not in text:
        assert ends(tokens, other) is None
    assert ends([*tokens, "a"], text) is None


def test_bytes_one_by_one_are_told_apart():
    """As a tokenizer of bytes has them: none may stand for more, or the text would be too short."""
    assert ends(["\ufffd"] * 6 + ["a"], "炉火a") == [(n, n) for n in range(1, 8)]


def test_what_may_lie_at_several_places_is_not_guessed():
    found = ends(["\ufffd", "\ufffd", "\ufffd", "\ufffd", "a"], "炉火a")
    assert found == [(1, 3), (2, 4), (3, 5), (6, 6), (7, 7)]
    assert [first_beyond(found, place) for place in (0, 3, 6, 7)] == [0, None, 4, 5]


@pytest.mark.parametrize("token, spelled", [
    ("炉", "炉".encode()), ("bytes:\\xe7\\x82", b"\xe7\x82"), ("bytes: \\xe7", b" \xe7"), ("<0xE7>", b"\xe7"),
    ("bytes: of memory", b"bytes: of memory"), ("<0xE7> ", b"<0xE7> "), ("\ufffd", None), ("a\ufffd", None), ("", b""),
])  # fmt: skip
def test_forms_of_tokens(token, spelled):
    assert token_bytes(token) == spelled


def test_an_empty_token_belongs_to_what_follows():
    """Servers show the first parts of a character as nothing, and the last as all of it."""
    found = ends(["炉", "", "", "火"], "炉火")
    assert found == [(3, 3), (3, 3), (3, 3), (6, 6)] and first_beyond(found, 3) == 1
