"""wenlu eval: a table, or one JSON object, of what `evaluate` measures."""

import io
import json
import sys
from pathlib import Path

import pytest

from wenlu.base.errors import UserError
from wenlu.cli.eval import main
from wenlu.evaluation.perplexity import Settings, evaluate
from wenlu.hub.folder import load, save
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.tokenization.learn import learn


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tokenizer = learn("byte", ["x"], None)
    ids = {"bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id}
    model = build(ModelConfig("gpt2", dim=16, layers=1, heads=2, context=32, vocab=tokenizer.vocab, **ids), 0)
    path = tmp_path_factory.mktemp("runs") / "run"
    save(model, tokenizer, path)
    return str(path)


@pytest.fixture
def texts(tmp_path):
    (tmp_path / "a.txt").write_text("第一章 天气真好。\n" * 8, encoding="utf-8")
    (tmp_path / "b.txt").write_text("It was the best of times.\n" * 5, encoding="utf-8")
    return [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]


def test_json_holds_what_evaluate_measures(folder, texts, capsys):
    assert main([folder, *texts, "--overlap", "4", "--batch", "3", "--json", "--device", "cpu"]) == 0
    said = capsys.readouterr()
    assert said.out.count("\n") == 1
    found = json.loads(said.out)
    expected = evaluate(*load(folder), [Path(text).read_text(encoding="utf-8") for text in texts], Settings(overlap=4))
    assert found["tokens"] == expected.tokens and found["documents"] == 2 and found["bytes"] == expected.bytes
    for name in ("nats_per_token", "perplexity", "bits_per_byte"):
        estimate = getattr(expected, name)
        assert found[name]["value"] == pytest.approx(estimate.value, rel=1e-5)
        assert found[name]["interval"]["low"] == pytest.approx(estimate.interval.low, rel=1e-5)


def test_table(folder, texts, capsys):
    assert main([folder, *texts, "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("nats per token", "perplexity", "bits per byte", "95 % interval", " to "))
    assert "2 documents; windows of 32" in out


def test_a_context_beyond_the_trained_one_is_said(texts, tmp_path, capsys):
    tokenizer = learn("byte", ["x"], None)
    model = build(ModelConfig("llama", dim=16, layers=1, heads=2, context=32, vocab=tokenizer.vocab), 0)
    save(model, tokenizer, tmp_path / "run")
    assert main([str(tmp_path / "run"), *texts, "--context", "64"]) == 0
    said = capsys.readouterr()
    assert "windows of 64" in said.out and "trained on 32 tokens at a time" in said.err


def test_texts_are_wanted(folder):
    with pytest.raises(UserError, match="which texts"):
        main([folder])


def test_stdin_and_what_was_left_out(folder, capsys, monkeypatch, tmp_path):
    rows = ['{"body": "一二三"}'] * 20 + ["no json", '{"body": ""}']
    (tmp_path / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("天气\r\n真好".encode())))
    flags = ["--field", "body", "--max-bad", "0.1", "--json"]
    assert main([folder, "-", str(tmp_path / "rows.jsonl"), *flags]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["documents"] == 21 and found["bytes"] == 13 + 20 * 9 and found["source"]["bad_lines"] == 1
    assert "1 bad line left out" in said.err and "1 row with an empty text" in said.err and "CRLF" in said.err
