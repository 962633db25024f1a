"""Wrong uses: a folder of bad sources, models and a run to misuse, and what a refusal must look like."""

import gzip
import os
import re
from functools import partial
from pathlib import Path

import pytest

from wenlu.cli.main import main
from wenlu.hub.folder import save
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.tokenization.learn import learn

TEXT = "It was the best of times, 天气真好 and so on.\n\n"
SHAPE = "--model.dim 16 --model.layers 1 --model.heads 2 --model.context 16 --steps 3 --training.batch 2".split()
ON_DATA = (*SHAPE, *"--training.threads 1 --training.compile off".split())


def contents(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder: relative path → contents (None for a folder)."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def refused(capsys, line: str | list, *words: str) -> str:
    """Run a command that must be refused; its message has at most two lines, holds `words`, and nothing has changed."""
    capsys.readouterr()
    before = contents(Path())
    code = main([str(argument) for argument in (line.split() if isinstance(line, str) else line)])
    said = capsys.readouterr()
    assert code == 2, said.err
    assert said.out == ""
    message = said.err[re.search(r"^wenlu: ", said.err, re.MULTILINE).start() :]
    assert message.count("\n") <= 2 and message.endswith("\n"), message
    assert "Traceback" not in said.err
    for word in words:
        assert word in message
    assert contents(Path()) == before
    return message


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with every kind of bad source in it."""
    monkeypatch.chdir(tmp_path)
    files = {
        "text.txt": TEXT * 60,
        "short.txt": TEXT * 2,
        "empty.txt": "",
        "one.txt": "one line",
        "binary.txt": bytes(range(256)) * 40,
        "koi8.txt": ("хорошая погода\n" * 50).encode("koi8-r"),
        "pictures/a.png": "x",
        "folder.toml/a.png": "x",
        "cut.txt.gz": gzip.compress(os.urandom(5000).hex().encode())[:-500],
        "bad.jsonl": "".join(f'{{"text": "fine {n}"}}\n{{"text": broken\n' for n in range(30)),
        "field.jsonl": "".join(f'{{"content": "x {n}"}}\n' for n in range(30)),
        "blank.jsonl": '{"text": ""}\n' * 30,
        "same.jsonl": '{"text": "the same"}\n' * 30,
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return tmp_path


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Model folders of two families, over the byte tokenizer."""
    root = tmp_path_factory.mktemp("models")
    tokenizer = learn("byte", ["x"], None)
    ids = {"bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id}
    for family in ("gpt2", "llama"):
        shape = ModelConfig(family, dim=16, layers=1, heads=2, context=16, vocab=tokenizer.vocab, **ids)
        save(build(shape, 0), tokenizer, root / family)
    return root


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A folder with prepared data and a finished run on it."""
    root = tmp_path_factory.mktemp("finished")
    (root / "text.txt").write_text(TEXT * 60)
    assert (
        main(
            [
                "prepare",
                f"{root}/text.txt",
                "--out",
                f"{root}/data",
                "--tokenizer",
                "byte",
                "--context",
                "16",
                "--skip",
                "all",
            ]
        )
        == 0
    )
    assert main(["train", f"{root}/data", "--out", f"{root}/run", *ON_DATA]) == 0
    return root


@pytest.fixture
def tree():
    """`contents`, for tests that compare a folder before and after by themselves."""
    return contents


@pytest.fixture
def refuse(capsys):
    """`refused`, with this test's output."""
    return partial(refused, capsys)
