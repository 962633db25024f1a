"""What a folder may not get away with: every tensor and setting that would make another model is refused by name."""

import fnmatch
import json
import shutil
import sys
import types

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from wenlu.base.errors import UserError
from wenlu.hub.configuration import from_json, to_json
from wenlu.hub.folder import load, locate, save
from wenlu.models.config import ModelConfig

LLAMA = LlamaConfig(
    vocab_size=40,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=1,
    num_attention_heads=4,
    max_position_embeddings=32,
    tie_word_embeddings=False,
)
BODY = to_json(ModelConfig(family="llama", dim=32, layers=1, heads=4, ffn=48, context=32, vocab=40, tied=False))
QWEN3 = to_json(ModelConfig(family="qwen3", dim=32, layers=1, heads=4, vocab=40))
Q, K = (f"model.layers.0.self_attn.{x}_proj.weight" for x in "qk")
GATE, UP = (f"model.layers.0.mlp.{x}_proj.weight" for x in ("gate", "up"))


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(LLAMA).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "copy")


def rewritten(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file({name: t.contiguous() for name, t in tensors.items()}, folder / "model.safetensors")


@pytest.mark.parametrize(("first", "second", "rows"), [(Q, K, 32), (GATE, UP, 48)])
def test_stacked_parts_of_wrong_shapes_whose_sum_is_right(folder, first, second, rows):
    def shift(tensors):
        whole = torch.cat((tensors[first], tensors[second]))
        tensors[first], tensors[second] = whole[: rows - 8].clone(), whole[rows - 8 :].clone()

    rewritten(folder, shift)
    with pytest.raises(UserError, match=rf"{first} has shape \[{rows - 8}, 32\].*asks for \[{rows}, 32\]"):
        load(folder)


def test_a_missing_head(folder):
    rewritten(folder, lambda tensors: tensors.pop("lm_head.weight"))
    with pytest.raises(UserError, match=r"the weights lack lm_head\.weight"):
        load(folder)


def test_a_head_that_the_configuration_denies(folder):
    body = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**body, "tie_word_embeddings": True}))
    with pytest.raises(UserError, match=r"lm_head\.weight differs from model\.embed_tokens\.weight.*set tie_word"):
        load(folder)
    rewritten(folder, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    assert load(folder)[0].config.tied


def test_whole_numbers_are_no_weights(folder):
    rewritten(folder, lambda tensors: tensors.update({Q: tensors[Q].to(torch.int8)}))
    with pytest.raises(UserError, match=r"q_proj\.weight is stored as int8, perhaps quantised: take the weights in"):
        load(folder)


def test_spoilt_weights_are_named_as_the_file_names_them(folder):
    rewritten(folder, lambda tensors: tensors[UP].view(-1)[:1].fill_(float("nan")))
    with pytest.raises(UserError, match=r"model\.layers\.0\.mlp\.up_proj\.weight holds NaN or infinity"):
        load(folder)


@pytest.mark.parametrize("text", ["{", "{}", '{"weight_map": 3}', "[]"])
def test_a_damaged_index(folder, text):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(UserError, match=r"index\.json is damaged"):
        load(folder)


def test_an_index_cannot_reach_outside_its_folder(folder):
    (folder / "model.safetensors").rename(folder.parent / "other.safetensors")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../other.safetensors"}}')
    with pytest.raises(UserError, match=r"names other\.safetensors, which is not in"):
        load(folder)


def test_one_whole_file_goes_before_an_index_left_over(folder):
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "gone.safetensors"}}')
    load(folder)


def test_precision(folder):
    assert next(load(folder)[0].parameters()).dtype == torch.float32
    assert next(load(folder, dtype=torch.bfloat16)[0].parameters()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], "c.json must hold a JSON object, not a list"),
        ({**BODY, "hidden_size": "32"}, "c.json: hidden_size must be of type int, not '32'"),
        ({**BODY, "vocab_size": True}, "c.json: vocab_size must be of type int, not True"),
        ({**BODY, "rope_parameters": None, "rope_theta": "1e6"}, "rope_theta must be a finite number, not '1e6'"),
        ({**BODY, "num_hidden_layers": None}, "c.json lacks num_hidden_layers"),
        ({**BODY, "intermediate_size": None}, "c.json lacks intermediate_size"),
        ({**BODY, "quantization_config": {"quant_method": "gptq"}}, "quantization_config is not supported"),
        ({**BODY, "rope_scaling": {"type": "dynamic", "factor": 2.0}}, "scaling of type 'dynamic' is not supported"),
        ({**BODY, "rope_scaling": {"type": "linear"}}, "rope_scaling lacks factor, which 'linear' asks for"),
        (
            {**BODY, "rope_scaling": {"type": "linear", "factor": "2"}},
            "rope_scaling: factor must be a finite number, not",
        ),
        ({**BODY, "rope_parameters": {"rope_type": "yarn", "factor": 2, "delta": 1}}, "delta is not known of rotary"),
        ({**BODY, "rope_parameters": {"rope_type": "linear", "factor": 0.5}}, "model.rope.factor must be at least 1"),
        ({**BODY, "rope_parameters": {"full_attention": {}}}, "rope_parameters of this form is not supported"),
        ({**BODY, "partial_rotary_factor": 0.5}, "partial_rotary_factor is not supported"),
        ({**QWEN3, "layer_types": 1}, "layer_types must be a list, not 1"),
        ({**BODY, "model_type": []}, "model_type .* is not supported"),
        ({**BODY, "rope_scaling": {"type": [], "factor": 2}}, "rotary scaling of type .* is not supported"),
        (
            {**BODY, "rope_scaling": {"type": "linear", "factor": float("nan")}},
            "factor must be a finite number, not nan",
        ),
        ({**QWEN3, "layer_types": ["sliding_attention"]}, "layer_types is not supported in this order .only as use_sl"),
        ({**QWEN3, "layer_types": ["chunked_attention"]}, "layer_types holds 'chunked_attention', which is not supp"),
    ],
)
def test_refused_settings(body, message):
    with pytest.raises(UserError, match=message):
        from_json(body, "c.json")


def test_second_names_of_activations():
    assert from_json({**BODY, "hidden_act": "swish"}, "c.json").activation == "silu"
    gpt2 = {**GPT2Config(vocab_size=40).to_dict(), "activation_function": "gelu_pytorch_tanh"}
    assert from_json(gpt2, "c.json").activation == "gelu_new"


def test_every_end_token_is_kept():
    config = from_json({**BODY, "eos_token_id": [2, 7, 9]}, "config.json")
    assert (config.eos_id, config.other_eos_ids) == (2, (7, 9))
    assert to_json(config)["eos_token_id"] == [2, 7, 9]
    assert from_json(to_json(config), "config.json") == config
    assert to_json(from_json({**BODY, "eos_token_id": [2]}, "config.json"))["eos_token_id"] == 2
    with pytest.raises(UserError, match=r"config\.json: eos_token_id must be of type int, not 'x'"):
        from_json({**BODY, "eos_token_id": [2, "x"]}, "config.json")


@pytest.mark.parametrize(
    ("ends", "wanted"), [(None, (2, ())), (2, (2, ())), ([2, 7], (2, (7,))), (9, (2, (9,))), ([], (2, ()))]
)
def test_end_tokens_that_only_the_generation_config_names(folder, ends, wanted):
    body = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**body, "eos_token_id": 2}))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    model, _ = load(folder)
    assert (model.config.eos_id, model.config.other_eos_ids) == wanted
    save(model, None, folder)
    again = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    assert again == ([2, *wanted[1]] if wanted[1] else 2)


@pytest.mark.parametrize(
    ("text", "message"), [("{", "is damaged"), ("[]", "is damaged"), ('{"eos_token_id": "x"}', "int")]
)
def test_a_broken_generation_config(folder, text, message):
    (folder / "generation_config.json").write_text(text)
    with pytest.raises(UserError, match=f"generation_config.json.*{message}"):
        load(folder)


def test_dropout_that_means_something_else_here_is_said(capsys):
    from_json({**GPT2Config(vocab_size=40).to_dict(), "embd_pdrop": 0.3}, "c.json")
    assert "embd_pdrop 0.3; training would drop out 0.1 (resid_pdrop) everywhere" in said(capsys)
    from_json(GPT2Config(vocab_size=40).to_dict(), "c.json")
    assert said(capsys) == ""


def said(capsys) -> str:
    return " ".join(capsys.readouterr().err.split())


class NotReached(OSError):
    """In place of the hub library's own error."""


def hub(monkeypatch, snapshot_download):
    """A hub library of one function."""
    errors = types.SimpleNamespace(LocalEntryNotFoundError=NotReached)
    library = types.SimpleNamespace(snapshot_download=snapshot_download, errors=errors)
    monkeypatch.setitem(sys.modules, "huggingface_hub", library)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (NotReached("no such host\nCheck"), "the hub cannot be reached, nor was it fetched before (no such host)"),
        (ValueError("Repository Not Found\nfor url"), "the hub gave none of that name: Repository Not Found"),
        (ValueError(), "the hub gave none of that name: ValueError"),
    ],
)
def test_a_hub_that_cannot_be_reached_is_told_from_one_that_has_none_of_the_name(monkeypatch, error, words):
    def snapshot_download(name, allow_patterns):
        raise error

    hub(monkeypatch, snapshot_download)
    with pytest.raises(UserError) as refusal:
        locate("someone/model")
    assert words in str(refusal.value)


def test_templates_in_a_file_of_their_own_are_fetched_too(monkeypatch, tmp_path):
    asked = {}

    def snapshot_download(name, allow_patterns):
        asked[name] = allow_patterns
        return tmp_path

    hub(monkeypatch, snapshot_download)
    assert locate("someone/model") == tmp_path
    assert any(fnmatch.fnmatch("chat_template.jinja", pattern) for pattern in asked["someone/model"])


@pytest.mark.parametrize("name", ["runs/absent", "./absent", "a/b/absent", "/absent"])
def test_what_can_be_no_hub_id_is_refused_without_asking_the_hub(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(UserError, match=f"no model folder at {name}: give the folder of a run, or a hub id"):
        load(name)
    with pytest.raises(UserError, match="no folder org/absent; to fetch a hub id: pip install huggingface_hub"):
        load("org/absent")
