"""Rules that mend text: each a function from text to text, which returns plain text as it came, and fast.

They work on parts of a document that end with a line, and know nothing of each other; `TEXT_RULES` is their order.
"""

import html
import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import lru_cache
from html.entities import html5


def unicode(text: str) -> str:
    """Mojibake is decoded anew where that is certain (ftfy), C1 bytes are read as Windows-1252, the form is NFC.

    Full-width punctuation, curly quotes, ligatures and line breaks stay as they are.
    """
    if text.isascii():
        return text
    bad, mended = _ftfy()
    runs = {text[max(0, m.start() - 2) : m.end() + 2] for m in _SUSPECT.finditer(text)}
    if found := [run for run in runs if bad(run)]:
        lines = [part for line in text.splitlines(keepends=True) for part in _stretches(line)]
        text = "".join(mended(line) if any(run in line for run in found) else line for line in lines)
    if _C1.search(text):
        text = _C1.sub(lambda match: match[0].encode("latin-1").decode("cp1252", "ignore"), text)
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)


STRETCH = 4096
"""Characters of a line that are mended together: ftfy goes over all of them again for each thing that it mends."""


def _stretches(line: str) -> Iterator[str]:
    """A line; a long one in parts, each of which begins with a character that no mojibake goes on with."""
    start = 0
    while len(line) - start > STRETCH and (match := _BORDER.search(line, start + STRETCH)):
        yield line[start : match.start()]
        start = match.start()
    yield line[start:]


_BORDER = re.compile("[ \n\u3000-\U0010ffff]")
_C1 = re.compile("[\x80-\x84\x86-\x9f]")
_SUSPECT = re.compile("[^\x00-\x7f\u3000-\U0010ffff]+")
"""What mojibake is made of, so that only the different ones of these runs are looked at, with their neighbours."""


@lru_cache(maxsize=1)
def _ftfy() -> tuple[Callable[[str], bool], Callable[[str], str]]:
    """Whether a text looks like mojibake, and the mended text; the package is imported only where it is needed."""
    import ftfy
    from ftfy.badness import is_bad

    config = ftfy.TextFixerConfig(
        unescape_html=False,
        remove_terminal_escapes=False,
        fix_latin_ligatures=False,
        fix_character_width=False,
        uncurl_quotes=False,
        fix_line_breaks=False,
        remove_control_chars=False,
        normalization=None,
    )
    return is_bad, lambda line: ftfy.fix_encoding(line, config)


def markup(text: str) -> str:
    """Left-over HTML: known tags go (a block's end becomes a line end), known entities become what they stand for.

    Text that shows code keeps it: between ``` fences, in backticks, and whole sources of HTML or XML.
    """
    if "<" not in text and "&" not in text and "bsp;" not in text:
        return text
    if _SOURCE.match(text):
        return text
    if "```" in text:
        parts = re.split(r"(^```.*?^```[^\n]*$)", text, flags=re.MULTILINE | re.DOTALL)
        return "".join(part if part.startswith("```") else _without_markup(part) for part in parts)
    return _without_markup(text)


def _without_markup(text: str) -> str:
    if "<" in text:
        if _SCRIPT_END.search(text):
            text = _SCRIPT.sub("", text)
        text = _PAIR.sub(lambda match: match[0] if _quoted(match) else match[2], text)
        text = _TAG.sub(_line_end, text)
    for _ in range(2):  # twice: a page saved from a page has &amp;nbsp;
        if "&" not in text:
            break
        before, text = text, _ENTITY.sub(_character, text)
        if text == before:
            break
    return _TORN_SPACE.sub(" ", text) if "bsp;" in text else text


def _quoted(match: re.Match) -> bool:
    """Whether a tag or entity stands in backticks or quotes: text that speaks of it."""
    return (
        match.start() > 0 and match.string[match.start() - 1] in "`\"'“" and match.string[match.end() :][:1] in "`\"'”"
    )


def _line_end(match: re.Match) -> str:
    if _quoted(match):
        return match[0]
    return "\n" if (match[1] or "").lower() in _BLOCKS else ""


def _character(match: re.Match) -> str:
    entity = match[0]
    if (entity[1] != "#" and entity[1:] not in html5) or _quoted(match):
        return entity
    return html.unescape(entity).replace("\xa0", " ")


_BLOCKS = frozenset(
    ["br", "p", "div", "li", "tr", "h1", "h2", "h3", "h4", "h5", "h6", "table", "ul", "ol", "dd", "dt", "hr"]
)
_NAMES = (
    "br|p|div|li|tr|h[1-6]|ul|ol|dl|dd|dt|blockquote|hr|span|strong|em|font|img|td|th|tbody|thead|center|sup|sub|iframe|"
    "noscript|figcaption|wbr|strike"
)
_PLACEHOLDERS = (
    "a|table|section|article|header|footer|nav|form|label|input|button|object|param|source|embed|video|audio|figure|link|"
    "meta|abbr|cite|small|big|ins|del|code|pre|option|select"
)
"""Names that usage texts also write as <name>: tags only where they close or carry an attribute."""
_ATTRIBUTES = r"""(?:\s+[a-zA-Z_:@][-\w:.]*\s*=\s*(?:"[^"<>]*"|'[^'<>]*'|[^\s"'<>]+))"""
_TAG = re.compile(
    rf"<(?:/?({_NAMES}){_ATTRIBUTES}*\s*/?|(?:{_PLACEHOLDERS}){_ATTRIBUTES}+\s*/?|/(?:{_PLACEHOLDERS})|!--[^<>]*--)>",
    re.IGNORECASE,
)
_PAIR = re.compile(r"<([biqsu])>([^<>\n]*)</\1>", re.IGNORECASE)
_SCRIPT = re.compile(r"<(script|style)\b[^<>]*>.{0,20000}?</\1\s*>", re.IGNORECASE | re.DOTALL)
_SCRIPT_END = re.compile(r"</(?:script|style)", re.IGNORECASE)
_SOURCE = re.compile(r"\s*<(?:!doctype|html|\?xml|svg)\b", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:[A-Za-z][A-Za-z0-9]{1,30}|#[0-9]{2,7}|#[xX][0-9a-fA-F]{2,6});")
_TORN_SPACE = re.compile(r"(?<![A-Za-z0-9&])n?bsp;")


def controls(text: str) -> str:
    """Control and invisible characters go, but tab, line end, and joiners between letters or in emoji.

    Special spaces become plain ones, odd line separators line ends; a run of U+FFFD becomes a single one.
    """
    if text.isascii():
        if not text.encode().translate(None, _PLAIN):
            return text
    elif not _INVISIBLE.search(text):
        return text
    text = _LINE_END.sub("\n", text)
    text = _SPACE.sub(" ", text)
    text = _JOINERS.sub(_joining, _UNSEEN.sub("", text))
    return re.sub("\ufffd{2,}", "\ufffd", text)


_PLAIN = bytes([*range(32, 127), 9, 10])
_UNSEEN_CLASS = (
    "\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffc\ufdd0-\ufdef\ufffe\uffff"
)
_SPACE_CLASS = "\xa0\u1680\u2000-\u200a\u202f\u205f"
_JOINER_CLASS = "\u200c\u200d\ufe00-\ufe0f"
_INVISIBLE = re.compile(f"[\x0b\x0c\x85\u2028\u2029{_UNSEEN_CLASS}{_SPACE_CLASS}{_JOINER_CLASS}]|\ufffd\ufffd")
_LINE_END = re.compile("[\x0b\x0c\x85\u2028\u2029]")
_UNSEEN = re.compile(f"[{_UNSEEN_CLASS}]")
_SPACE = re.compile(f"[{_SPACE_CLASS}]")
_JOINERS = re.compile(f"[{_JOINER_CLASS}]+")


def _joining(match: re.Match) -> str:
    """Joiners, where they follow a letter or sign beyond ASCII and do not end a word; 1\ufe0f\u20e3 is a keycap."""
    before, after = match.string[match.start() - 1 : match.start()], match.string[match.end() : match.end() + 1]
    joins = (
        before > "\x7f" and not before.isspace() and (match[0][-1] >= "\ufe00" or not (after.isspace() or not after))
    )
    return match[0] if joins or after == "\u20e3" else ""


def adverts(text: str) -> str:
    """What sites put into texts: adverts with an address, navigation bars, lines like "next page" or "share this"."""
    windows: dict[int, int] = {}
    for sign in _ADVERT_SIGNS:
        place = text.find(sign)
        while place >= 0:
            start, end = _line_around(text, place)
            windows[start] = max(end, windows.get(start, 0))
            place = text.find(sign, end)
    if not windows:
        return text
    parts, position = [], 0
    for start, end in sorted(windows.items()):
        start = max(start, position)
        line = text[start:end]
        after = _ADVERT.sub("", line) if any(sign in line for sign in "说读章告载网") else line
        whole = text[start - 1 : start] in ("", "\n") and text[end : end + 1] in ("", "\n")
        gone = whole and _ADVERT_LINE.fullmatch(after) is not None
        parts += [text[position:start], "" if gone else after]
        position = max(position, end + (gone and end < len(text)))
    return "".join([*parts, text[position:]])


_NEAR = 160
"""Characters around an advert's sign that are looked at."""


def _line_around(text: str, place: int) -> tuple[int, int]:
    """The line in which a place lies, of a long one its neighbourhood; no farther than that is any line end looked for,
    or a text without them would be gone through for every sign."""
    far = 2 * _NEAR + 1
    before, after = text.rfind("\n", max(0, place - far), place), text.find("\n", place, place + far)
    start = before + 1 if before >= 0 else max(0, place - far)
    end = after if after >= 0 else min(len(text), place + far)
    return (start, end) if end - start <= 2 * _NEAR else (max(start, place - _NEAR), min(end, place + _NEAR))


_ADVERT_SIGNS = (
    *("www.", "http", "尽在", "小说整理"),
    *("一页", "后页", "首页", "目录", "书页", "一章", "书签", "推荐票", "推荐本书", "本站"),
    *("hare this", "ead more", "ack to top", "eave a comment", "kip to", "ewsletter", "ights reserved", "lick here"),
    *("se cookies", "ses cookies"),
)
_CLAUSE = "[^。！？；：“”\\n!?]"
_ADVERT = re.compile(
    rf"{_CLAUSE}{{0,30}}(?:小.?说|阅.?读|书.?[网友吧]|章.?节|广.?告|下.?载){_CLAUSE}{{0,12}}"
    r"(?:https?://|www\.)[A-Za-z0-9][A-Za-z0-9./?=&_%~-]*"
    rf"|{_CLAUSE}{{0,20}}阅读{_CLAUSE}{{0,8}}更新{_CLAUSE}{{0,20}}尽在{_CLAUSE}{{0,12}}[!！。]?"
    r"|小说整理(?:发)?布于[A-Za-z0-9./]*"
)
_ADVERT_LINE = re.compile(
    r"[^\S\n]*(?:"
    r"(?:[\u4e00-\u9fff]{2,6}\|){5,}[\u4e00-\u9fff]{2,6}"
    r"|(?:(?:回|返回)?首|上一|下一|前一|后一)页|(?:返回?|回)(?:目录|书页|书目)|[上下]一章|加入书签|投推荐票|推荐本书"
    r"|本站[^\n]{0,40}(?:书友|管理员|收藏|域名|网址|访问|广告)[^\n]{0,40}"
    r"|(?i:share this:?|read more\W{0,3}|back to top|leave a comment|skip to (?:main )?content|click here"
    r"|(?:we|(?:this|our) (?:web)?site) uses? cookies[^\n]{0,120}"
    r"|(?:sign up|subscribe)[^\n]{0,20}newsletter[^\n]{0,20}|(?:copyright[^\n]{0,40})?all rights reserved\.?)"
    r")[^\S\n]*"
)


def spaces(text: str) -> str:
    """White space at the ends of lines goes, and of more than two blank lines in a row two stay; indents stay."""
    if any(sign in text for sign in (" \n", "\t\n", "\u3000\n", "\xa0\n")) or text[-1:] in (" ", "\t", "\u3000"):
        text = _TRAILING.sub("", text)
    if "\n\n\n\n" in text:
        text = re.sub("\n{4,}", "\n\n\n", text)
    return text


_TRAILING = re.compile(r"(?<![^\S\n])[^\S\n]+(?=\n|\Z)")

TEXT_RULES: dict[str, Callable[[str], str]] = {
    "unicode": unicode,
    "html": markup,
    "controls": controls,
    "adverts": adverts,
    "spaces": spaces,
}
"""Name → rule, in the order in which they are applied."""
