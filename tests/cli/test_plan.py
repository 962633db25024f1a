"""The command that plans: what it prints, and what it refuses."""

import json
from pathlib import Path

import pytest

from wenlu.cli.main import main

RECIPES = Path(__file__).parents[2] / "recipes"
GPT3 = str(RECIPES / "gpt3-175b.toml")


def say(capsys, *line: object) -> str:
    assert main(["plan", *map(str, line)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    return said.out


def refuse(capsys, *line: object) -> str:
    assert main(["plan", *map(str, line)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("wenlu: ") and said.err.count("\n") <= 2
    return said.err


def test_the_table_is_read_at_eighty_columns(capsys):
    out = say(capsys, GPT3, "--gpu", "h100", "--gpus", "1024", "--price-per-hour", "2")
    recipe, *lines = out.splitlines()
    assert recipe == GPT3 and max(map(len, lines)) <= 80
    for words in ("174,604,259,328", "300 B: 93,422 steps of 1,568 × 2,048", "3.14e+23", "over 1,024", "cost", "no"):
        assert words in out
    assert "Assumed: products in bf16 over f32 weights" in out and "Sharded as FSDP2 does" in out
    alone = say(capsys, GPT3, "--gpu", "t4")
    assert "Sharded" not in alone and "cost" not in alone and "in f32 each" in alone


def test_json_holds_all_of_it(capsys):
    facts = json.loads(say(capsys, GPT3, "--gpu", "h100", "--gpus", "1024", "--utilisation", "0.5", "--json"))
    assert facts["parameters"] == 174604259328 and facts["cluster"]["utilisation"] == 0.5
    assert facts["sharded"]["total"] < facts["whole"]["total"] and "cost" not in facts
    priced = json.loads(say(capsys, GPT3, "--gpu", "h100", "--gpus", "8", "--price-per-hour", "2", "--json"))
    assert priced["cost"] == pytest.approx(priced["days"] * 24 * 8 * 2)


def test_flags_go_over_the_recipe(capsys):
    facts = json.loads(say(capsys, RECIPES / "gpt3-125m.toml", "--gpu", "l40s", "--model.layers", "6", "--json"))
    assert facts["model"]["layers"] == 6 and facts["model"]["dim"] == 768


def test_the_lstm_is_planned_too(tmp_path, capsys):
    (tmp_path / "lstm.toml").write_text('[model]\nfamily = "lstm"\ndim = 512\nvocab = 8000\n')
    out = say(capsys, tmp_path / "lstm.toml", "--gpu", "rtx4090")
    assert "lstm, 4 layers of 512, context 128" in out
    assert "lstm, 1 layer of 512" in say(capsys, tmp_path / "lstm.toml", "--gpu", "rtx4090", "--model.layers", "1")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ([GPT3], "which GPU? give --gpu, one of t4, v100,"),
        ([GPT3, "--gpu", "h1000"], "no GPU 'h1000' in the table. Did you mean 'h100'?"),
        ([GPT3, "--gpu", "h100", "--gpus", "0"], "gpus must be at least 1, not 0"),
        ([GPT3, "--gpu", "h100", "--utilisation", "40"], "utilisation must lie above 0 and at most at 1, not 40.0"),
        ([GPT3, "--gpu", "h100", "--price-per-hour", "-1"], "price-per-hour must be at least 0 and finite, not -1.0"),
        ([GPT3, GPT3, "--gpu", "h100"], "one recipe at a time, not 2"),
        (["--gpu", "h100"], "which recipe? give the path of one TOML file: wenlu plan RECIPE.toml --gpu h100"),
        (["book.txt", "--gpu", "h100"], "which recipe? give the path of one TOML file, not book.txt"),
        (["none.toml", "--gpu", "h100"], "no file none.toml: give the path of a TOML file"),
        (["a.txt", "--minutes", "1", "--gpus", "8"], "--gpus is for --gpu and has no effect on --minutes: leave it"),
        (["a.txt", "--minutes", "1", "--utilisation", "0.5"], "--utilisation is for --gpu and has no effect on"),
        (["a.txt", "--minutes", "1", "--recompute"], "--recompute is for --gpu and has no effect on --minutes"),
        (["a.txt", "--minutes", "1", "--price-per-hour", "2"], "--price-per-hour is for --gpu and has no effect on"),
        (["a.txt", "--minutes", "1", "--gpu", "h100"], "--minutes plans for this machine, --gpu on paper for another"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_uses(line, words, capsys):
    assert words in refuse(capsys, *line)


def test_minutes_plan_text_on_this_machine(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("wenlu.training.plan.PROBE_SECONDS", 0.0)
    monkeypatch.setattr("wenlu.training.plan.TRANSFORMERS", ((64, 2), (96, 2)))
    text = tmp_path / "炉.txt"
    text.write_text(
        "\n".join(f"{n * n % 977} stoves burn, 第{n % 29}炉文火慢炖。" for n in range(3000)), encoding="utf-8"
    )
    before = sorted(tmp_path.iterdir())
    line = ["plan", str(text), "--minutes", "0.5", "--tokenizer", "bpe:512"]
    assert main(line) == 0
    said = capsys.readouterr().out
    for words in ("model ", "qwen3, 2 layers of", "tokens/s", "FLOPs", "MiB", "bits per byte held out"):
        assert words in said
    assert main([*line, "--json", "--model", "lstm", "--model.dim", "32", "--model.layers", "1"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["minutes"] == 0.5 and facts["steps"] > 0 and "dim" not in facts["chosen"]["model"]
    assert sorted(tmp_path.iterdir()) == before, "nothing is kept"
