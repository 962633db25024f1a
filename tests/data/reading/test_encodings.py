"""Text of every usual encoding: which one it is, torn characters, and what is bad in it."""

import io
import lzma
import random

import pytest

from wenlu.base.errors import UserError
from wenlu.data.reading import encodings, pieces
from wenlu.data.reading.counts import SourceCounts, notes
from wenlu.data.reading.encodings import Utf8, encoding_of, known
from wenlu.data.reading.sources import read_documents

CHINESE = "却说宝玉在这里听了，便笑道：“你们不知道，天气真好。”\n"
TRADITIONAL = "國破山河在，城春草木深。感時花濺淚，恨別鳥驚心。\n"
LATIN = "“No,” said Zoë – the fiancée’s café cost £5 – “it’s naïve.”\n"
FRENCH = "Où êtes-vous passé ? Là-bas, près de la forêt ; c’était l’été, à Orléans.\n"
GERMAN = "Eine Frau füttert einen älteren Mann auf der größten Straße der Stadt.\n"
OTHERS = {
    "koi8-r": "Все счастливые семьи похожи друг на друга.\n",
    "cp1251": "Все смешалось в доме Облонских.\n",
    "euc-kr": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.\n",
    "shift_jis": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。\n",
    "big5": "人人生而自由，在尊嚴和權利上一律平等。他們賦有理性和良心。\n",
    "cp1250": "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności.\n",
}


def read(tmp_path, raw, name="a.txt", **options):
    """(the documents, counts) of a file of these bytes."""
    (tmp_path / name).write_bytes(raw)
    counts = SourceCounts()
    found = list(read_documents((str(tmp_path / name),), counts, **options))
    texts = [""] * counts.documents
    for piece in found:
        texts[piece.document] += piece.text
    return texts, counts


@pytest.mark.parametrize(
    "text, encoding, shown",
    [
        (CHINESE, "utf-8", "utf-8"),
        (CHINESE, "utf-8-sig", "utf-8"),
        ("plain\n", "ascii", "utf-8"),
        (CHINESE, "gb18030", "gb18030"),
        (TRADITIONAL, "gb18030", "gb18030"),
        (CHINESE, "utf-16", "utf-16-le"),
        (CHINESE, "utf-16-le", "utf-16-le"),
        (CHINESE, "utf-16-be", "utf-16-be"),
        (LATIN, "utf-16", "utf-16-le"),
        (LATIN, "utf-16-be", "utf-16-be"),
        (LATIN, "utf-32", "utf-32-le"),
        (LATIN, "cp1252", "cp1252"),
        (FRENCH, "cp1252", "cp1252"),
        (GERMAN, "latin-1", "cp1252"),
    ],
)
@pytest.mark.parametrize("times", [1, 300])
def test_the_encoding_is_found_said_and_counted(tmp_path, text, encoding, shown, times):
    texts, counts = read(tmp_path, (text * times).encode(encoding))
    assert texts == [text * times] and counts.encodings == {shown: 1} == counts.as_dict()["encodings"]
    assert notes(counts.as_dict()) == ([] if shown == "utf-8" else [f"files by encoding: 1 {shown.upper()}"])


@pytest.mark.parametrize("encoding", OTHERS)
def test_other_encodings_are_not_taken_for_those(tmp_path, encoding):
    raw = (OTHERS[encoding] * 30).encode(encoding)
    assert encoding_of(raw) == "utf-8"
    with pytest.raises(UserError, match=r"lines are bad, .* iconv -f ENCODING -t UTF-8 converts"):
        read(tmp_path, raw)


def test_damaged_utf8_stays_utf8(tmp_path):
    raw = (CHINESE * 200).encode() + CHINESE.encode("gb18030") + CHINESE.encode()
    texts, counts = read(tmp_path, raw)
    assert texts == [CHINESE * 201] and (counts.bad_lines, counts.encodings) == (1, {"utf-8": 1})
    assert counts.examples == [
        f"{tmp_path / 'a.txt'}:201: no UTF-8 (byte 0xb1; another encoding? iconv -f ENCODING -t UTF-8 converts)"
    ]
    assert encoding_of("a café\n".encode() * 3 + b"a caf\xe9\n") == "utf-8"


def test_one_strange_byte_in_ascii_is_a_bad_line(tmp_path):
    texts, counts = read(tmp_path, b"plain\n" * 200 + b"\xff\nplain\n")
    assert texts == ["plain\n" * 201] and (counts.bad_lines, counts.encodings) == (1, {"utf-8": 1})


def test_the_decision_waits_for_the_first_byte_beyond_ascii(tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "CHUNK", 64)
    monkeypatch.setattr(encodings, "SAMPLE", 512)
    for text, encoding in ((LATIN, "cp1252"), (CHINESE, "gb18030")):
        texts, counts = read(tmp_path, ("plain words\n" * 100 + text * 40).encode(encoding))
        assert texts == ["plain words\n" * 100 + text * 40] and counts.encodings == {encoding: 1}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "gb18030"])
def test_characters_torn_by_every_border_are_whole(tmp_path, monkeypatch, encoding):
    """Chunks of 5 to 16 bytes over characters of 1 to 8 bytes: every character is torn everywhere."""
    monkeypatch.setattr(encodings, "SAMPLE", 300)
    text = "a天é\U0001f600气\r\n好€㐀𠀀 b\n\u3000他们" * 12 + "\n"
    for size in range(5, 17):
        monkeypatch.setattr(pieces, "CHUNK", size)
        texts, counts = read(tmp_path, text.encode(encoding))
        assert texts == [text.replace("\r\n", "\n")] and counts.bad_lines == 0


@pytest.mark.parametrize("encoding", ["utf-16", "gb18030", "utf-8"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 8192])
def test_a_stream_reads_the_same_in_blocks_and_lines(encoding, size):
    text = "a天é\U0001f600气\n好 b\n\n他们" * 40
    raw = text.encode(encoding)
    blocks = Utf8(io.BytesIO(raw), "x")
    assert b"".join(iter(lambda: blocks.block(max(4, size)), b"")) == text.encode()
    with io.BufferedReader(Utf8(io.BytesIO(raw), "x"), size) as lines:
        assert list(lines) == text.encode().splitlines(keepends=True)


def test_what_an_encoding_lacks_is_a_bad_line(tmp_path):
    half = "天".encode("gb18030")[:1]
    texts, counts = read(tmp_path, (CHINESE * 150).encode("gb18030") + half + b"\n" + CHINESE.encode("gb18030"))
    assert texts == [CHINESE * 151] and counts.bad_lines == 1
    assert counts.examples == [f"{tmp_path / 'a.txt'}:151: no GB18030"]
    lone = (CHINESE * 150).encode("utf-16") + b"\x00\xd8\x0a\x00" + CHINESE.encode("utf-16-le") + b"x"
    texts, counts = read(tmp_path, lone, max_bad=0.02)
    assert texts == [CHINESE * 151] and [e.split(": ")[1] for e in counts.examples] == ["no UTF-16-LE"] * 2


def test_rows_in_other_encodings(tmp_path):
    rows = '{"text": "' + CHINESE.strip() + '"}\n'
    for encoding in ("gb18030", "utf-16"):
        texts, _ = read(tmp_path, (rows * 3).encode(encoding), "a.jsonl")
        assert texts == [CHINESE.strip()] * 3
    bad = (rows * 150).encode("gb18030") + b'{"text": "\xff"}\n'
    _, counts = read(tmp_path, bad, "a.jsonl")
    assert counts.examples == [f"{tmp_path / 'a.jsonl'}:151: no GB18030"]


def test_binary_files_are_refused(tmp_path):
    noise = random.Random(0).randbytes(5000)
    for raw in (bytes(500), noise, bytes(range(256)) * 9, b"text\n" * 9 + bytes(100)):
        with pytest.raises(UserError, match=r"a\.txt is a binary file, not text: name files of text"):
            read(tmp_path, raw)


def test_declared_names():
    names = {"GB2312": "gb18030", "ISO-8859-1": "cp1252", "Big5": "big5", "x-nothing": "", "utf8": "utf-8"}
    assert {name: known(name) for name in names} == names
    assert known("unicode_escape") == known("rot13") == known("utf-7") == ""
    raw = (OTHERS["big5"] * 3).encode("big5")
    assert encoding_of(raw, "big5") == "big5" and encoding_of(CHINESE.encode(), "big5") == "utf-8"


@pytest.mark.data
@pytest.mark.parametrize(
    "book, encoding",
    [("chinese/红楼梦", "gb18030"), ("chinese/西游记", "gb18030")]
    + [(f"english/{name}", "cp1252") for name in ("Austen_Pride", "Fielding_Tom")],
)
def test_books_in_their_old_encodings(data_dir, tmp_path, book, encoding):
    text = lzma.decompress((data_dir / f"{book}.txt.xz").read_bytes()).decode("utf-8-sig").replace("\r\n", "\n")
    raw = text.encode(encoding, "ignore")
    texts, counts = read(tmp_path, raw)
    assert texts == [raw.decode(encoding)] and counts.encodings == {encoding: 1} and not counts.bad_lines
