"""How the strings of a vocabulary stand for bytes."""

import re
from dataclasses import dataclass
from typing import Any, Literal

from wenlu.base.errors import UserError

TIDIED = (" .", " ?", " !", " ,", " n't", " 'm", " 's", " 've", " 're")
"""What loses its space where a WordPiece tokenizer tidies up (`cleanup` of the tokenizers library, token by token)."""
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_characters() -> dict[str, int]:
    """The characters that stand for bytes in a byte-level vocabulary (`bytes_to_unicode` of GPT-2's encoder.py)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


BYTE_CHARACTERS = _byte_characters()


@dataclass(frozen=True)
class ByteRule:
    """How the strings of a vocabulary become bytes: the `decoder` of a tokenizer.json, as a rule for single tokens."""

    byte_level: bool = False
    """Every character stands for a byte (GPT-2)."""
    byte_fallback: bool = False
    """`<0xNN>` stands for the byte NN (sentencepiece)."""
    inside: str = ""
    """What a token that goes on with a word begins with; before every other one stands a space (WordPiece)."""
    tidied: bool = False
    """No space before full stops and the like (WordPiece)."""
    replacements: tuple[tuple[str, str], ...] = ()
    """Strings exchanged within a token, such as `▁` for a space."""
    leading: Literal["keep", "one space", "all spaces"] = "keep"
    """What is taken off the first token of a text, where the tokenizer itself put a space before the text."""

    @classmethod
    def read(cls, decoder: dict[str, Any] | None, where: str) -> "ByteRule":
        """The rule of a tokenizer.json's `decoder`; one that is no rule for single tokens is a `UserError`."""
        rule: dict[str, Any] = {}
        replacements: list[tuple[str, str]] = []
        fused = False
        for step in _steps(decoder):
            match step:
                case {"type": "ByteLevel"}:
                    rule["byte_level"] = True
                case {"type": "ByteFallback"}:
                    rule["byte_fallback"] = True
                case {"type": "Replace", "pattern": {"String": old}, "content": new}:
                    replacements.append((old, new))
                case {"type": "Metaspace", "replacement": old}:
                    replacements.append((old, " "))
                    if step.get("prepend_scheme", "always") != "never":
                        rule["leading"] = "all spaces"
                case {"type": "WordPiece", "prefix": inside} if inside:
                    rule |= {"inside": inside, "tidied": step.get("cleanup", False), "leading": "one space"}
                case {"type": "Fuse"}:
                    fused = True
                case {"type": "Strip", "content": " ", "start": 1, "stop": 0} if fused:
                    rule["leading"] = "one space"
                case _:
                    raise UserError(
                        f"{where}: the decoder {step.get('type', 'none')!r} is not supported; "
                        "byte-level, Metaspace, byte-fallback and WordPiece tokenizers are"
                    )
        return cls(replacements=tuple(replacements), **rule)

    def bytes_of(self, token: str) -> bytes:
        """The bytes of a token that is not an added one."""
        if self.byte_level and all(character in BYTE_CHARACTERS for character in token):
            return bytes(BYTE_CHARACTERS[character] for character in token)
        if self.byte_fallback and (match := _BYTE_TOKEN.fullmatch(token)):
            return bytes.fromhex(match[1])
        if self.inside:
            token = token.removeprefix(self.inside) if token.startswith(self.inside) else f" {token}"
            for spaced in TIDIED if self.tidied else ():
                token = token.replace(spaced, spaced[1:])
        for old, new in self.replacements:
            token = token.replace(old, new)
        return token.encode()

    def first(self, piece: bytes) -> bytes:
        """What remains of the first token of a text."""
        if self.leading == "one space":
            return piece.removeprefix(b" ")
        return piece.replace(b" ", b"") if self.leading == "all spaces" else piece


def _steps(decoder: dict[str, Any] | None) -> list[dict[str, Any]]:
    if decoder is None:
        return [{}]
    return decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
