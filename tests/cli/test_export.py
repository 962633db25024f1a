"""wenlu export: what it prints, and what it refuses."""

import json

import pytest

from wenlu.cli.main import main
from wenlu.hub.folder import save
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.tokenization.learn import learn

pytest.importorskip("gguf")
SHAPE = {"dim": 16, "layers": 1, "heads": 2, "context": 16, "ffn": 24}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with a model of characters in it, and an LSTM."""
    monkeypatch.chdir(tmp_path)
    tokenizer = learn("char", ["the stove burns 炉火"])
    save(build(ModelConfig(**SHAPE, vocab=tokenizer.vocab, eos_id=tokenizer.eos_id), 0), tokenizer, tmp_path / "run")
    lstm = ModelConfig(family="lstm", dim=8, layers=1, vocab=tokenizer.vocab)
    save(build(lstm, 0), tokenizer, tmp_path / "lstm")
    return tmp_path


def test_a_file(here, capsys):
    assert main(["export", "run", "--out", "deep/炉.gguf"]) == 0
    out, err = capsys.readouterr()
    size = (here / "deep" / "炉.gguf").stat().st_size
    assert out == f"deep/炉.gguf: {size:,} bytes, 13 tensors, qwen3, tokenizer llama, default\n"
    assert "note: a text with the character ▁ (U+2581) reads there as if it were a space" in err


def test_json(here, capsys):
    assert main(["export", "run", "--out", "a.gguf", "--dtype", "q8_0", "--json"]) == 0
    out, err = capsys.readouterr()
    facts = json.loads(out)
    assert facts["file"] == "a.gguf" and facts["bytes"] == (here / "a.gguf").stat().st_size
    assert len(facts["kept_f32"]) == 8
    assert "note: 8 matrices stay in f32, their rows being no multiple of 32 numbers" in err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("lstm --out a.gguf", "the family lstm, which cannot be exported: gpt2, llama, mistral, qwen2, qwen3 can"),
        ("run --out a.gguf --dtype int8", "dtype must be one of f32, bf16, q8_0, not 'int8'"),
        ("some/hub-id --out a.gguf --dtype q4_0", "dtype must be one of f32, bf16, q8_0, not 'q4_0'"),
        ("run --out lstm", "lstm is a folder: --out names the file, such as lstm/model.gguf"),
        ("run --out run/config.json", "run/config.json exists already: choose another --out, or remove it first"),
        ("nothing/there/at/all --out a.gguf", "no model folder at nothing/there/at/all"),
    ],
)
def test_refusals(here, capsys, line, words):
    before = {path: path.stat().st_mtime_ns for path in here.rglob("*")}
    assert main(["export", *line.split()]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("wenlu: ") and words in err and err.count("\n") <= 2
    assert {path: path.stat().st_mtime_ns for path in here.rglob("*")} == before
