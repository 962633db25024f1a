"""Documents from files: what is read, what is counted, what is refused, and where long texts are cut."""

import gzip
import io
import json
import lzma
import os
import re
import sys
import threading
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wenlu.base.errors import UserError
from wenlu.data.prepare import PrepareConfig, prepare
from wenlu.data.reading import pieces as module
from wenlu.data.reading import sources
from wenlu.data.reading.counts import SourceCounts, notes
from wenlu.data.reading.pieces import cut_after
from wenlu.data.reading.sources import read_documents, spooled
from wenlu.models.config import ModelConfig
from wenlu.tokenization.tokenizer import Tokenizer
from wenlu.training.loop import train
from wenlu.training.recipe import Recipe, TrainingConfig


def documents(*paths, counts=None, **options):
    """The whole text of every document."""
    texts, open_text = [], ""
    for piece in read_documents(tuple(map(str, paths)), counts, **options):
        assert piece.document == len(texts)
        open_text += piece.text
        if piece.last:
            texts.append(open_text)
            open_text = ""
    assert not open_text
    return texts


def rows(*texts, field="text"):
    return "".join(json.dumps({field: text}) + "\n" for text in texts)


def refusal(*paths, **options):
    with pytest.raises(UserError) as error:
        documents(*paths, **options)
    return str(error.value)


@pytest.mark.parametrize("suffix, opener", [("", open), (".gz", gzip.open), (".xz", lzma.open)])
def test_txt_is_one_document_and_a_row_of_jsonl_is_one(tmp_path, suffix, opener):
    for name, text in {"a.txt": "一\n\ntwo\n", "b.jsonl": rows("x", "y\n")}.items():
        with opener(tmp_path / (name + suffix), "wb") as file:
            file.write(text.encode())
    counts = SourceCounts()
    assert documents(tmp_path, counts=counts) == ["一\n\ntwo\n", "x", "y\n"]
    assert (counts.files, counts.documents, counts.lines, counts.bytes) == (2, 3, 5, 12)


def test_folders_are_searched_in_order_and_other_files_counted(tmp_path):
    for name in ("b.txt", "a/z.txt", "a/b/c.jsonl", ".hidden/x.txt", ".y.txt", "picture.png", "notes.doc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(rows(name) if name.endswith("jsonl") else name)
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "linked").symlink_to(tmp_path / "a")
    counts = SourceCounts()
    assert documents(tmp_path, counts=counts) == ["a/b/c.jsonl", "a/z.txt", "b.txt"]
    assert counts.skipped_files == 6  # two of other kinds, a dead link, a linked folder, a hidden file and folder
    assert documents(tmp_path / "notes.doc") == ["notes.doc"]


def test_what_wenlu_made_itself_is_no_text_of_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    texts = tmp_path / "texts"
    (texts / "notes/wenlu").mkdir(parents=True)
    (texts / "notes/data.json").write_text('{"version": 1}')
    (texts / "notes/sweep.jsonl").write_text(rows("a page about brooms"))
    (texts / "notes/wenlu/recipe.json").write_text("[no JSON")
    prose = "".join(f"{n} stoves burn in house {n * n % 97}.\n" for n in range(200))
    (texts / "a.txt").write_text(prose)
    prepare(PrepareConfig((str(texts / "a.txt"),), tokenizer="byte"), texts / "prepared")
    training = TrainingConfig(steps=1, batch=1, eval_every=0, sample_tokens=0, device="cpu", compile="off", threads=1)
    data = PrepareConfig((str(texts / "prepared"),))
    train(Recipe(data, ModelConfig("lstm", dim=8, layers=1, context=8), training), texts / "runs/one")
    begun = {"event": "begin", "recipe": {}, "sweep": {}, "clock": 0.0}
    (texts / "search/best").mkdir(parents=True)
    (texts / "search/sweep.jsonl").write_text(json.dumps(begun) + "\n")
    (texts / "search/best/page.html").write_text("<p>a report")
    made = [str(texts / name) for name in ("prepared", "runs/one", "search")]
    counts = SourceCounts()
    assert documents(texts, counts=counts) == [prose, "a page about brooms"] and counts.made_here == made
    said = f"3 folders that wenlu made left out (data, runs, sweeps): {', '.join(made)}"
    assert said in notes(counts.as_dict())
    counts = SourceCounts()
    assert documents("texts/[nrs]*", "texts/*", counts=counts) == ["a page about brooms", prose, "a page about brooms"]
    for path in ("texts/prepared", "texts/runs", "texts/p*"):
        wanted = f"{path} holds no text but what wenlu made (data, runs, sweeps): name the texts themselves"
        assert refusal(path) == wanted
    assert documents("texts/search/best/page.html") == ["a report"]


def test_an_ending_decides_not_a_part_of_the_name(tmp_path):
    (tmp_path / "about.jsonl.txt").write_text("plain")
    (tmp_path / "B.JSONL").write_text(rows("row"))
    assert documents(tmp_path / "about.jsonl.txt", tmp_path / "B.JSONL") == ["plain", "row"]


def test_byte_order_mark_and_line_ends(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree\n\r\n")
    (tmp_path / "b.jsonl").write_bytes(b"\xef\xbb\xbf" + rows("x\r\ny\rz", "plain").encode().replace(b"\n", b"\r\n"))
    counts = SourceCounts()
    assert documents(tmp_path, counts=counts) == ["one\ntwo\nthree\n\n", "x\ny\nz", "plain"]
    assert counts.line_ends == 2 and counts.lines == 6


def test_a_file_with_other_line_ends_counts_once_however_many_pieces_it_is_read_in(tmp_path, monkeypatch):
    monkeypatch.setattr("wenlu.data.reading.pieces.CHUNK", 100)
    for name in ("a.txt", "b.md", "c.html"):
        (tmp_path / name).write_bytes(b"one line\r\n" * 100)
    (tmp_path / "d.txt").write_bytes(b"one line\n" * 100)
    counts = SourceCounts()
    documents(tmp_path, counts=counts)
    assert counts.line_ends == 3 and counts.lines == 400
    assert notes(counts.as_dict()) == ["3 documents with CRLF or CR line ends read as LF"]


BAD_ROWS = {
    b'{"text": "x"': "no JSON (Expecting ',' delimiter",
    b"[1]": "no JSON object",
    b'{"title": "x", "n": 1}': "no text under 'text' (--field may name 'title')",
    b'{"text": 7}': "'text' holds a number, not a text",
    b'{"text": true, "title": "x"}': "'text' holds true or false, not a text (--field may name 'title')",
    b'{"text": null}': "'text' holds null, not a text",
    b'{"text": ["x"]}': "'text' holds a list, not a text",
    b'{"text": {"en": "x"}}': "'text' holds an object, not a text",
    b'{"text": "\xff"}': "no UTF-8",
    b'{"text": "\\ud800"}': "a lone surrogate",
    b'{"text": "\xed\xa0\x80"}': "a lone surrogate",
    b"[" * 100_000: "no JSON",
}


@pytest.mark.parametrize("others", ["", '{"text": ""}\n' * 9])
def test_to_allow_more_bad_lines_is_not_offered_where_no_text_would_be_left(tmp_path, others):
    file = tmp_path / "a.jsonl"
    file.write_text(others + '{"text": 7}\n')
    with pytest.raises(UserError) as error:
        documents(file)
    assert str(error.value).endswith(
        f"{file}:{others.count(chr(10)) + 1}: 'text' holds a number, not a text; mend the file, or leave it out"
    )


@pytest.mark.parametrize("line", BAD_ROWS, ids=lambda line: repr(line[:20]))
def test_bad_rows_are_counted_or_refused(tmp_path, line):
    file = tmp_path / "a.jsonl"
    file.write_bytes(rows("good").encode() * 6 + line + b"\n\n" + rows("").encode())
    counts = SourceCounts()
    assert documents(file, counts=counts, max_bad=0.2) == ["good"] * 6
    assert (counts.lines, counts.bad_lines, counts.empty) == (9, 1, 1)
    assert counts.examples[0].startswith(f"{file}:7: {BAD_ROWS[line]}")
    message = refusal(file)
    assert message.startswith(f"1 of 9 lines is bad, more than 1.00%, the first at {file}:7: {BAD_ROWS[line]}")
    allowed = re.search(r"mend the file, or allow more with --max-bad (0\.\d\d)$", message)
    assert documents(file, max_bad=float(allowed[1])) == ["good"] * 6


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_bad_lines_of_txt_are_left_out(tmp_path, end):
    file = tmp_path / "a.txt"
    file.write_bytes(("好" + end.decode()).encode() * 150 + "天气".encode("gb18030") + end + b"end")
    counts = SourceCounts()
    assert documents(file, counts=counts) == ["好\n" * 150 + "end"]
    assert (counts.lines, counts.bad_lines, counts.encodings) == (152, 1, {"utf-8": 1})
    assert f"{file}:151: no UTF-8 (byte 0xcc; another encoding? iconv -f ENCODING -t UTF-8" in refusal(
        file, max_bad=0.0
    )


def test_lines_are_numbered_in_their_own_file(tmp_path):
    (tmp_path / "a.txt").write_text("好\n" * 30)
    (tmp_path / "b.txt").write_bytes("好\n".encode() * 200 + b"\xff\n")
    counts = SourceCounts()
    documents(tmp_path, counts=counts)
    assert counts.examples[0].startswith(f"{tmp_path / 'b.txt'}:201: no UTF-8")


def test_the_limit_is_each_files_own_and_its_first_bad_line_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_text((rows("good") * 99 + "bad\n") * 30)
    (tmp_path / "b.jsonl").write_text(rows("good") + "bad\n")
    counts = SourceCounts()
    assert len(documents(tmp_path / "a.jsonl", counts=counts)) == 2970
    assert counts.bad_lines == 30 and len(counts.examples) == 20
    assert f"1 of 2 lines is bad, more than 1.00%, the first at {tmp_path / 'b.jsonl'}:2: no JSON" in refusal(tmp_path)
    (tmp_path / "c.jsonl").write_text("bad\n")
    bad = f"holds no text: its lines are bad, the first at {tmp_path / 'c.jsonl'}:1: no JSON"
    assert bad in refusal(tmp_path / "c.jsonl", max_bad=1.0)
    (tmp_path / "b.jsonl").unlink()
    counts = SourceCounts()
    assert len(documents(tmp_path, counts=counts, max_bad=1.0)) == 2970 and counts.textless_files == 1


def test_what_is_no_text_is_refused(tmp_path):
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "blank.jsonl").write_text("\n\n" + rows(""))
    (tmp_path / "nul.txt").write_bytes(bytes(range(256)) + bytes(500))
    (tmp_path / "noise").write_bytes(bytes(range(128, 256)) * 9)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.png").write_text("x")
    assert refusal(tmp_path / "none.txt") == f"no file or folder {tmp_path / 'none.txt'}: check the path"
    assert "empty.txt is empty: it holds no text" in refusal(tmp_path / "empty.txt")
    assert "blank.jsonl is empty: it holds no text" in refusal(tmp_path / "blank.jsonl")
    assert "nul.txt is a binary file, not text: name files of text" in refusal(tmp_path / "nul.txt")
    assert "1 of 1 line is bad" in refusal(tmp_path / "noise")
    assert "folder holds no text: it has no file ending in .txt, .md, .jsonl" in refusal(tmp_path / "folder")


@pytest.mark.parametrize("suffix, pack", [(".gz", gzip.compress), (".xz", lzma.compress)])
@pytest.mark.parametrize("kind", [".txt", ".jsonl"])
def test_damaged_archives_are_refused(tmp_path, suffix, pack, kind):
    file, whole = tmp_path / f"a{kind}{suffix}", pack(rows(*map(str, range(999))).encode())
    file.write_bytes(whole[:-20])
    assert f"{file} is damaged or cut short" in refusal(file) and "fetch it again" in refusal(file)
    file.write_bytes(b"no archive at all")
    assert f"{file} is damaged or cut short" in refusal(file)


def test_what_may_not_be_read_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("x")

    def deny(*_):
        raise PermissionError(13, "Permission denied", str(tmp_path / "inner"))

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", deny)
        assert refusal(tmp_path / "a.txt") == f"{tmp_path / 'a.txt'} may not be read: change its permissions"
    monkeypatch.setattr(sources.os, "scandir", deny)
    assert f"{tmp_path / 'inner'} may not be read (Permission denied): change its permissions" in refusal(tmp_path)


@pytest.mark.parametrize(
    "given, expected",
    [
        ("plain\ntext\n", ["plain\ntext\n"]),
        (rows("a", "b"), ["a", "b"]),
        ("\ufeff" + rows("a"), ["a"]),
        ("{curly} text\n", ["{curly} text\n"]),
        ("[1, 2]\n", ["[1, 2]\n"]),
    ],
)
def test_standard_input_is_jsonl_where_its_first_line_is_an_object(monkeypatch, given, expected):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
    with spooled(("-",)) as paths:
        assert documents(*paths) == documents(*paths) == expected
    assert not os.path.exists(paths[0])


def test_standard_input_is_named_in_errors(monkeypatch):
    for text, message in ((b"", "stdin is empty"), (b'{"text": "a"}\nbad\n', "the first at stdin:2: no JSON")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
        with pytest.raises(UserError, match=message), spooled(("-",)) as paths:
            documents(*paths)


def test_a_pipe_can_be_read_again(tmp_path):
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    writer = threading.Thread(target=Path(pipe).write_text, args=("from a pipe",))
    writer.start()
    with spooled((pipe,)) as paths:
        assert documents(*paths) == documents(*paths) == ["from a pipe"]
    writer.join()


LINES = {
    "words": ("the end\n" * 20_000, lambda text: text[-1].isalnum()),
    "Chinese": ("这是一句话。\n" * 30_000, lambda text: text[-1] == "。"),
    "one line": ("word " * 120_000, lambda text: text[-1] == "d"),
    "Chinese in one line": ("天地玄黄，宇宙洪荒。" * 60_000, lambda text: text[-1] in "黄荒"),
    "no space": ("字" * 600_000, lambda text: len(text) == 1 << 19),
    "long first line": ("x" * 200_000 + "\n" + "short\n" * 25_000, lambda text: text[-1].isalnum()),
    "carriage returns": ("line\r" * 30_000, lambda text: text[-1].isalnum()),
}


@pytest.mark.parametrize("name", LINES)
def test_a_long_text_comes_in_pieces(tmp_path, monkeypatch, name):
    monkeypatch.setattr(module, "CHUNK", 1 << 16)
    monkeypatch.setattr(module, "LONGEST", 1 << 19)
    text, ends_well = LINES[name]
    (tmp_path / "a.txt").write_bytes(text.encode())
    counts = SourceCounts()
    pieces = list(read_documents((str(tmp_path / "a.txt"),), counts))
    assert "".join(p.text for p in pieces) == text.replace("\r", "\n")
    assert [p.last for p in pieces] == [False] * (len(pieces) - 1) + [True] and len(pieces) > 1
    assert all(ends_well(p.text) and len(p.text) <= module.LONGEST for p in pieces[:-1])
    assert counts.documents == 1 and counts.bytes == len(text.encode())


TEXTS = st.text(st.sampled_from("ab 1é天。.,'s\n\n\n\t\u00a0\u3000_\U0001f600"), max_size=120)


def pieces_of(text, size):
    while len(text) > size and (cut := cut_after(text, size)):
        yield text[:cut]
        text = text[cut:]
    yield text


@pytest.mark.data
@settings(max_examples=400, deadline=None)
@given(text=TEXTS, size=st.integers(1, 30))
def test_pieces_are_encoded_as_the_whole(data_dir, text, size):
    tokenizer = _gpt2(data_dir)
    pieces = list(pieces_of(text, size))
    assert "".join(pieces) == text
    assert list(chain(*tokenizer.encode_batch(pieces))) == tokenizer.encode(text)


@pytest.mark.data
@pytest.mark.parametrize("novel", ["english/Austen_Emma.txt.xz", "chinese/红楼梦.txt.xz"])
def test_pieces_of_a_novel_are_encoded_as_the_whole(data_dir, novel):
    tokenizer = _gpt2(data_dir)
    text = "".join(documents(data_dir / novel))[:150_000]
    pieces = list(pieces_of(text, 1000))
    assert len(pieces) > 30 and list(chain(*tokenizer.encode_batch(pieces))) == tokenizer.encode(text)


LOADED = {}


def _gpt2(data_dir):
    if "gpt2" not in LOADED:
        LOADED["gpt2"] = Tokenizer.load(data_dir / "tokenizers" / "gpt2")
    return LOADED["gpt2"]
