"""HTML → the text that a reader sees: blocks on lines of their own, entities resolved, code and menus left out."""

import re
from collections.abc import Iterator

from selectolax.lexbor import LexborHTMLParser, LexborNode

LEFT_OUT = frozenset(
    "head script style template noscript nav svg math iframe object canvas audio video select datalist".split()
)
"""What is no running text: code, menus, choices, pictures, formulae in markup."""
BLOCKS = frozenset(
    [
        "address",
        "article",
        "aside",
        "blockquote",
        "body",
        "caption",
        "center",
        "dd",
        "details",
        "dialog",
        "dir",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "footer",
        "form",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "header",
        "hgroup",
        "hr",
        "legend",
        "li",
        "main",
        "menu",
        "ol",
        "option",
        "p",
        "pre",
        "section",
        "summary",
        "table",
        "tbody",
        "tfoot",
        "thead",
        "tr",
        "ul",
    ]
)
PARAGRAPHS = frozenset("p h1 h2 h3 h4 h5 h6 blockquote pre table ul ol dl figure".split())
"""Blocks that an empty line parts from what is around them."""

# While the text is put together, characters that no page shows stand for what may yet be merged or has to stay.
_CELL, _TAB, _KEPT_SPACE, _LINE_END, _EMPTY, _BLOCK = "\x1a", "\x1b", "\x1c", "\x1d", "\x1e", "\x1f"
_MARKS = re.compile("[\x1a-\x1f]")
_BREAK = re.compile("[\x1d-\x1f][ \x1a\x1d-\x1f]*")
_EMPTY_CELLS = re.compile(" ?\x1a[ \x1a]*(?=\n)")
_KEPT = str.maketrans({"\n": _LINE_END, " ": _KEPT_SPACE, "\t": _TAB})
_HIDDEN = '[hidden],[style*="display:none"],[style*="display: none"]'
_CHARSET = re.compile(
    rb"<meta\b[^>]*\bcharset\s*=\s*[\"']?\s*([\w.:-]+)|<\?xml\b[^>]*\bencoding\s*=\s*[\"']([\w.:-]+)", re.IGNORECASE
)
_CLOSED = re.compile(r"<([A-Za-z][\w:-]*)((?:\s[^<>]*)?)/>")
_VOID = frozenset("area base br col embed hr img input link meta source track wbr".split())


def charset_of(head: bytes) -> str:
    """The charset that a page's beginning declares; "" where it declares none."""
    match = _CHARSET.search(head, 0, 4096)
    return (match[1] or match[2]).decode("ascii", "ignore") if match else ""


def closed(text: str) -> str:
    """XHTML's `<a/>` as HTML's `<a></a>`: to HTML, a title or script that is closed so swallows the rest."""
    return _CLOSED.sub(lambda m: m[0] if m[1].lower() in _VOID else f"<{m[1]}{m[2]}></{m[1]}>", text)


def text_of(page: str) -> str:
    """The visible text of a page or a part of one, without space around it."""
    tree = LexborHTMLParser(_MARKS.sub("", page))
    hidden = {node.mem_id for node in tree.css(_HIDDEN)}
    parts, kept = [], 0
    for node, tag, opens in _walk(tree.root, hidden):
        if tag == "-text":
            text = node.text_content or ""
            parts.append(text.translate(_KEPT) if kept else _on_one_line(text))
        elif tag in BLOCKS:
            parts.append(_EMPTY if tag in PARAGRAPHS else _BLOCK)
            kept += (1 if opens else -1) if tag == "pre" else 0
        elif tag == "br" and opens:
            parts.append(_LINE_END)
        elif tag in ("td", "th") and not opens:
            parts.append(_CELL)
    text = "".join(parts)
    while "  " in text:
        text = text.replace("  ", " ")
    text = _BREAK.sub(lambda m: "\n\n" if _EMPTY in m[0] or m[0].count(_LINE_END) > 1 else "\n", text)
    text = _EMPTY_CELLS.sub("", text) if _CELL in text else text
    text = text.replace(" \n", "\n").strip(" \n" + _CELL)
    return text.replace(_CELL, "\t").replace(_TAB, "\t").replace(_KEPT_SPACE, " ")


def _on_one_line(text: str) -> str:
    """With spaces for all that HTML shows as such; they are merged later."""
    for space in "\n\t\r\f":
        text = text.replace(space, " ")
    return text


def _walk(root: LexborNode, hidden: set[int]) -> Iterator[tuple[LexborNode, str, bool]]:
    """(node, tag, True) where a node begins and (node, tag, False) where an element ends, without what is left out.

    Nodes are told apart by their address: to compare them would compare their whole contents.
    """
    node, end = root, root.mem_id
    while True:
        tag = node.tag
        inner = None
        if tag not in LEFT_OUT and not (hidden and node.mem_id in hidden):
            yield node, tag, True
            inner = node.first_child
            if inner is None and tag != "-text":
                yield node, tag, False
        if inner is not None:
            node = inner
            continue
        while node.mem_id != end and node.next is None:
            node = node.parent
            yield node, node.tag, False
        if node.mem_id == end:
            return
        node = node.next
