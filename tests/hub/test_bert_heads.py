"""A BERT's folder opened with another head than the saved one, or written by another class: what is new, left out or
refused is said by name."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import BertConfig

from wenlu.base.errors import UserError
from wenlu.hub.configuration import from_json
from wenlu.hub.folder import load, save

SMALL = {
    "vocab_size": 50,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 1,
    "num_attention_heads": 3,
    "max_position_embeddings": 32,
}
IDS = torch.randint(50, (2, 20), generator=torch.Generator().manual_seed(0))
LABELS = {"id2label": {0: "a", 1: "b", 2: "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """One folder for each class."""
    root = tmp_path_factory.mktemp("originals")
    for number, name in enumerate(("MaskedLM", "PreTraining", "SequenceClassification", "TokenClassification")):
        torch.manual_seed(number)
        getattr(transformers, f"BertFor{name}")(BertConfig(**SMALL, **LABELS)).save_pretrained(root / name)
    transformers.BertModel(BertConfig(**SMALL)).save_pretrained(root / "Model")
    return root


@pytest.fixture
def folder(originals, tmp_path, request):
    return shutil.copytree(originals / request.param, tmp_path / "copy")


def of(name):
    return pytest.mark.parametrize("folder", [name], indirect=True)


def rewritten(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file({name: t.contiguous() for name, t in tensors.items()}, folder / "model.safetensors")


def edited(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def said(capsys):
    return " ".join(capsys.readouterr().err.split())


@of("PreTraining")
def test_the_head_for_next_sentences_is_left_out(folder, capsys):
    model, _ = load(folder)
    theirs = transformers.BertForPreTraining.from_pretrained(folder).eval()
    with torch.no_grad():
        assert (model(IDS) - theirs(IDS).prediction_logits).abs().max() < 1e-4
    words = said(capsys)
    assert "the pooler is left out: the head 'tokens' does not look at it" in words
    assert "the head for next sentences is left out" in words


@of("PreTraining")
def test_names_of_the_first_folders(folder):
    expected = load(folder)[0](IDS)

    def as_of_old(tensors):
        for name in [name for name in tensors if "LayerNorm" in name]:
            old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            tensors[old] = tensors.pop(name)
        tensors["bert.embeddings.position_ids"] = torch.arange(32)[None]
        tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"].clone()

    rewritten(folder, as_of_old)
    edited(folder, architectures=["BertForMaskedLM"])
    assert torch.equal(load(folder)[0](IDS), expected)


@of("Model")
def test_an_encoder_with_the_other_prefix(folder):
    expected = load(folder)[0](IDS)
    rewritten(folder, lambda ts: [ts.update({f"bert.{name}": ts.pop(name)}) for name in list(ts)])
    assert torch.equal(load(folder)[0](IDS), expected)


@of("MaskedLM")
def test_a_head_for_labels_on_a_masked_model(folder, tmp_path, capsys):
    model, _ = load(folder, head="classify", labels=("good", "bad"), seed=3)
    again, other = (load(folder, head="classify", labels=("good", "bad"), seed=seed)[0] for seed in (3, 4))
    words = said(capsys)
    assert "the head for tokens is left out: the head 'classify' does not look at it" in words
    assert "new, by the seed 3: label_head.bias, label_head.weight, pooler.bias, pooler.weight" in words
    assert model.config.labels == ("good", "bad") and model(IDS).shape == (2, 2)
    assert torch.equal(model(IDS), again(IDS)) and not torch.equal(model.label_head.weight, other.label_head.weight)
    theirs = transformers.BertForMaskedLM.from_pretrained(folder).eval()
    with torch.no_grad():
        assert (model.hidden(IDS) - theirs.bert(IDS).last_hidden_state).abs().max() < 1e-5
    save(model, None, tmp_path / "ours")
    there = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "ours").eval()
    with torch.no_grad():
        assert (there(IDS).logits - model(IDS)).abs().max() < 1e-5
    assert there.config.id2label == {0: "good", 1: "bad"}


@of("Model")
def test_the_pooler_of_an_encoder_is_kept(folder, capsys):
    model, _ = load(folder, head="classify", labels=("good", "bad"))
    assert torch.equal(model.pooler.weight, load(folder)[0].pooler.weight)
    assert "new, by the seed 0: label_head.bias, label_head.weight" in said(capsys)
    assert load(folder, head="none")[0].config.head == "none"
    assert "the pooler is left out: the head 'none'" in said(capsys)


@of("SequenceClassification")
def test_a_head_is_kept_where_it_is_the_same(folder, capsys):
    before = load(folder)[0]
    for labels in ((), ("a", "b", "c")):
        again = load(folder, head="classify", labels=labels)[0]
        assert again.config == before.config and torch.equal(again(IDS), before(IDS))
    assert not said(capsys)
    others = load(folder, head="classify", labels=("a", "c", "b"))[0]
    assert torch.equal(others.pooler.weight, before.pooler.weight)
    assert not torch.equal(others.label_head.weight, before.label_head.weight)
    words = said(capsys)
    assert "the head for labels is left out" in words and "new, by the seed 0: label_head.bias" in words


@of("TokenClassification")
def test_labels_of_tokens_are_not_those_of_texts(folder, capsys):
    before = load(folder)[0]
    assert before.config.head == "tag" and before.config.labels == ("a", "b", "c")
    model = load(folder, head="classify", labels=("a", "b", "c"))[0]
    assert not torch.equal(model.label_head.weight, before.label_head.weight)
    assert "the head for labels is left out" in said(capsys)
    with pytest.raises(UserError, match="the head 'classify' needs two labels or more"):
        load(folder, head="classify")


@of("MaskedLM")
def test_every_head_can_be_asked_for(folder):
    shapes = {"tokens": (2, 20, 50), "span": (2, 20, 2), "pool": (2, 24), "none": (2, 20, 24)}
    for head, shape in shapes.items():
        assert load(folder, head=head)[0](IDS).shape == shape
    with pytest.raises(UserError, match=r"model\.head must be one of tokens, classify.*not 'regress'"):
        load(folder, head="regress")


@of("MaskedLM")
def test_a_spoilt_encoder_is_refused_with_a_new_head_too(folder):
    rewritten(folder, lambda tensors: tensors.pop("bert.encoder.layer.0.output.dense.weight"))
    with pytest.raises(UserError, match=r"the weights lack bert\.encoder\.layer\.0\.output\.dense\.weight"):
        load(folder, head="span")


@of("SequenceClassification")
def test_a_head_in_part_is_refused(folder):
    rewritten(folder, lambda tensors: tensors.pop("classifier.bias"))
    with pytest.raises(UserError, match=r"the weights lack classifier\.bias"):
        load(folder)


@of("MaskedLM")
def test_what_has_no_place_is_refused(folder):
    rewritten(folder, lambda tensors: tensors.update({"bert.extra": torch.zeros(3)}))
    with pytest.raises(UserError, match=r"the weights hold bert\.extra, which this configuration has no place for"):
        load(folder)
    with pytest.raises(UserError, match=r"the weights hold bert\.extra"):
        load(folder, head="span")


@of("MaskedLM")
def test_twins_that_differ(folder):
    rewritten(folder, lambda tensors: tensors.update({"cls.predictions.decoder.bias": torch.ones(50)}))
    with pytest.raises(UserError, match=r"decoder\.bias differs from cls\.predictions\.bias.*set tie_word_embeddings"):
        load(folder)


@of("Model")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"position_embedding_type": "relative_key"}, "position_embedding_type = 'relative_key' is not supported"),
        ({"is_decoder": True}, "is_decoder = True is not supported"),
        ({"add_cross_attention": True}, "add_cross_attention = True is not supported"),
        ({"chunk_size_feed_forward": 8}, r"chunk_size_feed_forward = 8 is not supported \(only 0\)"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads = {'0': .1.} is not supported"),
        ({"hidden_act": "gelu_fast"}, r"hidden_act = 'gelu_fast' is not supported \(only silu, gelu, gelu_new, relu"),
        ({"hidden_size": 25}, r"model.dim \(25\) must be a multiple of model.heads \(3\)"),
        ({"type_vocab_size": 5}, r"token_type_embeddings.weight has shape \[2, 24\].*asks for \[5, 24\]"),
        ({"architectures": None}, "architectures must name one class, which says what head it has; known: BertForPre"),
        ({"architectures": ["BertLMHeadModel"]}, "BertLMHeadModel in architectures is not supported"),
        ({"architectures": ["BertForMultipleChoice"]}, "BertForMultipleChoice in architectures is not supported"),
        ({"architectures": ["BertForMaskedLM"]}, "the weights lack cls.predictions.transform.dense.weight"),
    ],
)
def test_refused_configurations(folder, changes, message):
    edited(folder, **changes)
    with pytest.raises(UserError, match=message):
        load(folder)


BODY = json.loads(BertConfig(**SMALL).to_json_string(use_diff=False))
BODY["architectures"] = ["BertForSequenceClassification"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"problem_type": "regression"}, "problem_type = 'regression' is not supported"),
        ({"id2label": {"0": "a", "2": "b"}}, "id2label must name the labels 0, 1, 2, …, not {'0': 'a', '2': 'b'}"),
        ({"id2label": ["a", "b"]}, "id2label must name the labels"),
        ({"id2label": {"0": "a"}}, "the head 'classify' needs two labels or more"),
        ({"id2label": {"0": "a", "1": "a"}}, "model.labels holds 'a' twice"),
        (
            {"architectures": ["BertForQuestionAnswering"], "id2label": {"0": "a", "1": "b", "2": "c"}},
            "BertForQuestionAnswering has 2 outputs, and id2label names 3",
        ),
    ],
)
def test_refused_labels(changes, message):
    with pytest.raises(UserError, match=message):
        from_json({**BODY, **changes}, "c.json")


def test_labels_that_nobody_named():
    body = {name: value for name, value in BODY.items() if name not in ("id2label", "label2id")}
    assert from_json(body, "c.json").labels == ("LABEL_0", "LABEL_1")
    assert from_json({**body, "num_labels": 3}, "c.json").labels == ("LABEL_0", "LABEL_1", "LABEL_2")


def test_dropout_that_is_not_told_apart_is_said(capsys):
    from_json({**BODY, "attention_probs_dropout_prob": 0.3}, "c.json")
    assert "attention_probs_dropout_prob is 0.3; training would drop out 0.1" in said(capsys)


def test_other_families_have_no_such_heads(tmp_path):
    config = transformers.GPT2Config(vocab_size=40, n_embd=24, n_layer=1, n_head=3, n_positions=16)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"is of the family gpt2, whose only head is for tokens: .*'span' needs a bert"):
        load(tmp_path, head="span")
    assert load(tmp_path, head="tokens")[0].config.family == "gpt2"


CHILD = """
import torch
from wenlu.hub.folder import load
model, _ = load("someone/tiny-bert", head="classify", labels=("a", "b"))
print(model.config.head, model.config.dim)
"""


def test_a_hub_id_in_the_cache_opens_without_a_network(originals, tmp_path):
    """As huggingface_hub keeps it: blobs by their hashes, a snapshot of links to them, a reference by name."""
    place = tmp_path / "hub" / "models--someone--tiny-bert"
    snapshot = place / "snapshots" / ("a" * 40)
    for part in (place / "blobs", place / "refs", snapshot):
        part.mkdir(parents=True)
    (place / "refs" / "main").write_text("a" * 40)
    for number, name in enumerate(("config.json", "model.safetensors")):
        shutil.copy(originals / "MaskedLM" / name, place / "blobs" / f"{number:040}")
        (snapshot / name).symlink_to(f"../../blobs/{number:040}")
    offline = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    offline.pop("HF_HUB_CACHE", None)
    answer = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, env=offline)
    assert answer.stdout == "classify 24\n", answer.stderr
    assert load(snapshot)[0].config.head == "tokens"
