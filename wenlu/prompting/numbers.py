"""Numbers as people write them, in digits (full-width too) and in Chinese numerals, read exactly."""

from __future__ import annotations

import re
from fractions import Fraction

FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20, 0x2212: 0x2D}
"""Full-width forms → ASCII, for `str.translate`; the minus sign → a hyphen."""

_DIGITS = {c: n % 10 for n, c in enumerate("零一二三四五六七八九〇壹贰叁肆伍陆柒捌玖")} | {"两": 2}
_UNITS = {"十": 10, "百": 100, "千": 1000, "拾": 10, "佰": 100, "仟": 1000}
_LARGE = {"亿": 10**8, "万": 10**4}
_CHARACTER = f"(?:[{''.join(sorted(set(_DIGITS) - {'两'}))}{''.join(_UNITS)}万亿点]|两(?=[百千万亿佰仟]))"
_NUMERAL = re.compile(f"负?{_CHARACTER}+(?:分之{_CHARACTER}+)?|两")
"""两 is a two before a unit or alone; after a number it is a weight."""
_PLAIN = r"(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)"
_MIXED = rf"(?:{_PLAIN}\s?(?:[十百千]?[万亿]|[十百千]))+"
_ARABIC = re.compile(rf"(?:(?<![\w)])-)?(?<![A-Za-z\d.])(?:{_MIXED}|{_PLAIN}(?:\s?/\s?{_PLAIN}(?![/\d]))?)")
_ONE_MIXED = re.compile(rf"({_PLAIN})\s?([十百千]?)([万亿]?)")


def written(value: Fraction) -> str:
    """The one form that equal numbers share: 12, -0.5, or 1/3 where no decimals end."""
    if value.denominator == 1:
        return str(value.numerator)
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    places = max(twos, fives)
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    return ("-" if value < 0 else "") + f"{digits[:-places]}.{digits[-places:]}"


def numbers(text: str) -> list[Fraction]:
    """Every number of a running text, in order.

    Chinese numerals only where they can hardly be part of a word: of two characters or more with a unit, of four
    digits or more, or with 点 or 分之. So 一起, 十分 and 三四个 hold none, and 二十 is 20.
    """
    text = text.translate(FULL_WIDTH)
    found = [(match.start(), _arabic(match[0])) for match in _ARABIC.finditer(text)]
    taken = [range(*match.span()) for match in _ARABIC.finditer(text)]
    for match in _NUMERAL.finditer(text):
        value = chinese(match[0]) if _sure(match[0]) else None
        if value is not None and not any(match.start() in span for span in taken):
            found.append((match.start(), value))
    return [value for _, value in sorted(found) if value is not None]


def leading(text: str) -> Fraction | None:
    """The number that a text begins with, after spaces, currency signs and the like; None where it begins otherwise."""
    text = re.sub(r"^[\s*$€¥£￥\"'“(:是为=]+", "", text.translate(FULL_WIDTH))
    if match := _ARABIC.match(text):
        return _arabic(match[0])
    match = _NUMERAL.match(text)
    return chinese(match[0]) if match else None


def _sure(numeral: str) -> bool:
    core = numeral.removeprefix("负")
    if "点" in core or "分之" in core:
        return len(core) >= 3
    with_unit = any(c in _UNITS or c in _LARGE for c in core)
    return len(core) >= (2 if with_unit else 4)


def _arabic(text: str) -> Fraction | None:
    sign, text = (-1, text[1:]) if text.startswith("-") else (1, text)
    if re.search("[十百千万亿]", text):
        parts = [
            Fraction(number.replace(",", "")) * _UNITS.get(small, 1) * _LARGE.get(large, 1)
            for number, small, large in _ONE_MIXED.findall(text)
        ]
        return sign * sum(parts, Fraction(0))
    above, _, below = text.replace(",", "").replace(" ", "").partition("/")
    if below and not Fraction(below):
        return None
    return sign * Fraction(above) / Fraction(below or 1)


def chinese(text: str) -> Fraction | None:
    """A whole Chinese numeral: 一百二十三, 两千零五, 一万二, 三点五, 四分之三, 百分之二十 (as 20), 二〇二四.

    None for what is none.
    """
    if text.startswith("负"):
        value = chinese(text[1:])
        return None if value is None else -value
    if "分之" in text:
        below, above = text.split("分之", 1)
        over, under = chinese(above), Fraction(1) if below == "百" else chinese(below)
        if len(above) > 1 and all(c in _DIGITS for c in above):
            return None  # 十分之八九 is eight or nine tenths
        return over / under if over is not None and under else None
    whole, point, decimals = text.partition("点")
    value = _whole(whole)
    if value is None or (point and (not decimals or not all(c in _DIGITS for c in decimals))):
        return None
    after = "".join(str(_DIGITS[c]) for c in decimals)
    return Fraction(value) + (Fraction(int(after), 10 ** len(after)) if after else 0)


def _whole(text: str) -> int | None:
    if len(text) > 1 and all(c in _DIGITS for c in text):
        return int("".join(str(_DIGITS[c]) for c in text))
    for unit, size in _LARGE.items():
        if unit in text:
            before, after = text.rsplit(unit, 1)
            high = _whole(before)
            low = _DIGITS[after] * size // 10 if len(after) == 1 and _DIGITS.get(after) else _whole(after or "零")
            return None if high is None or low is None or not high or low >= size else high * size + low
    return _below_ten_thousand(text)


def _below_ten_thousand(text: str) -> int | None:
    total, digit, last, zero = 0, None, 10_000, False
    for place, character in enumerate(text):
        if character in _DIGITS:
            if digit is not None or (zero and not _DIGITS[character]):
                return None
            zero = zero or not _DIGITS[character]
            digit = _DIGITS[character] or None
            continue
        unit = _UNITS.get(character)
        if digit is None and unit == 10 and place == 0:
            digit = 1
        if unit is None or digit is None or unit >= last:
            return None
        total, digit, last, zero = total + digit * unit, None, unit, False
    if digit is None:
        return total if text and (not zero or text in ("零", "〇")) else None
    # 二百五 is 250, for a nought would be said (二百零五).
    return total + digit * (last // 10 if total and not zero else 1)
