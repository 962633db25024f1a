"""The whole path by the command: text → data → models → figures → text."""

import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from wenlu.base.files import sha256_file
from wenlu.cli.info import used
from wenlu.cli.main import COMMANDS, main
from wenlu.cli.prompt import COMMANDS as PROMPT_COMMANDS
from wenlu.models.config import ModelConfig, RopeScaling

ENGLISH = "The kettle on stove {0} sang in house {1}, and nobody but the cat heard it.\n"
CHINESE = "第{0}炉文火慢炖，{1}人围炉读书；窗外下着雪。\n\n"
SHAPE = "--model.dim 16 --model.layers 1 --model.heads 2 --model.context 16 --steps 3 --training.batch 2".split()
ON_DATA = (*SHAPE, *"--training.threads 1 --training.eval-every 2 --training.sample-tokens 4".split())
TINY = (*ON_DATA, "--skip", "all")


def prose(lines: int) -> str:
    """Text in two scripts that repeats itself but never quite."""
    return "".join((ENGLISH + CHINESE).format(n * n % 97, n % 13) for n in range(lines))


@pytest.fixture
def run(capsys):
    """Runs a command line that must succeed; gives what it wrote to stdout and to stderr."""

    def run(*line: object) -> tuple[str, str]:
        capsys.readouterr()
        assert main([str(argument) for argument in line]) == 0
        return tuple(capsys.readouterr())

    return run


@pytest.fixture
def run_json(run):
    """The same with --json: exactly one JSON object on stdout."""

    def run_json(*line: object) -> dict:
        out, _ = run(*line, "--json")
        assert out.endswith("}\n") and out.count("\n") == 1
        return json.loads(out)

    return run_json


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A text, the data made of it, and a run on them."""
    root = tmp_path_factory.mktemp("place")
    (root / "text.txt").write_text(prose(120), encoding="utf-8")
    (root / "new.txt").write_text(prose(200)[-4000:], encoding="utf-8")
    assert (
        main(["prepare", f"{root}/text.txt", "--out", f"{root}/data", "--tokenizer", "bpe:320", "--skip", "all"]) == 0
    )
    assert main(["train", f"{root}/data", "--out", f"{root}/run", *ON_DATA]) == 0
    return root


def test_prepare(place, run, run_json, tmp_path):
    facts = run_json(
        "prepare", place / "text.txt", "--out", tmp_path / "data", "--tokenizer", "bpe:320", "--skip", "all"
    )
    assert facts["vocab"] == 320 and facts["tokenizer"]["kind"] == "bpe"
    sides = facts["train"]["bytes"] + facts["validation"]["bytes"] + facts["gap_bytes"]
    assert sides == (place / "text.txt").stat().st_size
    assert facts["fingerprint"] == json.loads((place / "data" / "data.json").read_text())["fingerprint"]
    out, err = run("prepare", place / "text.txt", "--out", tmp_path / "bytes", "--tokenizer", "byte", "--skip", "all")
    assert out == "" and "train" in err and "held-out" in err


@pytest.mark.parametrize("family", ["lstm", "gpt2", "llama", "qwen3"])
def test_train_every_family(family, place, run_json, tmp_path):
    outcome = run_json("train", place / "data", "--out", tmp_path / "run", "--model", family, *ON_DATA)
    assert outcome["finished"] == "steps" and outcome["step"] == 3 and 0 < outcome["held_out"] < 10
    assert outcome["run"] == str(tmp_path / "run")
    again = run_json("train", "--resume", "--out", tmp_path / "run")
    assert again == outcome
    assert json.loads((tmp_path / "run" / "wenlu" / "recipe.json").read_text())["model"]["family"] == family
    figures = run_json("eval", tmp_path / "run", place / "new.txt")
    assert figures["nats_per_token"]["value"] < 10
    flags = ("--prompt", "炉火 and", "--max-tokens", "5")
    assert len(run_json("generate", tmp_path / "run", *flags)["samples"][0]["text"]) > 0


def test_text_data_and_recipe_give_the_same_weights(place, run, tmp_path):
    """However the same run is asked for."""
    data = ("--data.tokenizer", "bpe:320", "--data.context", "16")
    run("train", place / "text.txt", "--out", tmp_path / "by-path", *TINY, *data)
    run(
        "prepare",
        place / "text.txt",
        "--out",
        tmp_path / "data",
        "--tokenizer",
        "bpe:320",
        "--context",
        "16",
        "--skip",
        "all",
    )
    run("train", tmp_path / "data", "--out", tmp_path / "by-data", *ON_DATA)
    shutil.copy(place / "text.txt", tmp_path / "text.txt")
    (tmp_path / "recipe.toml").write_text(
        '[data]\npaths = ["text.txt"]\ntokenizer = "bpe:320"\ncontext = 16\nskip = ["all"]\n'
        "[model]\ndim = 16\nlayers = 1\nheads = 2\ncontext = 16\n"
        "[training]\nsteps = 9\nbatch = 2\nthreads = 1\neval_every = 2\nsample_tokens = 4\n"
    )
    run("train", tmp_path / "recipe.toml", "--out", tmp_path / "by-recipe", "--steps", "3")
    hashes = {sha256_file(tmp_path / f"by-{way}" / "model.safetensors") for way in ("path", "data", "recipe")}
    assert len(hashes) == 1


def test_results_and_progress_go_their_own_ways(place, run, tmp_path):
    out, err = run("train", place / "data", "--out", tmp_path / "run", *ON_DATA)
    assert "3 steps" in out and "report.html" in out and "wenlu generate" in out
    assert "parameters" in err and "loss" in err and "parameters" not in out
    out, err = run("train", "--resume", "--out", tmp_path / "run")
    assert "is finished: 3 steps; nothing to resume" in " ".join(err.split())
    assert (tmp_path / "run" / "wenlu" / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    out, err = run("eval", place / "run", place / "new.txt")
    assert "bits per byte" in out and " to " in out and "bits per byte" not in err


def test_eval_with_intervals(place, run_json):
    facts = run_json("eval", place / "run", place / "new.txt", place / "text.txt", "--context", "16", "--overlap", "4")
    for name in ("nats_per_token", "perplexity", "bits_per_byte"):
        interval = facts[name]["interval"]
        assert interval["low"] < facts[name]["value"] < interval["high"]
    assert facts["bytes"] == sum((place / name).stat().st_size for name in ("new.txt", "text.txt"))
    assert facts["documents"] == 2 and facts["source"]["bad_lines"] == 0


def test_generate(place, run, run_json):
    flags = ("generate", place / "run", "--prompt", "The kettle", "--max-tokens", "12")
    greedy = run(*flags, "--temperature", "0")[0]
    assert greedy == run(*flags, "--temperature", "0", "--seed", "5")[0] and len(greedy) > 1
    text = run_json(*flags, "--temperature", "0")["samples"][0]["text"]
    assert greedy == text + "\n"
    three = run_json(*flags, "--samples", "3", "--temperature", "1")["samples"]
    assert len({sample["text"] for sample in three}) == 3
    assert run(*flags, "--samples", "2")[0].count("=== sample") == 2
    middle = text[len(text) // 2]
    stopped = run_json(*flags, "--temperature", "0", "--stop", middle)["samples"][0]
    assert stopped["finish"] == "stop" and stopped["text"] == text[: text.index(middle)]


def test_info_on_a_run_on_data_and_on_a_tokenizer(place, run, run_json, tmp_path):
    of_run = run_json("info", place / "run")
    assert of_run["kind"] == "run" and of_run["training"]["steps"] == 3 and of_run["model"]["family"] == "qwen3"
    of_data = run_json("info", place / "data")
    assert of_data["kind"] == "data" and of_data["data"]["vocab"] == 320
    shutil.copy(place / "run" / "tokenizer.json", tmp_path)
    of_tokenizer = run_json("info", tmp_path / "tokenizer.json", "--vocabulary", "300:3")
    assert of_tokenizer["kind"] == "tokenizer" and [row["id"] for row in of_tokenizer["tokens"]] == [300, 301, 302]
    for path, word in (("run", "best held out"), ("data", "train.tokens")):
        assert word in run("info", place / path)[0]


@pytest.mark.parametrize(
    ("shape", "there", "not_there"),
    [
        ({"family": "lstm"}, {"dim", "layers", "context"}, {"heads", "kv_heads", "ffn", "rope", "window", "buckets"}),
        ({"family": "gpt2"}, {"heads", "ffn"}, {"kv_heads", "rope_theta", "rope", "gated", "types", "head", "labels"}),
        ({"family": "qwen3"}, {"kv_heads", "rope_theta", "window"}, {"rope", "full_layers", "mlp_bias", "distance"}),
        ({"family": "t5"}, {"buckets", "gated", "decoder_layers"}, {"rope_theta", "window", "types", "kv_heads"}),
        ({"family": "bert", "head": "tag", "labels": ("O", "B")}, {"types", "head", "labels"}, {"rope", "buckets"}),
        ({"family": "llama", "rope": RopeScaling("linear", 2.0)}, {"rope", "mlp_bias"}, {"window", "types"}),
    ],
)
def test_info_shows_the_fields_that_a_family_has(shape, there, not_there):
    found = set(used(ModelConfig(**shape)))
    assert found >= there | {"family", "vocab"} and not found & not_there


def test_stdin_as_text(place, run, run_json, monkeypatch, tmp_path):
    def give(raw: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))

    raw = (place / "text.txt").read_bytes()
    give(raw)
    facts = run_json("prepare", "-", "--out", tmp_path / "data", "--tokenizer", "bpe:320", "--skip", "all")
    assert facts["fingerprint"] == json.loads((place / "data" / "data.json").read_text())["fingerprint"]
    give("".join(json.dumps({"text": f"{n} " * 9}) + "\n" for n in range(40)).encode())
    rows = run_json(
        "prepare", "-", "--out", tmp_path / "rows", "--tokenizer", "byte", "--validation", "0.2", "--skip", "all"
    )
    assert rows["train"]["documents"] + rows["validation"]["documents"] == 40
    give(raw)
    run("train", "-", "--out", tmp_path / "run", *TINY)
    run("train", "--resume", "--out", tmp_path / "run")
    give((place / "new.txt").read_bytes())
    by_stdin, by_file = (run_json("eval", place / "run", source) for source in ("-", place / "new.txt"))
    assert by_stdin["bits_per_byte"] == by_file["bits_per_byte"]


LINES = [[name] for name in COMMANDS if name != "prompt"] + [["prompt", name] for name in PROMPT_COMMANDS]


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_every_command_has_help_with_an_example(line, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*line, "--help"])
    said = capsys.readouterr()
    assert stopped.value.code == 0 and f"wenlu {' '.join(line)}" in said.out and "example:" in said.out
    assert ("--json" in said.out or line == ["prompt", "export"]) and said.err == "", "export prints JSON lines"


def test_a_reader_that_stops_reading_is_no_mistake(place):
    line = f"{sys.executable} -W error -m wenlu.cli.main info {place}/run --vocabulary 0:320 | head -n 1"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True)
    assert done.stderr == "" and done.stdout.count("\n") == 1


def test_a_terminal_without_chinese_still_shows_all():
    line = [sys.executable, "-m", "wenlu.cli.main", "--help"]
    done = subprocess.run(line, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and rb"wenlu \u6587\u7089" in done.stdout, done.stderr


def test_a_run_is_evaluated_on_what_it_held_out(place, run_json):
    alone = run_json("eval", place / "run")
    assert alone["documents"] >= 1 and alone["bits_per_byte"]["value"] > 0 and alone["source"] is None


def test_paths_are_said_as_they_are(place, run, tmp_path):
    """Not read as markup, not folded: the line is to be copied."""
    out = tmp_path / ("m[red]x" + "y" * 90)
    run("train", place / "data", "--out", out, *ON_DATA)
    assert f"{out} is finished" in run("train", "--resume", "--out", out)[1]


def test_stops_add_up(place, run_json):
    facts = run_json("generate", place / "run", "--prompt", "The", "--stop", "e", "--stop", "t", "--max-tokens", "30")
    assert facts["settings"]["stop"] == ["e", "t"]


def test_the_demo_again(tmp_path, run, monkeypatch):
    """A second time it goes on where it was, or shows its figures anew."""
    from wenlu.cli import demo
    from wenlu.data import default_corpus

    recipe_of = demo.recipe

    def raw(recipe):
        return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, skip=("all",)))

    texts = ["".join(ENGLISH.format(n * k * k % 9973, k * 31 % (n + 7)) for k in range(9, 30)) for n in range(60)]
    monkeypatch.setattr(demo, "recipe", lambda *about: raw(recipe_of(*about)))
    monkeypatch.setattr(default_corpus, "documents", lambda: iter(texts))
    first, _ = run("demo", "--out", tmp_path / "demo", "--steps", "1")
    again, said = run("demo", "--out", tmp_path / "demo", "--steps", "1")
    assert first == again and "is finished" in said and "this model" in first
