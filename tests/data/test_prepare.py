"""Preparation: whole or not at all, the same every time, and everything left out is counted and said."""

import io
import json
import lzma
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wenlu.base.errors import UserError
from wenlu.base.files import verify_folder
from wenlu.data import prepare as module
from wenlu.data.prepare import PrepareConfig, prepare
from wenlu.data.reading import pieces
from wenlu.data.shards import open_data
from wenlu.tokenization.learn import learn

PARAGRAPHS = "".join(f"Chapter {i}. The weather is fine, 天气真好。\nIt's {i} o'clock.\n\n" for i in range(400))


@pytest.fixture
def text(tmp_path):
    (tmp_path / "text.txt").write_text(PARAGRAPHS, encoding="utf-8")
    return str(tmp_path / "text.txt")


def rows(texts):
    return "".join(json.dumps({"text": text}) + "\n" for text in texts)


def texts_of(folder):
    data = open_data(folder, verify=True)
    validation = data.validation.documents(data.tokenizer) if data.validation else []
    return data.train.documents(data.tokenizer), validation


@pytest.mark.parametrize("tokenizer", ["bpe:400", "bpe", "char", "char:40", "byte"])
def test_the_text_comes_back(text, tmp_path, tokenizer):
    made = prepare(PrepareConfig((text,), tokenizer=tokenizer, context=16), tmp_path / "data")
    (train,), (held_out,) = texts_of(tmp_path / "data")
    assert PARAGRAPHS.startswith(train) and PARAGRAPHS.endswith(held_out) and held_out.startswith("Chapter")
    assert made["split"] == "the last part of the text"
    size = len(PARAGRAPHS.encode())
    assert made["train"]["bytes"] + made["gap_bytes"] + made["validation"]["bytes"] == size == made["sources"]["bytes"]
    assert made["gap_bytes"] >= 16 and made["train"]["bytes"] == len(train.encode())
    assert made == json.loads((tmp_path / "data" / "data.json").read_text(encoding="utf-8"))


def test_held_out_text_over_many_pieces_and_documents_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "CHUNK", 2000)
    for number in range(5):
        (tmp_path / f"{number}.txt").write_text(f"Book {number}\n" + PARAGRAPHS, encoding="utf-8")
    paths = tuple(str(tmp_path / f"{number}.txt") for number in range(5))
    made = prepare(PrepareConfig(paths, tokenizer="byte", validation=0.5, skip=("all",)), tmp_path / "data")
    train, held_out = texts_of(tmp_path / "data")
    assert [t[:6] for t in train] == ["Book 0", "Book 1", "Book 2"] and [len(h) for h in held_out[1:]] == [
        len(PARAGRAPHS) + 7
    ] * 2
    assert made["train"]["documents"] == 3 and made["validation"]["documents"] == 3


def test_documents_are_split_by_hash(tmp_path):
    texts = [f"document {i} of many" for i in range(200)]
    (tmp_path / "a.jsonl").write_text(rows(texts + texts[:7]))
    config = PrepareConfig((str(tmp_path / "a.jsonl"),), tokenizer="char", validation=0.2, skip=("all",))
    made = prepare(config, tmp_path / "data")
    train, held_out = texts_of(tmp_path / "data")
    assert sorted(train + held_out) == sorted(texts + texts[:7]) and not set(train) & set(held_out)
    assert (made["split"], made["duplicates"], made["overlap"]) == ("by document hash", 7, 0)


def test_held_out_text_of_its_own(text, tmp_path, capsys):
    (tmp_path / "held.jsonl").write_text(rows(["one", "two", PARAGRAPHS] + ["x"] * 98) + "bad\n")
    config = PrepareConfig((text,), (str(tmp_path / "held.jsonl"),), tokenizer="byte", skip=("all",))
    made = prepare(config, tmp_path / "data")
    train, held_out = texts_of(tmp_path / "data")
    assert train == [PARAGRAPHS] and held_out == ["one", "two", PARAGRAPHS] + ["x"] * 98
    assert (made["split"], made["overlap"], made["gap_bytes"]) == ("given", 1, 0)
    assert made["validation_sources"]["bad_lines"] == 1
    said = capsys.readouterr().err
    assert "1 bad line left out" in said and "held.jsonl:102: no JSON" in said
    assert "1 held-out document that is also in the training text" in said


def test_nothing_held_out(text, tmp_path):
    made = prepare(PrepareConfig((text,), tokenizer="byte", validation=0.0), tmp_path / "data")
    assert made["split"] == "none" and "validation" not in made
    assert texts_of(tmp_path / "data") == ([PARAGRAPHS], []) and open_data(tmp_path / "data").validation is None


def test_everything_left_out_is_said(tmp_path, capsys):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.jsonl").write_text(rows([f"row {i}\r\n" for i in range(500)] + ["row 0\n", ""]) + "bad\n")
    (folder / "b.png").write_bytes(b"png")
    prepare(PrepareConfig((str(folder),), tokenizer="byte", validation=0.1, skip=("all",)), tmp_path / "data")
    said = capsys.readouterr().err
    for note in (
        "1 bad line left out",
        "1 row with an empty text",
        "500 documents with CRLF or CR line ends read as LF",
        "1 path passed over: hidden, linked, or of kinds that are not read",
        "1 document that repeats another",
        "a.jsonl:503: no JSON",
    ):
        assert note in said, said


def test_the_tokenizer_learns_from_the_training_part_alone(tmp_path):
    (tmp_path / "a.txt").write_text("abc\n\n" * 500 + "held out XYZ\n" * 10)
    config = PrepareConfig((str(tmp_path / "a.txt"),), tokenizer="char", context=10, skip=("all",))
    prepare(config, tmp_path / "data")
    tokenizer = open_data(tmp_path / "data").tokenizer
    assert len(tokenizer.encode("abc")) == 3 and tokenizer.encode("X") == [1 + ord("X")], "a byte, for it was not seen"


def test_the_fingerprint_names_ids_lengths_and_tokenizer(text, tmp_path):
    def fingerprint(name, **changes):
        return prepare(PrepareConfig((text,), **{"tokenizer": "byte", "context": 8} | changes), tmp_path / name)[
            "fingerprint"
        ]

    found = [fingerprint("a"), fingerprint("b", validation=0.1), fingerprint("c", tokenizer="char")]
    assert fingerprint("again") == found[0] and len(set(found)) == 3


def test_how_text_is_read_in_pieces_does_not_change_the_ids(text, tmp_path, monkeypatch):
    config = PrepareConfig((text,), tokenizer=str(_saved(tmp_path, "bpe")), validation=0.0)
    whole = prepare(config, tmp_path / "whole")
    monkeypatch.setattr(pieces, "CHUNK", 100)
    monkeypatch.setattr("wenlu.data.encode.AT_ONCE", 300)
    assert prepare(config, tmp_path / "pieces")["fingerprint"] == whole["fingerprint"]


def _saved(tmp_path, kind):
    learn(kind, [PARAGRAPHS], 500 if kind == "bpe" else None).save(tmp_path / kind)
    return tmp_path / kind


CHINESE = "".join(f"第{i}回，炉火正红，{i * i % 89}人围炉读书；窗外下着雪。\n" for i in range(1500))


@pytest.mark.parametrize("language", ["English", "Chinese"])
@pytest.mark.parametrize("tokenizer", ["bpe:300", "bpe", "unigram", "char", "char:20", "byte", "folder"])
def test_the_gap_holds_the_tokens_that_are_stated(tmp_path, language, tokenizer):
    text = {"English": PARAGRAPHS * 2, "Chinese": CHINESE}[language]
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    name = str(_saved(tmp_path, "bpe")) if tokenizer == "folder" else tokenizer
    config = PrepareConfig((str(tmp_path / "text.txt"),), tokenizer=name, context=200, validation=0.2, skip=("all",))
    prepare(config, tmp_path / "data")
    (train,), (held_out,) = texts_of(tmp_path / "data")
    gap = text[len(train) : len(text) - len(held_out)]
    assert text == train + gap + held_out
    assert 200 <= len(open_data(tmp_path / "data").tokenizer.encode(gap)) <= 300


def test_refusals(text, tmp_path):
    (tmp_path / "tiny.txt").write_text("tiny")
    cases = {
        PrepareConfig(()): "no text: name files or folders, or - for stdin",
        PrepareConfig((str(tmp_path / "none"),)): "no file or folder .*none: check the path",
        PrepareConfig((text, str(tmp_path / "tiny.txt")), (str(tmp_path / "no"),)): "no file or folder .*no: check",
        PrepareConfig((str(tmp_path / "tiny.txt"),)): "4 characters are too few to hold 5% of them out",
        PrepareConfig((text,), tokenizer="bp"): "neither bpe, unigram, .* Did you mean 'bpe'",
        PrepareConfig((text,), tokenizer=str(tmp_path)): "no tokenizer at",
    }
    for config, message in cases.items():
        with pytest.raises(UserError, match=message):
            prepare(config, tmp_path / "out" / "data")
        assert not (tmp_path / "out" / "data").exists() and not list((tmp_path / "out").glob("*.tmp"))
    for setting in ({"validation": 1.0}, {"validation": -0.1}, {"max_bad": 2.0}, {"context": -1}):
        with pytest.raises(UserError, match=next(iter(setting)).replace("_", "-") + " must "):
            PrepareConfig((text,), **setting)


def test_a_tokenizer_without_an_end_token_is_refused_before_reading(tmp_path):
    folder = _saved(tmp_path, "byte")
    (folder / "tokenizer_config.json").write_text("{}")
    with pytest.raises(UserError, match="has no end token to part documents with: choose another"):
        prepare(PrepareConfig(("nowhere",), tokenizer=str(folder)), tmp_path / "data")


def test_an_existing_folder_is_refused_before_stdin_is_read(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UserError, match="data exists already: choose another --out, or remove it first"):
        prepare(PrepareConfig(("-",), tokenizer="byte"), tmp_path / "data")


def test_a_folder_that_may_not_be_written_is_refused(text, tmp_path, monkeypatch):
    def deny(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.mkdir", deny)
    with pytest.raises(UserError, match="permission denied: write elsewhere with --out"):
        prepare(PrepareConfig((text,), tokenizer="byte"), tmp_path / "data")


def test_standard_input(tmp_path, monkeypatch):
    given = rows([f"document {i}" for i in range(300)]) + "bad\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
    made = prepare(PrepareConfig(("-",), tokenizer="byte", validation=0.1), tmp_path / "data")
    assert made["sources"]["documents"] == 300 and made["config"]["paths"] == ["-"]
    assert made["sources"]["examples"][0].startswith("stdin:301: no JSON")


def test_text_that_changes_meanwhile_is_refused(text, tmp_path, monkeypatch):
    def learn_slowly(*_):
        with open(text, "a") as file:
            file.write("one more line\n")
        return learn("byte", ())

    monkeypatch.setattr(module, "learn", learn_slowly)
    with pytest.raises(UserError, match="the text changed while it was read: wait until nothing writes to it"):
        prepare(PrepareConfig((text,), tokenizer="byte", skip=("all",)), tmp_path / "data")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["text.txt"]


KILLED = """
import os, sys
from wenlu.data.reading import pieces
from wenlu.data import prepare as module
from wenlu.data.shards import ShardWriter
where, out = sys.argv[1:]
add, fingerprint = ShardWriter.add, module.fingerprint
def stop():
    print("reached", flush=True)
    sys.stdin.read()
def add_and_stop(self, *arguments, **options):
    add(self, *arguments, **options)
    stop()
if where == "writing":
    ShardWriter.add = add_and_stop
else:
    module.fingerprint = lambda *arguments: (fingerprint(*arguments), stop())[0]
module.prepare(module.PrepareConfig((os.environ["TEXT"],), tokenizer="byte"), out)
"""


@pytest.mark.parametrize("where", ["writing", "finishing"])
def test_a_kill_leaves_nothing_that_looks_finished(text, tmp_path, where):
    out = tmp_path / "made" / "data"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, where, str(out)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TEXT": text},
    )
    with process:
        assert process.stdout.readline() == b"reached\n"
        process.send_signal(signal.SIGKILL)
    (left_over,) = out.parent.iterdir()
    assert left_over.name.startswith(".data.") and verify_folder(left_over) == ["manifest.json is missing"]
    with pytest.raises(UserError, match="is no prepared data folder"):
        open_data(out)
    prepare(PrepareConfig((text,), tokenizer="byte"), out)
    assert [p.name for p in out.parent.iterdir()] == ["data"], "what the killed one left is gone"
    open_data(out, verify=True)


def test_no_torch_is_imported():
    names = ["reading.sources", "reading.formats", "split", "shards", "prepare", "order", "default_corpus"]
    code = f"import sys, {', '.join(f'wenlu.data.{name}' for name in names)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.data
def test_the_benchmark_split_of_tinyshakespeare_is_exact(data_dir, tmp_path):
    text = (data_dir / "english" / "tinyshakespeare.txt").read_text(encoding="utf-8")
    place = int(0.9 * len(text))
    (tmp_path / "train.txt").write_text(text[:place])
    (tmp_path / "held.txt").write_text(text[place:])
    paths = str(tmp_path / "train.txt"), str(tmp_path / "held.txt")
    made = prepare(PrepareConfig(paths[:1], paths[1:], tokenizer="char", skip=("all",)), tmp_path / "data")
    assert (made["train"]["bytes"], made["validation"]["bytes"]) == (1003854, 111540)
    assert texts_of(tmp_path / "data") == ([text[:place]], [text[place:]])


@pytest.mark.data
def test_novels_are_held_out_whole(data_dir, tmp_path):
    novels = tuple(str(data_dir / "english" / f"{name}.txt.xz") for name in ("Austen_Emma", "Eliot_Adam"))
    made = prepare(PrepareConfig(novels, tokenizer="byte", validation=0.7, skip=("all",)), tmp_path / "data")
    text = "".join(lzma.decompress(Path(novel).read_bytes()).decode("utf-8-sig") for novel in novels)
    text = text.replace("\r\n", "\n")
    data = open_data(tmp_path / "data")
    held_out = "".join(data.validation.documents(data.tokenizer))
    assert text.endswith(held_out) and len(held_out) > 0.69 * len(text)
    assert np.sum(data.validation.lengths) == made["validation"]["tokens"]


def test_little_held_out_text_is_said(tmp_path, capsys):
    """Documents are parted by their number: a long one may leave next to nothing on the other side."""
    long = " ".join(f"word {n * n % 9973} of a long text" for n in range(9000))
    (tmp_path / "a.jsonl").write_text(rows([long, *(f"a short row {n}" for n in range(60))]))
    made = prepare(PrepareConfig((str(tmp_path / "a.jsonl"),), tokenizer="byte", skip=("all",)), tmp_path / "data")
    assert made["validation"]["bytes"] < made["train"]["bytes"] / 100
    said = " ".join(capsys.readouterr().err.split())
    assert "of the bytes, of 5% that were asked for" in said and "--validation-paths" in said
