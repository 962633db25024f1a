"""What a template says in its own words, apart from what it fills in: changed without touching Jinja."""

from __future__ import annotations

import re
from collections.abc import Callable

_TAG = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
_FIRST = 0xF0000
"""Of the characters (for private use) that stand for tags while the words around them change."""
_HAN = re.compile(r"[\u3400-\u9fff]")


def change(source: str, changed: Callable[[str], str]) -> str:
    """The source with `changed` over it, in which each tag is one character that no text holds."""
    tags: list[str] = []

    def hide(match: re.Match) -> str:
        tags.append(match[0])
        return chr(_FIRST + len(tags) - 1)

    return re.sub(
        f"[{chr(_FIRST)}-{chr(_FIRST + 0xFFFD)}]",
        lambda match: tags[ord(match[0]) - _FIRST],
        changed(_TAG.sub(hide, source)),
    )


def words(source: str) -> str:
    """The source without its tags."""
    return _TAG.sub("", source)


def is_chinese(source: str) -> bool:
    """Whether a template's own words are Chinese, by whether they hold a Chinese character."""
    return bool(_HAN.search(words(source)))
