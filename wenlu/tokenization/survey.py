"""What a tokenizer makes of text: bytes per token by script, and its vocabulary as readable text."""

import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from wenlu.base.errors import UserError
from wenlu.tokenization.tokenizer import Tokenizer

SCRIPTS = (
    *("Latin", "Han", "Kana", "Hangul", "Cyrillic", "Arabic", "Hebrew", "Greek", "Devanagari", "Thai"),
    *("digits", "punctuation", "space", "other"),
)

_FIRST_WORD = {
    "CJK": "Han",
    "IDEOGRAPHIC": "Han",
    "KANGXI": "Han",
    "HIRAGANA": "Kana",
    "KATAKANA": "Kana",
    **{name.upper(): name for name in SCRIPTS[:10]},
}
"""First word of a character's Unicode name → its script."""

SAMPLES = {
    "English": "All human beings are born free and equal in dignity and rights. They are endowed with reason and "
    "conscience and should act towards one another in a spirit of brotherhood.",
    "Chinese": "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",
    "Japanese": "すべての人間は、生れながらにして自由であり、かつ、尊厳と権利とについて平等である。人間は、理性と"
    "良心とを授けられており、互いに同胞の精神をもって行動しなければならない。",
    "Korean": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 인간은 천부적으로 이성과 양심을 "
    "부여받았으며 서로 형제애의 정신으로 행동하여야 한다.",
    "Russian": "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью "
    "и должны поступать в отношении друг друга в духе братства.",
    "Arabic": "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق. وقد وهبوا عقلاً وضميرًا وعليهم أن يعامل بعضهم بعضًا "
    "بروح الإخاء.",
    "Hebrew": "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם. כולם חוננו בתבונה ובמצפון, לפיכך חובה עליהם לנהוג "
    "איש ברעהו ברוח של אחוה.",
    "Greek": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα. Είναι προικισμένοι "
    "με λογική και συνείδηση, και οφείλουν να συμπεριφέρονται μεταξύ τους με πνεύμα αδελφοσύνης.",
    "Hindi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है। उन्हें बुद्धि और "
    "अन्तरात्मा की देन प्राप्त है और परस्पर उन्हें भाईचारे के भाव से बर्ताव करना चाहिए।",
    "Thai": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ ต่างมีเหตุผลและมโนธรรม และควรปฏิบัติต่อกันด้วยเจตนารมณ์แห่งภราดรภาพ",
}
"""The same text in ten languages: the first article of the Universal Declaration of Human Rights."""


@dataclass(frozen=True)
class ScriptRow:
    """What one script takes; a token over several scripts counts in each by its share of bytes."""

    script: str
    bytes: int
    characters: int
    tokens: float

    @property
    def bytes_per_token(self) -> float:
        return self.bytes / self.tokens


@dataclass(frozen=True)
class TokenRow:
    """One token: its text (bytes that are no whole characters as `\\xNN`) and its bytes."""

    id: int
    text: str
    bytes: bytes
    special: bool


@lru_cache(maxsize=1 << 16)
def script_of(character: str) -> str:
    """One of `SCRIPTS`; digits, punctuation (with currency and mathematics) and spaces are rows of their own."""
    category = unicodedata.category(character)
    if category[0] == "N":
        return "digits"
    if category[0] == "P" or category in ("Sm", "Sc", "Sk"):
        return "punctuation"
    if category[0] == "Z" or character.isspace():
        return "space"
    name = unicodedata.name(character, "").removeprefix("FULLWIDTH ").removeprefix("HALFWIDTH ")
    return _FIRST_WORD.get(name.replace("-", " ").partition(" ")[0], "other")


def survey(tokenizer: Tokenizer, texts: Iterable[str] = tuple(SAMPLES.values())) -> list[ScriptRow]:
    """Bytes per token by script, in the order of `SCRIPTS`, without the scripts that do not occur.

    The tokens of all rows sum to the number of tokens. A text that the tokenizer does not give back exactly raises
    `UserError`: what it dropped would flatter it.
    """
    sizes, characters, tokens = Counter(), Counter(), Counter()
    for text in texts:
        pieces = tokenizer.pieces(tokenizer.encode(text), skip_special=False)
        if b"".join(pieces) != text.encode():
            raise UserError(
                f"the tokenizer is not lossless on {text[:40]!r}: bytes per token would mislead; leave such texts out"
            )
        scripts = [script_of(character) for character in text]
        characters.update(scripts)
        owners = [script for script, character in zip(scripts, text) for _ in range(len(character.encode()))]
        sizes.update(owners)
        _apportion(pieces, owners, tokens)
    return [ScriptRow(script, sizes[script], characters[script], tokens[script]) for script in SCRIPTS if sizes[script]]


def _apportion(pieces: list[bytes], owners: list[str], tokens: Counter) -> None:
    """Add every token to the scripts of its bytes (`owners`: the script of each byte of the text), 1 in all.

    A token that brings no byte, such as the space that some tokenizers put before a text, counts for the next byte.
    """
    position = 0
    for piece in pieces:
        covered = owners[position : position + max(len(piece), 1)] or owners[-1:]
        position += len(piece)
        if covered[0] == covered[-1] and len(set(covered)) == 1:
            tokens[covered[0]] += 1
        else:
            for script, count in Counter(covered).items():
                tokens[script] += count / len(covered)


def vocabulary(tokenizer: Tokenizer, start: int = 0, count: int | None = None) -> list[TokenRow]:
    """`count` tokens (default: all) from the id `start` on; ids without a token are left out."""
    end = tokenizer.vocab if count is None else min(start + count, tokenizer.vocab)
    rows = []
    for id in range(max(start, 0), end):
        if id in tokenizer:
            data = tokenizer.token_bytes(id)
            rows.append(TokenRow(id, _readable(data), data, id in tokenizer.special_ids))
    return rows


def _readable(data: bytes) -> str:
    """Bytes as text: whole printable characters as they are, anything else escaped."""
    text = data.decode("utf-8", "backslashreplace")
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
