"""BERT's folders both ways: logits and every layer's states, against tiny random models of Transformers."""

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers import BertConfig

from wenlu.hub.folder import load, save

SMALL = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "layer_norm_eps": 1e-6,
}
ODD = {**SMALL, "hidden_size": 45, "num_attention_heads": 3, "hidden_act": "gelu_new", "type_vocab_size": 3}
LABELS = {"id2label": {0: "好", 1: "bad", 2: "so so"}, "label2id": {"好": 0, "bad": 1, "so so": 2}}
THEIRS = {
    "tokens": ("BertForMaskedLM", SMALL),
    "tokens-odd-heads": ("BertForMaskedLM", ODD),
    "tokens-untied": ("BertForMaskedLM", {**SMALL, "tie_word_embeddings": False, "hidden_act": "relu"}),
    "classify": ("BertForSequenceClassification", {**SMALL, **LABELS}),
    "classify-odd-heads": ("BertForSequenceClassification", ODD),
    "tag": ("BertForTokenClassification", {**ODD, **LABELS}),
    "span": ("BertForQuestionAnswering", SMALL),
    "pool": ("BertModel", SMALL),
}
GENERATOR = torch.Generator().manual_seed(0)
IDS, TYPES = torch.randint(97, (2, 40), generator=GENERATOR), torch.randint(2, (2, 40), generator=GENERATOR)
LENGTHS = torch.tensor([40, 23])
MASK = (torch.arange(40) < LENGTHS[:, None]).long()
SEGMENTS = MASK - 1


def random_model(name):
    """A model of Transformers with random weights."""
    kind, settings = THEIRS[name]
    torch.manual_seed(1)
    model = getattr(transformers, kind)(BertConfig(**settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def their_outputs(model):
    """Logits (of a BertModel, what its pooler gives) and every layer's states, where there is a token."""
    given = {"input_ids": IDS, "attention_mask": MASK, "token_type_ids": TYPES}
    with torch.no_grad():
        out = model(**given, output_hidden_states=True)
    if "start_logits" in out:
        logits = torch.stack((out.start_logits, out.end_logits), -1)
    else:
        logits = out.pooler_output if "pooler_output" in out else out.logits
    return [logits, *out.hidden_states]


def our_outputs(model):
    states = []
    hooks = [m.register_forward_hook(lambda *given: states.append(given[2])) for m in (model.embed_norm, *model.blocks)]
    with torch.no_grad():
        logits = model(IDS, segments=SEGMENTS, types=TYPES)
    for hook in hooks:
        hook.remove()
    return [logits, *states]


def difference(ours, theirs):
    """The largest, padding left out."""
    assert len(ours) == len(theirs) == 4
    real = [(a, b) if a.ndim == 2 else (a[MASK.bool()], b[MASK.bool()]) for a, b in zip(ours, theirs, strict=True)]
    assert all(a.shape == b.shape for a, b in real)
    return max(float((a - b).abs().max()) for a, b in real)


@pytest.mark.parametrize("name", THEIRS)
def test_both_directions(tmp_path, name):
    original = random_model(name)
    original.save_pretrained(tmp_path / "theirs")
    expected = their_outputs(original)
    model, tokenizer = load(tmp_path / "theirs")
    assert tokenizer is None and model.config.head == name.split("-")[0]
    assert difference(our_outputs(model), expected) < 1e-4
    save(model, None, tmp_path / "ours")
    again, info = type(original).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert difference(our_outputs(model), their_outputs(again.eval())) < 1e-4
    assert again.config.id2label == original.config.id2label and again.config.label2id == original.config.label2id
    before, after = (load_file(tmp_path / x / "model.safetensors") for x in ("theirs", "ours"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) or key == "cls.predictions.bias" for key in before)
