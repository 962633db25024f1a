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
    wanted = reference.generate(IDS[:1], do_sample=False, num_beams=1, max_new_tokens=30)[0, 1:].tolist()
    found = list(generate(model, IDS[0].tolist(), Greedy(), 30, stop_ids=[model.config.eos_id]))
    assert found == [token for token in wanted if token != 1] and len(found) > 5
