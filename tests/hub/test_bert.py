"""BERT's folders both ways: logits and every layer's states, against tiny random models of Transformers."""

import dataclasses
import json

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers import BertConfig

from wenlu.hub.configuration import from_json, to_json
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


@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.parametrize("tied", [True, False])
def test_save_and_load_is_the_identity(tmp_path, name, tied):
    theirs = BertConfig(**THEIRS[name][1], architectures=[THEIRS[name][0]])
    config = from_json(json.loads(theirs.to_json_string(use_diff=False)), "config.json")
    config = dataclasses.replace(config, tied=tied, pad_id=0)
    model = build(config, 3)
    save(model, None, tmp_path)
    loaded, _ = load(tmp_path)
    assert loaded.config == model.config and from_json(to_json(config), "config.json").resolved() == config.resolved()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))
    assert not (tmp_path / "generation_config.json").exists()


def test_sharded_weights_are_read(tmp_path):
    original = random_model("classify")
    original.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2 and (tmp_path / "model.safetensors.index.json").exists()
    assert difference(our_outputs(load(tmp_path)[0]), their_outputs(original)) < 1e-4


def test_without_a_pooler(tmp_path):
    original = transformers.BertModel(BertConfig(**SMALL), add_pooling_layer=False).eval()
    original.save_pretrained(tmp_path / "theirs")
    model, _ = load(tmp_path / "theirs")
    assert model.config.head == "none"
    with torch.no_grad():
        states = original(IDS, attention_mask=MASK, token_type_ids=TYPES).last_hidden_state
        assert difference(our_outputs(model)[:1] * 4, [states] * 4) < 1e-4
    save(model, None, tmp_path / "ours")
    again, info = transformers.BertModel.from_pretrained(
        tmp_path / "ours", add_pooling_layer=False, output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert load(tmp_path / "ours")[0].config == model.config
    before, after = original.state_dict(), again.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_bf16_is_near(tmp_path):
    original = random_model("tokens")
    original.save_pretrained(tmp_path)
    model, _ = load(tmp_path, dtype=torch.bfloat16)
    scale = float(their_outputs(original)[0].abs().max())
    ours = [states.float() for states in our_outputs(model)]
    assert difference(ours, their_outputs(original)) < 0.02 * scale


@pytest.mark.parametrize("kind", ["bpe", "char"])
def test_with_a_tokenizer_learned_here(tmp_path, kind):
    """What Transformers puts around a text is what our models were trained with."""
    text = "The stove glows. 文火慢炖。"
    tokenizer = learn(kind, [text * 20], {"bpe": 300}.get(kind), "bert")
    shape = ModelConfig("bert", dim=24, layers=1, heads=3, context=64, vocab=tokenizer.vocab, pad_id=tokenizer.pad_id)
    model = build(shape, 0).eval()
    save(model, tokenizer, tmp_path)
    reader = transformers.AutoTokenizer.from_pretrained(tmp_path)
    there = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    ids = torch.tensor([[tokenizer.cls_id, *tokenizer.encode(text), tokenizer.sep_id]])
    given = reader(text, return_tensors="pt")
    assert torch.equal(given.input_ids, ids) and reader.mask_token_id == tokenizer.mask_id
    with torch.no_grad():
        assert (there(**given).logits - model(ids)).abs().max() < 1e-5
