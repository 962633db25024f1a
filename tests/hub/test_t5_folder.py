"""T5's folders both ways, against tiny random models of Transformers itself."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import T5Config, T5ForConditionalGeneration

from wenlu.base.errors import UserError
from wenlu.hub.configuration import from_json, to_json
from wenlu.hub.folder import load, save
from wenlu.inference.generate import generate
from wenlu.inference.sample import Greedy
from wenlu.models.build import build
from wenlu.models.config import ModelConfig

SMALL = {"vocab_size": 91, "d_model": 32, "d_kv": 8, "d_ff": 40, "num_layers": 2, "num_heads": 4}
SMALL |= {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 12, "decoder_start_token_id": 0}
THEIRS = {
    "1.0": T5Config(**SMALL),
    "1.0-odd-heads": T5Config(**{**SMALL, "d_kv": 5, "num_heads": 3}, num_decoder_layers=3),
    "1.1-one-matrix": T5Config(**SMALL, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "1.1": T5Config(**SMALL, feed_forward_proj="gated-gelu", tie_word_embeddings=False, num_decoder_layers=1),
    "gated-tied": T5Config(**SMALL, feed_forward_proj="gated-silu"),
}
IDS, DECODER_IDS = (torch.randint(91, (2, n), generator=torch.Generator().manual_seed(n)) for n in (30, 24))


def theirs(name, folder):
    """A model of Transformers with random weights, saved; of 1.1, head and embedding are two matrices."""
    torch.manual_seed(1)
    model = T5ForConditionalGeneration(THEIRS[name]).eval()
    with torch.no_grad():
        if name == "1.1":
            model.lm_head.weight = torch.nn.Parameter(torch.randn(91, 32))
            model.all_tied_weights_keys.pop("lm_head.weight")
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model


def their_states(model):
    with torch.no_grad():
        out = model(input_ids=IDS, decoder_input_ids=DECODER_IDS, output_hidden_states=True)
    return out.logits, out.encoder_hidden_states, out.decoder_hidden_states


def our_states(model):
    """Logits, and what enters every block of encoder and decoder, and their norms' results."""
    seen = {"encoder": [], "decoder": []}
    hooks = []
    for name, found in seen.items():
        stack = getattr(model, name)
        for block in stack.blocks:
            hooks.append(block.register_forward_pre_hook(lambda _, given, found=found: found.append(given[0])))
        hooks.append(stack.norm.register_forward_hook(lambda *given, found=found: found.append(given[2])))
    with torch.no_grad():
        logits = model(IDS, DECODER_IDS)
    for hook in hooks:
        hook.remove()
    return logits, seen["encoder"], seen["decoder"]


@pytest.mark.parametrize("name", THEIRS)
def test_both_directions(tmp_path, name):
    reference = theirs(name, tmp_path / "theirs")
    wanted = their_states(reference)
    model, _ = load(tmp_path / "theirs")
    found = our_states(model)
    assert (found[0] - wanted[0]).abs().max() < 1e-4
    for ours, of_theirs in zip(found[1:], wanted[1:], strict=True):
        assert len(ours) == len(of_theirs)
        assert all((a - b).abs().max() < 1e-4 for a, b in zip(ours, of_theirs, strict=True))
    save(model, None, tmp_path / "ours")
    again = T5ForConditionalGeneration.from_pretrained(tmp_path / "ours").eval()
    assert (their_states(again)[0] - wanted[0]).abs().max() < 1e-4
    before, after = (load_file(tmp_path / x / "model.safetensors") for x in ("theirs", "ours"))
    if name == "1.1-one-matrix":  # Transformers 4 knows no scaling apart from tying, so the head is written out
        before["lm_head.weight"] = before["shared.weight"]
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert load(tmp_path / "ours")[0].config == model.config


@pytest.mark.parametrize("name", ["1.0-odd-heads", "1.1"])
def test_greedy_is_theirs(tmp_path, name):
    reference = theirs(name, tmp_path)
    model, _ = load(tmp_path)
    settings = {"do_sample": False, "num_beams": 1, "max_new_tokens": 30}
    # Its cache has room for as many layers as the encoder has.
    cached = reference.config.num_decoder_layers <= reference.config.num_layers
    wanted = reference.generate(IDS[:1], **settings, use_cache=cached)[0, 1:].tolist()
    found = list(generate(model, IDS[0].tolist(), Greedy(), 30, stop_ids=[model.config.eos_id]))
    assert found == [token for token in wanted if token != 1] and len(found) > 5


@pytest.fixture
def folder(tmp_path):
    theirs("1.0", tmp_path)
    return tmp_path


def rewritten(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file({name: t.clone().contiguous() for name, t in tensors.items()}, folder / "model.safetensors")


STACKS = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")


def test_other_names_of_the_embedding(folder):
    before = load(folder)[0](IDS, DECODER_IDS)
    rewritten(folder, lambda t: t.update({name: t["shared.weight"] for name in (*STACKS, "lm_head.weight")}))
    assert torch.equal(load(folder)[0](IDS, DECODER_IDS), before)
    rewritten(folder, lambda t: (t.pop("shared.weight"), t.pop("lm_head.weight")))
    assert torch.equal(load(folder)[0](IDS, DECODER_IDS), before)
    rewritten(folder, lambda t: t.update({STACKS[1]: t[STACKS[1]] + 1}))
    with pytest.raises(
        UserError, match=r"decoder\.embed_tokens\.weight differs from shared\.weight: a t5 with two emb"
    ):
        load(folder)


def test_a_table_that_old_folders_carry_is_passed_over(folder):
    name = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    rewritten(folder, lambda t: t.update({name: torch.zeros(8, 4)}))
    load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("decoder.block.1.layer.1.EncDecAttention.k.weight"), r"lack decoder\.block\.1.*EncDec.*k\.w"),
        (lambda t: t.update({"lm_head.weight": t["shared.weight"] + 1}), r"lm_head\.weight differs from shared\.weigh"),
        (lambda t: t.update({"qa_outputs.weight": torch.ones(2)}), r"hold qa_outputs\.weight, which this configuratio"),
        (
            lambda t: t.update({"encoder.block.0.layer.1.DenseReluDense.wi.weight": torch.ones(41, 32)}),
            r"DenseReluDense\.wi\.weight has shape \[41, 32\], and the configuration asks for \[40, 32\]",
        ),
    ],
)
def test_refused_weights(folder, change, message):
    rewritten(folder, change)
    with pytest.raises(UserError, match=message):
        load(folder)


def test_a_head_of_its_own_that_is_missing(folder):
    path = folder / "config.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "tie_word_embeddings": False, "scale_decoder_outputs": False})
    )
    assert not load(folder)[0].config.tied  # Transformers 5 has written that the two are one matrix
    path.write_text(json.dumps({**json.loads(path.read_text()), "scale_decoder_outputs": None}))
    with pytest.raises(UserError, match=r"the weights lack lm_head\.weight"):
        load(folder)


BODY = to_json(ModelConfig(family="t5", dim=32, heads=4, layers=2, vocab=91, pad_id=0, eos_id=1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"feed_forward_proj": "gated-swiglu"},
            "feed_forward_proj = 'gated-swiglu' is not supported .only relu, gated",
        ),
        ({"feed_forward_proj": "wide-relu"}, "feed_forward_proj = 'wide-relu' is not supported"),
        ({"decoder_start_token_id": 5}, "decoder_start_token_id = 5 is not supported .only pad_token_id, 0"),
        (
            {"tie_word_embeddings": False, "scale_decoder_outputs": True},
            "scale_decoder_outputs = True is not supported",
        ),
        ({"is_decoder": True}, "is_decoder = True is not supported"),
        ({"is_encoder_decoder": False}, "is_encoder_decoder = False is not supported"),
        ({"d_model": None}, "c.json lacks d_model"),
        ({"d_ff": None}, "c.json lacks d_ff"),
        ({"model_type": "umt5"}, "model_type 'umt5' is not supported.*Supported: .*t5"),
    ],
)
def test_refused_settings(changes, message):
    with pytest.raises(UserError, match=message):
        from_json({**BODY, **changes}, "c.json")


def test_what_old_configurations_leave_out():
    """t5-small's file has no num_decoder_layers, and a few keys of its time."""
    old = {"model_type": "t5", "vocab_size": 91, "d_model": 32, "d_kv": 8, "d_ff": 40, "num_layers": 2, "num_heads": 4}
    old |= {"n_positions": 512, "initializer_factor": 1.0, "task_specific_params": {}, "decoder_start_token_id": 0}
    config = from_json(old, "c.json").resolved()
    assert (config.decoder_layers, config.tied, config.gated, config.activation) == (2, True, False, "relu")
    assert (config.context, config.pad_id, config.eos_id, config.dropout, config.norm_eps) == (512, 0, 1, 0.1, 1e-6)
    assert from_json({**old, "feed_forward_proj": "gated-gelu"}, "c.json").activation == "gelu_new"


def test_both_files_say_what_the_decoder_begins_with(tmp_path):
    save(build(ModelConfig(family="t5", dim=16, heads=2, layers=1, vocab=30, pad_id=3, eos_id=1), 0), None, tmp_path)
    said = json.loads((tmp_path / "generation_config.json").read_text())
    assert said == {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 3, "decoder_start_token_id": 3}
    model = T5ForConditionalGeneration.from_pretrained(tmp_path)
    assert model.generation_config.decoder_start_token_id == 3
