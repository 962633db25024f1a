"""Wrong uses of the command: exit code 2, a line or two that say what to do, no traceback, nothing left behind."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from wenlu.cli.main import main
from wenlu.tokenization.learn import learn

TEXT = "It was the best of times, 天气真好 and so on.\n\n"
SHAPE = "--model.dim 16 --model.layers 1 --model.heads 2 --model.context 16 --steps 3 --training.batch 2".split()
ON_DATA = (*SHAPE, *"--training.threads 1 --training.compile off".split())
TINY = (*ON_DATA, *"--tokenizer byte --skip all".split())


SOURCES = {
    "missing.txt": ("no file or folder", "missing.txt", "check the path"),
    "empty.txt": ("empty.txt is empty", "holds no text"),
    "one.txt": ("8 characters are too few", "5%", "give more text", "--validation 0"),
    "binary.txt": ("binary.txt is a binary file", "name files of text"),
    "koi8.txt": ("50 of 50 lines are bad", "koi8.txt:1: no UTF-8", "iconv -f ENCODING"),
    "pictures": ("pictures holds no text", ".txt, .md, .jsonl"),
    "*.doc": ("no file matches", "*.doc: check the pattern"),
    "cut.txt.gz": ("cut.txt.gz is damaged or cut short", "fetch it again"),
    "bad.jsonl": ("30 of 60 lines are bad", "bad.jsonl:2: no JSON", "--max-bad 0.51"),
    "field.jsonl": ("30 of 30 lines are bad", "field.jsonl:1: no text under 'text'", "--field", "'content'"),
    "same.jsonl": ("all documents are the same", "give more text, or --validation 0"),
}


@pytest.mark.parametrize("source", SOURCES)
def test_bad_sources(source, here, refuse):
    refuse(f"prepare {source} --out new --skip all", *SOURCES[source])
    refuse(["train", source, "--out", "runs/new", *TINY], *SOURCES[source])


def test_a_bad_source_is_refused_beside_good_ones_and_for_evaluation(here, models, refuse):
    refuse("prepare text.txt bad.jsonl --out new", "bad.jsonl:2")
    refuse("prepare text.txt --validation-paths missing.txt --out new", "missing.txt", "check the path")
    refuse(f"eval {models}/llama empty.txt", "empty.txt is empty")
    refuse(f"eval {models}/llama blank.jsonl", "blank.jsonl is empty: it holds no text")
    refuse(f"eval {models}/llama missing.txt", "no file or folder missing.txt: check the path")


def test_info_on_texts_that_cannot_be_read(here, models, refuse):
    refuse(f"info {models}/llama --text missing.txt", "no file or folder missing.txt: check the path")
    refuse(f"info {models}/llama --vocabulary 5", "START:COUNT, such as 0:100, not '5'")
    for line in (f"info {models}/llama", f"info {models}/llama --against byte"):
        refuse(f"{line} --vocabulary 9999:3", "begins at 9,999, beyond the 257 tokens: begin below 257")
    (here / "model.gguf").write_bytes(b"GGUF\x03\x00\x00\x00")
    refuse("info model.gguf", "model.gguf is a GGUF file", "does not read: give the folder that it was made of")
    refuse(["info", "pictures/a.png", "--text", "text.txt"], "a.png is no tokenizer that can be read")


def test_what_the_remedy_names_is_accepted(here, capsys):
    for line in (
        "prepare bad.jsonl --max-bad 0.51 --validation 0 --skip all --out a",
        "prepare one.txt --validation 0 --out b",
    ):
        assert main(line.split()) == 0
    assert main(["train", "field.jsonl", "--field", "content", "--validation", "0", "--out", "c", *TINY]) == 0
    assert "30 bad lines left out" in capsys.readouterr().err.replace("\n", " ")


RECIPES = {
    "[training]\nstep = 3": ("unknown setting 'training.step'", "Did you mean 'steps'?"),
    "[trainning]\nsteps = 3": ("unknown setting 'trainning'", "Did you mean 'training'?"),
    "[training]\nqqq = 3": ("unknown setting 'training.qqq'", "Known here: steps, minutes, batch"),
    "[training": ("recipe.toml is not valid TOML", "Expected"),
    '[training]\nsteps = "3"': ("training.steps must be a whole number, not '3'",),
    "[training]\nsteps = true": ("training.steps must be a whole number, not True",),
    "training = 3": ("training is a section: write it as [training]",),
    '[model]\nfamily = "gpt3"': ("model.family must be one of lstm, gpt2", "'gpt3'", "Did you mean 'gpt2'?"),
    "[data]\npaths = [3]": ("data.paths must be a text in quotes, not 3",),
    '[data]\npaths = "text.txt"': ("data.paths must be a list, not 'text.txt'",),
    '[data]\npaths = ["gone.txt"]': ("no file or folder", "gone.txt", "check the path"),
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_bad_recipes(recipe, here, refuse):
    Path("recipe.toml").write_text(recipe)
    refuse("train recipe.toml --out run", *RECIPES[recipe])


def test_recipes_that_are_too_few_or_too_many(here, refuse):
    for name in ("one.toml", "two.toml"):
        Path(name).write_text('[data]\npaths = ["text.txt"]')
    refuse("train none.toml --out run", "no file none.toml", "give the path of a TOML file")
    refuse("train one.toml two.toml --out run", "one recipe at a time, not 2: one.toml, two.toml")


COMMANDS = {
    "tain text.txt": ("no command 'tain'", "Did you mean 'train'?", "wenlu --help"),
    "train text.txt": ("where to? give --out RUN",),
    "prepare text.txt": ("where to? give --out FOLDER",),
    "train --out run": ("nothing to train on", "name text files or folders"),
    "prepare --out data": ("no text", "name files or folders"),
    "train --resume": ("where to? give --out RUN",),
    "train --resume --out none": ("none holds no run to resume", "leave out --resume"),
    "train --resume --out pictures": ("pictures holds no run to resume", "leave out --resume"),
    "train text.txt --out pictures": ("pictures is not empty and holds no run", "choose another --out"),
    "prepare text.txt --out pictures": ("pictures exists already", "choose another --out"),
    "train text.txt --out text.txt": ("cannot write text.txt", "is a file, not a folder", "--out"),
    "train text.txt --out text.txt/run": ("cannot write text.txt/run", "is a file, not a folder", "--out"),
    "prepare text.txt --out text.txt/data": ("text.txt is a file, not a folder", "write elsewhere with --out"),
    "prepare text.txt --out new --tokenizer wordpiece": (
        "'wordpiece'",
        "bpe, unigram, char, bpe:N, unigram:N, char:N, byte",
    ),
    "prepare text.txt --out new --tokenizer bpe:x": ("'bpe:x'", "whole number", "bpe:4096"),
    "prepare text.txt --out new --tokenizer bpe:3": ("at least 257 tokens", "not 3"),
    "prepare text.txt --out new --tokenizer byte:3": ("'byte:3'", "write byte alone"),
    "prepare text.txt --out new --tokenizer ./gone": ("'./gone'", "nor an existing folder"),
    "prepare text.txt --out new --tokenizer pictures": ("no tokenizer at pictures", "tokenizer.json"),
    "prepare text.txt --out new --validation 1": ("validation must lie in [0, 1), not 1.0",),
    "prepare text.txt --out new --max-bad 7": ("max-bad must lie in [0, 1], not 7",),
    "eval run": ("no model folder at run", "give the folder of a run, or name texts after a hub id"),
    "eval pictures": ("which texts?", "pictures is no run with held-out text of its own", "name files or folders"),
    "train folder.toml --out run": ("folder.toml is a folder: give the path of a TOML file", "TOML file"),
    "eval run text.txt --batch 0": ("batch must be at least 1, not 0",),
    "eval run text.txt --max-bad 7": ("max-bad must lie in [0, 1], not 7",),
    "eval run text.txt --device tpu": ("device must be auto, cpu, cuda or cuda:N, not 'tpu'",),
    "eval pictures text.txt": ("pictures holds no config.json",),
    "generate pictures": ("pictures holds no config.json", "not a model's folder"),
    "generate ./gone": ("no model folder at ./gone", "give the folder of a run"),
    "generate run --temperature nan": ("temperature must be 0 (greedy) or a positive number, not nan",),
    "generate run --top-p 2": ("top_p must lie in (0, 1]", "not 2.0"),
    "generate run --top-k -1": ("top_k must be 0 (all tokens)", "not -1"),
    "generate run --max-tokens 0": ("max_tokens must be at least 1, not 0",),
    "generate run --samples 0": ("samples must be at least 1, not 0",),
    "generate run --samples 2 --temperature 0": ("at temperature 0 all 2 samples are the same",),
    "generate some/hub-id --prompts missing.jsonl --out new.jsonl": ("no file missing.jsonl: give one of JSON lines",),
    "generate some/hub-id --prompts bad.jsonl --out new.jsonl": ("bad.jsonl, line 1: a row is an object", "prompt"),
    "generate run --prompts text.txt --out pictures": (
        "pictures is a folder: --out names the file, such as pictures/results.jsonl",
    ),
    "generate run --prompts bad.jsonl --out one.txt/a/b.jsonl": (
        "cannot write one.txt/a/b.jsonl: one.txt is a file, not a folder; write elsewhere with --out",
    ),
    "predict run --prompts text.txt --out pictures": ("pictures is a folder: --out names the file",),
    "chat some/hub-id --load missing.json": ("cannot read missing.json: No such file",),
    "chat some/hub-id --load pictures": ("cannot read pictures: Is a directory",),
    "chat some/hub-id --load text.txt": ("text.txt is no saved conversation",),
    "plan text.txt --minutes 1 --gpu h100": ("leave one of them out",),
    "demo --out new --steps -1": ("training.steps must be at least 1, not -1",),
    "demo --out new --minutes 0": ("minutes must be above 0, not 0", "3 are enough"),
    "info gone": ("there is nothing at gone", "give a folder that exists"),
    "info pictures": ("pictures is no run", "give a folder that holds one of them"),
    "info text.txt": ("text.txt is no tokenizer that can be read", "info takes a run, a prepared folder, a model"),
    "info same.jsonl": ("same.jsonl is no tokenizer", "texts go to --text, or to wenlu prepare"),
    "info text.txt --against byte": ("text.txt is no tokenizer", "texts go to --text, or to wenlu prepare"),
}


@pytest.mark.parametrize("line", COMMANDS)
def test_bad_commands(line, here, refuse):
    refuse(line, *COMMANDS[line])


SETTINGS = {
    "--steps -1": ("training.steps must be at least 1, not -1",),
    "--training.batch 0": ("training.batch must be at least 1, not 0",),
    "--model.heads 3": ("model.dim (16) must be a multiple of model.heads (3); model.heads that fit: 1, 2, 4",),
    "--model.dropout 2": ("model.dropout must lie in [0, 1), not 2.0",),
    "--training.micro-batch 9": ("training.micro_batch (9) must not exceed training.batch (2)",),
    "--training.patience 2 --training.eval-every 0": ("patience needs evaluations", "training.eval_every above 0"),
    "--optimizer.lr nan": ("optimizer.lr must be at least 0 and finite, not nan",),
    "--seed 99999999999999999999": ("training.seed must be at most", "not 99999999999999999999"),
    "--training.threads 100000": ("training.threads must be at most 1024, not 100000",),
    "--device cuda:99": ("device cuda:99 is not here", "--device cpu, or auto"),
    "--model.context 100000": ("training tokens are too few", "give more text", "--model.context"),
    "--training.patience 2 --validation 0": ("watches the held-out loss, and nothing is held out", "patience at 0"),
    "--model.vocab 99": ("model.vocab is the tokenizer's, 257, not 99", "leave it out"),
    "--model.bos-id 7": ("model.bos_id is the tokenizer's", "not 7", "leave it out"),
    "--data.context 7": ("data.context is model.context", "leave data.context out"),
    "--model.dim 100000": ("training would take about", "GiB are free", "use a smaller model or context"),
}


@pytest.mark.parametrize("flags", SETTINGS)
def test_bad_settings_of_training(flags, here, refuse):
    refuse(["train", "text.txt", "--out", "runs/new", *TINY, *flags.split()], *SETTINGS[flags])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there(here, models, refuse):
    refuse(["train", "text.txt", "--out", "run", *TINY, "--device", "cuda"], "cuda is not here (0 found)", "cpu")
    refuse(f"generate {models}/llama --device cuda", "cuda is not here (0 found)", "cpu")


def test_a_text_shorter_than_a_window(here, refuse):
    words = ("training tokens are too few for windows of 512", "give more text", "--model.context to")
    message = refuse(["train", "short.txt", "--out", "run", *TINY, "--model.context", "512"], *words)
    fitting = re.search(r"--model.context to (\d+)", message)[1]
    assert main(["train", "short.txt", "--out", "run", *TINY, "--model.context", fitting]) == 0


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("train text.txt --out run --training.step 3", ("--training.step", "--training.steps")),
        ("train text.txt --out run --optimizer.name lion", ("'lion'", "muon")),
        ("prepare text.txt --out new --tokeniser byte", ("--tokeniser", "--tokenizer")),
        ("generate run --temprature 1", ("--temprature", "--temperature")),
        ("train text.txt --out run --steps many", ("many", "--training.steps")),
    ],
)
def test_misspelt_flags(line, words, here, refuse):
    refuse(line, *words)


def test_the_same_command_can_be_given_again(here, refuse):
    line = ["train", "later.txt", "--out", "deep/runs/new", *TINY]
    refuse(line, "later.txt", "check the path")
    Path("kept").mkdir()
    refuse(["train", "later.txt", "--out", "kept", *TINY], "later.txt")
    shutil.copy("text.txt", "later.txt")
    assert main(line) == 0
    refuse(line, "deep/runs/new holds a run already", "--resume", "choose another --out")


def test_wrong_ways_to_resume(here, finished, refuse):
    shutil.copytree(finished / "run", "run")
    refuse("train --resume --out run --steps 99", "begun with training.steps = 3, not 99", "leave that out")
    refuse("train --resume --out run --model lstm", "model.family = 'qwen3', not 'lstm'", "another --out")
    refuse("train text.txt --resume --out run", "data.paths", "text.txt", "leave that out")
    refuse("demo --out run", "run holds another run", "wenlu info", "give another --out")
    Path("run/wenlu/recipe.json").write_text("{")
    refuse("train --resume --out run", "recipe.json is damaged", "another --out")


def test_a_run_without_held_out_text_is_not_evaluated_on_its_own(here, refuse):
    assert main(["train", "text.txt", "--out", "run", *TINY, "--validation", "0"]) == 0
    refuse("eval run", "which texts? run has held nothing out", "name files or folders")


def test_files_of_a_run_that_are_no_text(here, finished, refuse):
    shutil.copytree(finished / "run", "run")
    Path("run/config.json").write_bytes(b"\xff{}")
    refuse("generate run", "config.json is damaged")
    events = Path("run/wenlu/events.jsonl")
    events.write_bytes(b"{torn\n" + events.read_bytes())
    refuse("train --resume --out run", "events.jsonl is damaged", "begin a new run")
    Path("run/wenlu/recipe.json").write_bytes(b"\xff{}")
    refuse("train --resume --out run", "recipe.json is damaged", "another --out")


def test_settings_of_data_that_are_prepared_already(here, finished, refuse):
    data = finished / "data"
    for flag, name in (("--tokenizer char", "tokenizer"), ("--validation 0.5", "validation"), ("--field x", "field")):
        words = (f"data.{name} has no effect on data that are prepared already", "leave it out")
        refuse(f"train {data} --out new {flag}", *words)
    refuse(f"train {data} text.txt --out new", "is a prepared folder: give it alone, or all of the texts")


def test_data_that_were_damaged_before_they_were_read(here, finished, refuse):
    shutil.copytree(finished / "data", "data")
    shard = Path("data/train/00000.bin")
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x07")
    refuse("train data --out new --steps 1", "is damaged (train/00000.bin was changed", "prepare it again")


def test_changed_data_are_refused_on_resume(here, refuse):
    Path("other.txt").write_text(TEXT * 70)
    assert (
        main(["prepare", "text.txt", "--out", "data", "--tokenizer", "byte", "--context", "16", "--skip", "all"]) == 0
    )
    assert main(["train", "data", "--out", "run", *ON_DATA]) == 0
    shutil.rmtree("data")
    refuse("train --resume --out run", "data")
    assert (
        main(["prepare", "other.txt", "--out", "data", "--tokenizer", "byte", "--context", "16", "--skip", "all"]) == 0
    )
    refuse("train --resume --out run", "the data differ", "restore them", "another --out")
    shard = Path("data/train/00000.bin")
    shard.write_bytes(shard.read_bytes()[:-1])
    refuse("train --resume --out run", "data is damaged", "prepare it again")


def edited(folder: Path, **changes) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


@pytest.fixture
def llama(here, models):
    return Path(shutil.copytree(models / "llama", here / "model"))


def test_models_that_cannot_be_read(llama, refuse):
    whole = load_file(llama / "model.safetensors")
    save_file({k: v for k, v in whole.items() if k != "model.norm.weight"}, llama / "model.safetensors")
    refuse("generate model", "lack model.norm.weight", "folder is incomplete")
    (llama / "model.safetensors").write_bytes(b"x" * 100)
    refuse("generate model", "model.safetensors is damaged")
    (llama / "model.safetensors").unlink()
    refuse("generate model", "model holds no model.safetensors")
    (llama / "pytorch_model.bin").write_bytes(b"x")
    refuse("generate model", "pickle (.bin)", "safe_serialization=True")
    edited(llama, model_type="mamba")
    refuse("generate model", "model_type 'mamba' is not supported", "Supported: gpt2")
    (llama / "config.json").write_text("{")
    refuse("generate model", "config.json is damaged")


def test_a_rotary_scaling_that_is_not_built(llama, refuse):
    edited(llama, rope_parameters={"rope_type": "longrope", "factor": 4.0, "rope_theta": 10000.0})
    refuse("generate model", "'longrope' is not supported", "only default, linear, llama3, yarn")
    edited(llama, rope_parameters=None, rope_scaling={"type": "dynamic", "factor": 2.0})
    refuse("eval model text.txt", "'dynamic' is not supported")


def test_a_tokenizer_that_does_not_fit(llama, refuse):
    learn("bpe", [TEXT * 9], 280).save(llama)
    refuse("generate model --prompt a", "280 ids, but the model only 257", "do not belong together")
    refuse("eval model text.txt", "280 ids, but the model only 257", "do not belong together")
    (llama / "tokenizer.json").unlink()
    refuse("generate model --prompt a", "holds no tokenizer", "put its tokenizer.json there")


def test_prompts_that_cannot_be_continued(here, models, llama, refuse):
    long = ["generate", models / "gpt2", "--prompt", "x" * 40]
    refuse(long, "41 tokens", "this gpt2 reads at most 16", "shorten the prompt")
    refuse(["generate", models / "gpt2", "--prompt", "\udcff"], "lone surrogate U+DCFF", "remove that character")
    config = json.loads((llama / "tokenizer_config.json").read_text())
    bare = {k: v for k, v in config.items() if k not in ("bos_token", "eos_token", "pad_token")}
    (llama / "tokenizer_config.json").write_text(json.dumps(bare))
    edited(llama, bos_token_id=None, eos_token_id=None, pad_token_id=None)
    refuse("generate model", "an empty prompt", "give a prompt")
    refuse("eval model text.txt", "bos or eos", "tokenizer_config.json")
