"""Bytes of text in any of the usual encodings → UTF-8; which one it is, is decided on a bounded sample."""

import codecs
import io
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import IO

from wenlu.base.errors import UserError

SAMPLE = 1 << 18
"""Bytes on which the decision is made, from the first that is beyond ASCII on."""
BEFORE = 64
"""Bytes before it that are looked at with them."""
ENOUGH = 1
"""Well-formed sequences for each byte that is none, from which on a text is damaged UTF-8."""
BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Byte order marks, the longer before those that they begin with."""
FREQUENT = frozenset(
    "的一是不了在人有我他这这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成方多经么去法学"
    "如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把机十民第公此已工使情明性知全三又关点正业外将两高间由问"
    "很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西斯月话合回特代内信表化老给世位次度门任常先海通教儿原东声提立及比员解水名真论处走"
    "山风花春云何夜空秋清白江玉香笑便宝听叫贾曰耶矣乎吾吃再太爷气吗呢吧"
    "這個們來為國說時會對於著過發後裡裏經麼學現當沒動還進樣開從實軍無與長機關點業將兩間問應戰向頭體見產話給門東聲員論處風雲氣馬書聽嗎爺"
)
"""Characters that any Chinese text is full of, simplified and traditional."""

_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")
_LONG_RUN = re.compile(rb"[\x80-\xff]{3,}")
_SIGN_IN_WORD = re.compile(rb"(?<=[A-Za-z])[\x80-\x84\x86-\x90\x98-\x9f\xa1-\xac\xae-\xb6\xb8-\xbf\xd7\xf7](?=[a-z])")
_IN_PLACE = re.compile(
    rb"(?<=[A-Za-z])[\x80-\xff]|[\x80-\xff](?=[A-Za-z])|(?<= )[\xc0-\xff](?= )"
    rb"|[\x85\x91-\x97\xa0\xa1\xa3\xa7\xa9\xab\xae\xb0\xb7\xbb-\xbf]"
)
_ALONE = re.compile(rb"(?<![\x80-\xff])[\x80-\xff](?![\x80-\xff])")
_NO_LATIN = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")
_CHARSETS = re.compile(r"utf-?8$|(windows-|cp)\d|iso-?8859|koi8|big5|euc-|shift|sjis|mac|tis-620|ibm")


def _mark(error: UnicodeError) -> tuple[str, int]:
    """What cannot be decoded becomes 0xff by the surrogate that escapes it."""
    assert isinstance(error, UnicodeDecodeError)
    return "\udcff", error.end


codecs.register_error("wenlu.mark", _mark)


class Utf8(io.RawIOBase):
    """A stream of text as UTF-8 without its byte order mark; `encoding` says, once it is read, what it was.

    As long as all is ASCII, any encoding but UTF-16 would do; the first block that is not, and what follows it, decide
    for the whole. Bytes that the encoding does not have become 0xff, which UTF-8 does not have either, so that their
    line is found bad like any other. `name` is the file's, for refusals; `charset_of` finds what a beginning declares.
    """

    def __init__(self, stream: IO[bytes], name: Path | str, charset_of: Callable[[bytes], str] | None = None):
        self.encoding = "utf-8"
        self._stream, self._name, self._charset_of, self._declared = stream, name, charset_of, ""
        self._decoder: codecs.IncrementalDecoder | None = None
        self._begun = self._decided = False
        self._ahead = b""  # UTF-8 that did not fit into what was asked for

    def readable(self) -> bool:
        return True

    def block(self, size: int) -> bytes:
        """About `size` bytes, b"" at the end; a character may be torn by the end of a block."""
        if self._ahead:
            ready, self._ahead = self._ahead, b""
            return ready
        raw = self._stream.read(size)
        if not self._decided and raw:
            raw = self._decide(raw)
        while self._decoder is not None:
            text = self._decoder.decode(raw, final=not raw)
            if text or not raw:
                return text.encode("utf-8", "surrogateescape")
            raw = self._stream.read(size)
        return raw

    def readinto(self, buffer) -> int:
        if self._decided and self._decoder is None and not self._ahead:
            return self._stream.readinto(buffer)
        raw = self.block(max(len(buffer), 16))  # enough to tell a mark by
        buffer[: len(raw)], self._ahead = raw[: len(buffer)], raw[len(buffer) :]
        return min(len(raw), len(buffer))

    def _decide(self, raw: bytes) -> bytes:
        """Settle the encoding if `raw`, the next block, allows it; returns what is to be read in its place."""
        if not self._begun:
            self._begun = True
            for mark, encoding in BOMS:
                if raw.startswith(mark):
                    self._settle(encoding)
                    return raw[len(mark) :] or self._stream.read(SAMPLE)
            if wide := _wide(raw[:65536]):
                self._settle(wide)
                return raw
            _refuse_binary(self._name, raw)
            self._declared = known(self._charset_of(raw)) if self._charset_of else ""
        if raw.isascii():
            return raw
        first = _BEYOND_ASCII.search(raw).start()
        if len(raw) - first < SAMPLE:
            raw += self._stream.read(SAMPLE)
        self._settle(encoding_of(raw[max(0, first - BEFORE) : first + SAMPLE], self._declared))
        return raw

    def _settle(self, encoding: str) -> None:
        self.encoding, self._decided = encoding, True
        if encoding != "utf-8":
            self._decoder = codecs.getincrementaldecoder(encoding)("wenlu.mark")


def _wide(head: bytes) -> str:
    """The kind of UTF-16 without a mark that a text's beginning is in; "" where it is none."""
    if 0 not in head:
        return ""
    share, encoding = max((_share_of_text(head, encoding), encoding) for encoding in ("utf-16-le", "utf-16-be"))
    return encoding if share > 0.1 else ""


def _share_of_text(head: bytes, encoding: str) -> float:
    """Which part of the characters are ASCII or frequent in Chinese; 0 where some are none at all."""
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(head)
    except UnicodeDecodeError:
        return 0.0
    counted = Counter(text)
    if sum(n for c, n in counted.items() if not c.isprintable() and not c.isspace()) > 0.01 * len(text):
        return 0.0
    return sum(n for c, n in counted.items() if "\t" <= c <= "\x7f" or c in FREQUENT) / max(1, len(text))


def _refuse_binary(name: Path | str, raw: bytes) -> None:
    head = raw[:65536]
    if head.count(0) > 0.01 * len(head) or (0 in head and "\ufffd" in head.decode("utf-8", "replace")[:-1]):
        raise UserError(f"{name} is a binary file, not text: name files of text")


def encoding_of(sample: bytes, declared: str = "") -> str:
    """The encoding of a text that is not all ASCII: utf-8, what it declares of itself, gb18030 or cp1252.

    UTF-8 stays UTF-8 where some of it is damaged: a text in another encoding holds few well-formed sequences. Where
    nothing speaks for any, it is utf-8 too, and its lines will be found bad. latin-1 is read as cp1252, which holds it.
    """
    ascii_bytes = len(sample.decode("ascii", "ignore"))
    text = sample.decode("utf-8", "ignore")
    well_formed, lost = len(text) - ascii_bytes, len(sample) - len(text.encode())
    if well_formed >= ENOUGH * lost or (lost < 4 and _torn_only(sample)):
        return "utf-8"
    if declared:
        return declared
    if _is_chinese(sample):
        return "gb18030"
    return "cp1252" if _is_latin(sample) else "utf-8"


def _torn_only(sample: bytes) -> bool:
    """Whether a sample is UTF-8 but for a character that its end tears."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return False
    return True


def _is_chinese(sample: bytes) -> bool:
    """Whether a sample's bytes beyond ASCII stand together and, read as GB18030, are full of frequent characters."""
    counted = Counter(sample.decode("gb18030", "replace"))
    beyond = sum(n for c, n in counted.items() if c > "\x7f")
    together = len(_ALONE.findall(sample)) <= 0.5 * beyond
    return together and sum(counted[c] for c in FREQUENT) >= 0.1 * beyond and counted["\ufffd"] <= 1 + 0.01 * beyond


def _is_latin(sample: bytes) -> bool:
    """Whether the bytes beyond ASCII are few, most by Latin letters or signs of print, and hardly any amid a word."""
    beyond = len(sample) - len(sample.decode("ascii", "ignore"))
    in_runs = sum(map(len, _LONG_RUN.findall(sample)))
    amid = len(_SIGN_IN_WORD.findall(sample)) + len(_NO_LATIN.findall(sample))
    in_place = len(_IN_PLACE.findall(sample))
    return beyond <= 0.3 * len(sample) and in_runs + amid <= 0.1 * beyond and in_place >= 0.5 * beyond


def known(name: str) -> str:
    """Python's name for a declared charset, or for its superset where the web writes one for the other; "": unknown."""
    name = name.strip().lower().replace("_", "-")
    if name in ("gb2312", "gbk", "gb18030", "x-gbk", "euc-cn"):
        return "gb18030"
    if name in ("latin-1", "latin1", "iso-8859-1", "iso8859-1", "us-ascii", "ascii", "windows-1252", "cp1252"):
        return "cp1252"
    if not _CHARSETS.match(name):
        return ""
    try:
        return codecs.lookup(name).name
    except LookupError:
        return ""
