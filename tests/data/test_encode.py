"""Text → shards by tokenizers that were not made here."""

import json

import pytest
import tokenizers
from tokenizers import decoders, normalizers, pre_tokenizers

from wenlu.base.errors import UserError
from wenlu.data.prepare import PrepareConfig, prepare
from wenlu.data.shards import open_data
from wenlu.tokenization.learn import learn
from wenlu.tokenization.special import END_OF_TEXT
from wenlu.tokenization.tokenizer import Tokenizer

TEXTS = [f"House {n} is Warm; 炉火 {n * n % 97}." for n in range(40)]


def foreign(folder, change, **roles) -> str:
    """A byte tokenizer, changed, saved in a folder."""
    learn("byte", []).save(folder)
    inner = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    change(inner)
    Tokenizer(inner, eos=END_OF_TEXT, pad=END_OF_TEXT, **roles).save(folder)
    return str(folder)


def prepared(tmp_path, tokenizer: str, texts=tuple(TEXTS), **config):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    settings = {"skip": ("all",), "validation": 0.0, **config}
    description = prepare(
        PrepareConfig((str(tmp_path / "rows.jsonl"),), tokenizer=tokenizer, **settings), tmp_path / "d"
    )
    return description, open_data(tmp_path / "d")


def test_documents_begin_with_the_token_that_begins_prompts(tmp_path):
    """Or every prompt and every score would begin with a token that was never trained."""
    name = foreign(tmp_path / "t", lambda inner: inner.add_special_tokens(["<s>"]), bos="<s>")
    _, data = prepared(tmp_path, name)
    begin = data.tokenizer.bos_id
    assert begin != data.tokenizer.eos_id
    ids = data.train.tokens(0, len(data.train)).tolist()
    assert ids.count(begin) == ids.count(data.tokenizer.eos_id) == len(TEXTS)
    assert ids[0] == begin and all(ids[i + 1] == begin for i, id in enumerate(ids[:-1]) if id == data.tokenizer.eos_id)
    assert data.train.lengths.sum() == len(ids) and data.train.documents(data.tokenizer) == TEXTS


def test_ours_part_documents_by_one_token(tmp_path):
    _, data = prepared(tmp_path, "byte")
    assert data.train.tokens(0, 1)[0] != data.tokenizer.eos_id


def test_a_tokenizer_that_loses_text_is_counted(tmp_path, capsys):
    def lower(inner):
        inner.normalizer = normalizers.Lowercase()

    description, _ = prepared(tmp_path, foreign(tmp_path / "t", lower, bos=END_OF_TEXT))
    assert description["lossy"] == len(TEXTS)
    said = " ".join(capsys.readouterr().err.split())
    assert "40 documents that the tokenizer does not give back exactly" in said


def test_ours_lose_nothing(tmp_path):
    description, _ = prepared(tmp_path, "char")
    assert description["lossy"] == 0


@pytest.mark.parametrize("validation", [0.0, 0.2])
def test_a_tokenizer_of_unknown_form_reads_documents_whole(tmp_path, validation, monkeypatch):
    """This one puts a space before every text it is given: once a document, not once a piece."""
    monkeypatch.setattr("wenlu.data.reading.pieces.CHUNK", 64)

    def spaced(inner):
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)
        inner.decoder = decoders.ByteLevel()

    name = foreign(tmp_path / "t", spaced, bos=END_OF_TEXT)
    (tmp_path / "long.txt").write_text("\n\n".join(TEXTS), encoding="utf-8")
    config = PrepareConfig(
        (str(tmp_path / "long.txt"),), tokenizer=name, skip=("all",), validation=validation, context=4
    )
    prepare(config, tmp_path / "d")
    data = open_data(tmp_path / "d")
    sides = [store.documents(data.tokenizer) for store in (data.train, data.validation) if store]
    assert all(len(side) == 1 for side in sides)
    assert sides[0][0].startswith(" " + "\n\n".join(TEXTS)[:200])
    assert sides[-1][0].endswith("\n\n".join(TEXTS)[-200:])


def test_many_batches_keep_their_order_and_a_refusal_amid_them_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("wenlu.data.encode.AT_ONCE", 50)
    _, data = prepared(tmp_path, "byte")
    assert data.train.documents(data.tokenizer) == TEXTS
    encode, calls = Tokenizer.encode_arrays, []

    def fail_late(self, texts):
        calls.append(texts)
        if len(calls) == 5:
            raise UserError("the fifth batch is refused")
        return encode(self, texts)

    monkeypatch.setattr(Tokenizer, "encode_arrays", fail_late)
    with pytest.raises(UserError, match="the fifth batch is refused"):
        prepare(PrepareConfig((str(tmp_path / "rows.jsonl"),), tokenizer="byte", skip=("all",)), tmp_path / "e")
    assert not (tmp_path / "e").exists() and len(calls) <= 6
