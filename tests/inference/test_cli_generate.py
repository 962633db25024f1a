"""wenlu generate: results on stdout, all else on stderr."""

import io
import json
import re
import shutil
import sys
from contextlib import nullcontext

import pytest
import torch
from safetensors.torch import load_file, save_file

from wenlu.base.errors import UserError
from wenlu.cli.generate import main
from wenlu.hub.folder import save
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.tokenization.learn import learn


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tokenizer = learn("byte", ["x"], None)
    ids = {"bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id}
    model = build(ModelConfig("llama", dim=16, layers=1, heads=2, context=32, vocab=tokenizer.vocab, **ids), 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.4, generator=torch.Generator().manual_seed(2))
    path = tmp_path_factory.mktemp("runs") / "run"
    save(model, tokenizer, path)
    return str(path)


def _json(capsys, *arguments):
    assert main([*arguments, "--json", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    return json.loads(out)


def test_one_sample_streams_what_json_holds(folder, capsys):
    flags = [folder, "--prompt", "文 炉", "--max-tokens", "12", "--seed", "3"]
    assert main(flags) == 0
    streamed = capsys.readouterr()
    found = _json(capsys, *flags)
    assert streamed.out == found["samples"][0]["text"] + "\n"
    assert "文 炉" in streamed.err and "ended by" in streamed.err
    assert found["prompt"] == "文 炉" and found["prompt_tokens"] == 8 and found["settings"]["seed"] == 3


def test_several_samples_are_numbered_and_begin_like_fewer(folder, capsys):
    three = _json(capsys, folder, "--prompt", "a", "--samples", "3", "--max-tokens", "8")
    assert three["samples"][:1] == _json(capsys, folder, "--prompt", "a", "--max-tokens", "8")["samples"]
    assert main([folder, "--prompt", "a", "--samples", "3", "--max-tokens", "8"]) == 0
    out = capsys.readouterr().out
    assert re.findall(r"=== sample (\d) of 3 \((?:length|eos)\)", out) == ["1", "2", "3"]
    assert all(sample["text"] in out for sample in three["samples"])


def test_temperature_zero_is_greedy(folder, capsys):
    flags = [folder, "--prompt", "a", "--max-tokens", "10", "--temperature"]
    zero = _json(capsys, *flags, "0", "--seed", "1")["samples"]
    assert zero == _json(capsys, *flags, "0", "--seed", "2")["samples"]
    assert zero == _json(capsys, *flags, "0.8", "--top-k", "1")["samples"]


def test_stop_texts(folder, capsys):
    flags = [folder, "--prompt", "a", "--max-tokens", "60", "--temperature", "2"]
    text = _json(capsys, *flags)["samples"][0]["text"]
    stop = next(character for character in text[10:] if character.isprintable() and character != "\ufffd")
    found = _json(capsys, *flags, "--stop", stop, "--stop", "never")["samples"][0]
    assert found["finish"] == "stop" and found["text"] == text[: text.index(stop)]


def test_the_prompt_comes_from_stdin(folder, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("从前\r\n".encode())))
    assert _json(capsys, folder, "--prompt", "-", "--max-tokens", "2")["prompt"] == "从前"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"ab\xff")))
    with pytest.raises(UserError, match=r"not UTF-8 \(byte 2\)"):
        main([folder, "--prompt", "-"])


def test_leaving_the_trained_context_is_said(folder, capsys):
    assert main([folder, "--prompt", "a", "--max-tokens", "60", "--seed", "1"]) == 0
    assert "longer than the 32 tokens" in capsys.readouterr().err


def test_near_ties_are_said(folder, capsys, monkeypatch, tmp_path):
    flags = [folder, "--max-tokens", "5", "--temperature", "0", "--device", "cpu"]
    assert main([*flags, "--prompt", "a"]) == 0
    assert "near-tie" not in capsys.readouterr().err
    monkeypatch.setattr("wenlu.inference.choose.NEAR", float("inf"))
    assert main([*flags, "--prompt", "a"]) == 0
    one = re.search(r" s, (\d+) near-ties; ended by", " ".join(capsys.readouterr().err.split()))
    assert int(one[1]) == 5
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n{"prompt": "a"}\n')
    many = _json(capsys, *flags[:-2], "--prompts", str(tmp_path / "p.jsonl"), "--out", str(tmp_path / "o.jsonl"))
    assert many["near_ties"] == 10


def test_an_interrupted_stream_ends_cleanly(folder, capsys, monkeypatch):
    from wenlu.inference import generator

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(generator.Engine, "step", interrupted)
    assert main([folder, "--prompt", "a"]) == 130
    said = capsys.readouterr()
    assert said.out == "\n" and "interrupted" in said.err


def full(*_, **__):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.\nMore lines")


@pytest.mark.parametrize("where", ["wenlu.hub.folder.load", "wenlu.inference.batch.Engine.step"])
def test_a_gpu_out_of_memory_says_what_needs_less(folder, monkeypatch, where):
    monkeypatch.setattr(where, full)
    words = r"run out of memory \(CUDA out of memory\. Tried to allocate 20 GiB\.\): {}--dtype bf16, --quantize int8, a"
    with pytest.raises(UserError, match=words.format("fewer --rows, ")):
        main([folder, "--prompt", "a"])
    with pytest.raises(UserError, match=words.format("")):
        main([folder, "--prompt", "a", "--rows", "1"])


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--temperature", "nan"], "temperature must be 0"),
        (["--samples", "0"], "samples must be at least 1"),
        (["--max-tokens", "0"], "max_tokens must be at least 1"),
    ],
)
def test_flags_are_checked_before_the_model_is_read(flags, message):
    with pytest.raises(UserError, match=message):
        main(["/nowhere", *flags])


def test_int8_weights_are_made_once_and_kept(folder, capsys, tmp_path, kernel_cache):
    run = tmp_path / "run"
    shutil.copytree(folder, run)
    flags = [str(run), "--prompt", "a", "--max-tokens", "9", "--temperature", "0", "--quantize", "int8"]
    first = _json(capsys, *flags)
    assert (run / "wenlu" / "int8.safetensors").exists()
    assert main([*flags, "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["samples"] == first["samples"] and "are kept in" not in said.err
    weights = load_file(run / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, run / "model.safetensors")
    with pytest.raises(UserError, match=r"was made from other weights than .* holds now: remove it, and quantise"):
        main(flags)


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--quantize", "int4"], "quantize must be none or int8, not 'int4'"),
        (["--quantize", "int8", "--dtype", "bf16"], "weights in int8 are not in bf16 too: leave out --dtype or"),
    ],
)
def test_number_formats_that_are_not_there(folder, flags, message):
    with pytest.raises(UserError, match=message):
        main([folder, *flags])


def test_batch_invariant_fixes_the_kernels(folder, draft, capsys, monkeypatch):
    from wenlu.inference import kernels

    held = []
    monkeypatch.setattr(kernels, "gains", lambda model: True)
    monkeypatch.setattr(kernels, "fast", lambda model, measured: held.append(measured) or nullcontext(model))
    flags = [folder, "--prompt", "a", "--max-tokens", "3"]
    assert main([*flags]) == main([*flags, "--batch-invariant", "--draft", draft]) == 0
    assert held == [True, False, False]


@pytest.fixture(scope="module")
def draft(folder, tmp_path_factory):
    """Nearly the same model."""
    path = tmp_path_factory.mktemp("draft") / "run"
    shutil.copytree(folder, path)
    weights = load_file(path / "model.safetensors")
    save_file({name: tensor * 1.001 for name, tensor in weights.items()}, path / "model.safetensors")
    return str(path)


def test_a_draft_changes_no_text_and_its_acceptance_is_told(folder, draft, capsys, tmp_path):
    flags = [folder, "--prompt", "a", "--max-tokens", "30", "--samples", "2"]
    plain, drafted = _json(capsys, *flags), _json(capsys, *flags, "--draft", draft)
    assert [s["text"] for s in plain["samples"]] == [s["text"] for s in drafted["samples"]]
    assert "acceptance" not in plain and "guessed" not in plain["samples"][0]
    taken, guessed = (sum(sample[name] for sample in drafted["samples"]) for name in ("taken", "guessed"))
    assert 0.5 < drafted["acceptance"] == taken / guessed <= 1
    assert main([*flags, "--draft", draft, "--speculate", "2"]) == 0
    assert re.search(r", \d+ of \d+ guessed tokens right \(\d+%\)", " ".join(capsys.readouterr().err.split()))
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    many = [folder, "--prompts", str(tmp_path / "p.jsonl"), "--out", str(tmp_path / "o.jsonl"), "--max-tokens", "20"]
    assert 0.5 < _json(capsys, *many, "--draft", draft)["acceptance"] <= 1


def test_drafts_that_do_not_fit_are_refused(folder, draft, tmp_path):
    other, model = learn("char", ["abc"]), build(ModelConfig("llama", dim=16, heads=2, layers=1, vocab=257), 0)
    save(model, other, tmp_path / "other")
    with pytest.raises(
        UserError, match=r"the draft's tokenizer has \d+ ids, the model's 257: take a draft with the same"
    ):
        main([folder, "--draft", str(tmp_path / "other"), "--device", "cpu"])
    with pytest.raises(UserError, match="3 beams guess nothing: leave out --speculate and --draft"):
        main(["/nowhere", "--beams", "3", "--draft", draft])
