"""int8 weights beside their source: what is loaded is what was saved, and those of another source are refused."""

import json
import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from wenlu.base.errors import UserError
from wenlu.base.files import sha256_file
from wenlu.compress.quantize import quantize
from wenlu.hub.folder import load, save
from wenlu.hub.quantized import FILE, load_int8, save_int8
from wenlu.models.build import build
from wenlu.models.config import ModelConfig

SMALL = {"dim": 24, "layers": 2, "heads": 2, "context": 32, "vocab": 70}
SHAPES = [
    ModelConfig(family="lstm", **{**SMALL, "heads": 1}, tied=False),
    ModelConfig(family="gpt2", **SMALL),
    ModelConfig(family="qwen3", **SMALL),
    ModelConfig(family="bert", **SMALL, head="tag", labels=("O", "B")),
    ModelConfig(family="t5", **SMALL, pad_id=0),
]


@pytest.fixture
def folder(tmp_path, shaken):
    """A folder with a model and its int8 weights."""
    save(shaken(build(SHAPES[2], seed=1)), None, tmp_path)
    save_int8(quantize(load(tmp_path)[0]), tmp_path)
    return tmp_path


@pytest.mark.parametrize("config", SHAPES, ids=lambda config: config.family)
def test_what_is_loaded_is_what_was_saved(config, tmp_path, shaken):
    save(shaken(build(config, seed=1)), None, tmp_path)
    model = quantize(load(tmp_path)[0])
    assert save_int8(model, tmp_path) == tmp_path / FILE
    again, tokenizer = load_int8(tmp_path)
    assert tokenizer is None and not again.training and again.config == model.config
    assert all(torch.equal(t, again.state_dict()[name]) for name, t in model.state_dict().items())
    ids = torch.randint(1, 70, (2, 9), generator=torch.Generator().manual_seed(3))
    given = (ids, ids) if config.family == "t5" else (ids,)
    with torch.inference_mode():
        assert torch.equal(model(*given), again(*given))


@pytest.mark.parametrize("mask", [0o022, 0o027])
def test_whoever_may_read_other_files_may_read_weights(mask, tmp_path, shaken):
    before = os.umask(mask)
    try:
        save(shaken(build(SHAPES[2], seed=1)), None, tmp_path)
        save_int8(quantize(load(tmp_path)[0]), tmp_path)
    finally:
        os.umask(before)
    found = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.rglob("*") if file.is_file()}
    assert found.keys() >= {"model.safetensors", "int8.safetensors", "config.json"}
    assert set(found.values()) == {0o666 & ~mask}, found


def test_the_file_names_its_source(folder):
    with safe_open(folder / FILE, "pt") as opened:
        assert opened.metadata()["source_sha256"] == sha256_file(folder / "model.safetensors")
    assert (folder / FILE).stat().st_size < 0.5 * (folder / "model.safetensors").stat().st_size


def test_other_weights_are_refused(folder, shaken):
    save(build(SHAPES[2], seed=2), None, folder)
    with pytest.raises(UserError, match=r"made from other weights than .* holds now: remove it, and quantise .* anew"):
        load_int8(folder)


@pytest.mark.parametrize("changes", [{"eos_token_id": 5}, {"rope_theta": 5e5}, {"max_position_embeddings": 64}])
def test_another_configuration_is_refused(folder, changes):
    """Its ends and positions would be those of before."""
    file = folder / "config.json"
    body = json.loads(file.read_text())
    more = {"rope_parameters": {"rope_type": "default", **changes}} if "rope_theta" in changes else {}
    file.write_text(json.dumps(body | changes | more))
    with pytest.raises(UserError, match=r"made with another configuration than .* holds now: remove it, and quantise"):
        load_int8(folder)
    file.write_text(json.dumps(body))
    load_int8(folder)


def test_weights_in_several_files(folder):
    whole = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(whole)
    parts = {"model-1.safetensors": names[:5], "model-2.safetensors": names[5:]}
    for file, held in parts.items():
        save_file({name: whole[name] for name in held}, folder / file, {"format": "pt"})
    index = {name: file for file, held in parts.items() for name in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    with pytest.raises(UserError, match="made from other weights"):
        load_int8(folder)
    save_int8(quantize(load(folder)[0]), folder)
    load_int8(folder)
    save_file({name: whole[name] + 1 for name in parts["model-2.safetensors"]}, folder / "model-2.safetensors")
    with pytest.raises(UserError, match="made from other weights"):
        load_int8(folder)


def test_none_yet(folder):
    (folder / FILE).unlink()
    with pytest.raises(UserError, match=r"no int8 weights yet \(.*int8\.safetensors\): quantise its model first"):
        load_int8(folder)


def test_damage_is_refused(folder):
    whole = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"is damaged .*: remove it, and quantise the model anew"):
        load_int8(folder)
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors, folder / FILE)
    with pytest.raises(UserError, match="does not say what model it holds"):
        load_int8(folder)


def test_tensors_of_another_model_are_refused(folder):
    with safe_open(folder / FILE, "pt") as opened:
        about = opened.metadata()
    tensors = load_file(folder / FILE)
    tensors["embed.scale"] = tensors["embed.scale"][:-1].clone()
    save_file(tensors, folder / FILE, about)
    with pytest.raises(UserError, match="does not hold the model that it names"):
        load_int8(folder)
