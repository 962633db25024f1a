"""Transformers' folders both ways, against tiny random models of Transformers itself."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from wenlu.base.errors import UserError
from wenlu.hub.folder import load, save
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.tokenization.learn import learn

SMALL = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GPT2 = {"vocab_size": 97, "n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 64}
ROPES = [
    {"rope_type": "linear", "factor": 2.0, "rope_theta": 5000.0},
    {
        **{"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 32, "rope_theta": 500.0},
        **{"low_freq_factor": 1.0, "high_freq_factor": 4.0},
    },
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 10000.0},
    {
        **{"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 1000.0},
        **{"beta_fast": 4.0, "beta_slow": 0.5, "mscale": 0.7, "mscale_all_dim": 0.4, "truncate": False},
    },
]
THEIRS = {
    "gpt2": GPT2Config(**GPT2),
    "gpt2-untied": GPT2Config(**GPT2, tie_word_embeddings=False, n_inner=100, activation_function="gelu"),
    "llama": LlamaConfig(**SMALL, tie_word_embeddings=True),
    "llama-gqa-untied": LlamaConfig(**SMALL, num_key_value_heads=2, tie_word_embeddings=False),
    "llama-biases": LlamaConfig(**SMALL, attention_bias=True, mlp_bias=True),
    "qwen3": Qwen3Config(**SMALL, head_dim=12, num_key_value_heads=4, tie_word_embeddings=True),
    "qwen3-odd-heads": Qwen3Config(**SMALL, head_dim=10, num_key_value_heads=1, attention_bias=True),
    "qwen3-window": Qwen3Config(
        **SMALL, head_dim=12, num_key_value_heads=2, sliding_window=6, use_sliding_window=True, max_window_layers=1
    ),
    "qwen2": Qwen2Config(**SMALL, num_key_value_heads=2),
    "qwen2-tied-window": Qwen2Config(
        **{**SMALL, "num_key_value_heads": 4},
        tie_word_embeddings=True,
        use_sliding_window=True,
        sliding_window=9,
        max_window_layers=1,
    ),
    "mistral": MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=7),
    "mistral-no-window": MistralConfig(
        **SMALL, head_dim=10, num_key_value_heads=4, sliding_window=None, tie_word_embeddings=True
    ),
    **{
        f"llama-{rope['rope_type']}{n}": LlamaConfig(**SMALL, rope_parameters=dict(rope))
        for n, rope in enumerate(ROPES)
    },
}
IDS = torch.randint(97, (2, 40), generator=torch.Generator().manual_seed(0))


def theirs(config, folder):
    """A model of Transformers with random weights, saved."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    with torch.no_grad():
        return model(IDS, output_hidden_states=True)


def our_states(model):
    """What enters every block, and what leaves the last norm."""
    seen = []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        seen.append(model.hidden(IDS))
    return seen


@pytest.mark.parametrize("name", THEIRS)
def test_both_directions(tmp_path, name):
    wanted = theirs(THEIRS[name], tmp_path / "theirs")
    logits = wanted.logits
    model, tokenizer = load(tmp_path / "theirs")
    assert tokenizer is None
    with torch.no_grad():
        ours = model(IDS)
    assert (ours - logits).abs().max() < 1e-4
    states = our_states(model)
    assert len(states) == len(wanted.hidden_states)
    assert all((a - b).abs().max() < 1e-4 for a, b in zip(states, wanted.hidden_states, strict=True))
    save(model, None, tmp_path / "ours")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    with torch.no_grad():
        assert (again(IDS).logits - logits).abs().max() < 1e-4
    before, after = (load_file(tmp_path / x / "model.safetensors") for x in ("theirs", "ours"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("family", ["lstm", "gpt2", "llama", "mistral", "qwen2", "qwen3", "t5"])
@pytest.mark.parametrize("tied", [True, False])
def test_save_and_load_is_the_identity(tmp_path, family, tied):
    tokenizer = learn("char", ["the cat sat on the mat. 猫坐在垫子上。"])
    config = ModelConfig(
        family=family, dim=32, layers=2, heads=4, context=16, vocab=tokenizer.vocab, tied=tied, eos_id=0
    )
    model = build(config, 3)
    save(model, tokenizer, tmp_path)
    loaded, same = load(tmp_path)
    assert loaded.config == model.config and same.fingerprint == tokenizer.fingerprint
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))


def test_the_lstm_says_what_it_is_to_whoever_opens_it_elsewhere(tmp_path):
    save(build(ModelConfig(family="lstm", dim=8, layers=1, vocab=10), 0), None, tmp_path)
    assert "open it with wenlu" in json.loads((tmp_path / "config.json").read_text())["about"]
    with pytest.raises(ValueError, match="wenlu_lstm"):
        AutoConfig.from_pretrained(tmp_path)


@pytest.mark.data
def test_the_published_text_of_a_real_model(data_dir):
    model, tokenizer = load(data_dir / "stories260K")
    expected = (data_dir / "stories260K" / "greedy.txt").read_text().rstrip("\n")
    cache, ids, written = model.new_cache(1), torch.tensor([[tokenizer.bos_id]]), []
    with torch.no_grad():
        while len(tokenizer.decode(written)) < len(expected):
            ids = model(ids, cache=cache)[:, -1:].argmax(-1)
            written.append(int(ids))
    assert tokenizer.decode(written)[: len(expected)] == expected


def test_sharded_weights_are_read(tmp_path):
    logits = theirs(THEIRS["qwen3"], tmp_path).logits
    tensors = load_file(tmp_path / "model.safetensors")
    names = sorted(tensors)
    files = {"model-00001-of-00002.safetensors": names[:9], "model-00002-of-00002.safetensors": names[9:]}
    for file, members in files.items():
        save_file({name: tensors[name] for name in members}, tmp_path / file)
    index = {"weight_map": {name: file for file, members in files.items() for name in members}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "model.safetensors").unlink()
    with torch.no_grad():
        assert (load(tmp_path)[0](IDS) - logits).abs().max() < 1e-4
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"names model-00002-of-00002.safetensors, which is not in"):
        load(tmp_path)


def test_configurations_of_transformers_4_are_read(tmp_path):
    logits = theirs(THEIRS["llama-gqa-untied"], tmp_path).logits
    path = tmp_path / "config.json"
    body = json.loads(path.read_text())
    body["rope_theta"] = body.pop("rope_parameters")["rope_theta"]
    body["torch_dtype"] = body.pop("dtype")
    body["rope_scaling"] = None
    path.write_text(json.dumps(body))
    with torch.no_grad():
        assert (load(tmp_path)[0](IDS) - logits).abs().max() < 1e-4


def edited(folder, **changes):
    """The folder with keys of its config.json changed."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    theirs(THEIRS["llama"], folder)
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mamba"}, "model_type 'mamba' is not supported.* Supported: gpt2, llama, mistral"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "rotary scaling of type 'longrope' is not supported"),
        ({"pretraining_tp": 2}, "pretraining_tp = 2 is not supported"),
        ({"hidden_size": 64, "head_dim": 16}, "has shape .*, and the configuration asks for"),
        ({"num_hidden_layers": 3}, r"the weights lack model.layers.2.self_attn.q_proj.weight"),
        ({"num_hidden_layers": 1}, "the weights hold model.layers.1.* which this configuration has no place for"),
    ],
)
def test_refused_configurations(tmp_path, llama, changes, message):
    folder = tmp_path / "copy"
    shutil.copytree(llama, folder)
    edited(folder, **changes)
    with pytest.raises(UserError, match=message):
        load(folder)


def test_refused_weights(tmp_path, llama):
    folder = tmp_path / "copy"
    shutil.copytree(llama, folder)
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    spoilt = {**tensors, "model.norm.weight": torch.full((48,), float("nan"))}
    save_file(spoilt, weights)
    with pytest.raises(UserError, match=r"norm\.weight holds NaN or infinity"):
        load(folder)
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model.safetensors is damaged"):
        load(folder)
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"as a pickle .* convert it with Transformers' save_pretrained"):
        load(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match=r"holds no model\.safetensors"):
        load(folder)


def test_refused_references(tmp_path):
    with pytest.raises(UserError, match="no model folder at"):
        load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"holds no config.json: it is not a model's folder"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config.json is damaged"):
        load(tmp_path)
