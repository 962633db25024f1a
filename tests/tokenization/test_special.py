"""Tokenizers learned for encoders: special tokens with their roles, at the ids that the families expect."""

import json

import pytest
import tokenizers

from wenlu.base.errors import UserError
from wenlu.tokenization.learn import KINDS, learn
from wenlu.tokenization.special import SPECIAL
from wenlu.tokenization.tokenizer import Tokenizer

TEXT = ["Half of the stoves of the house glow. 文火慢炖的炉子，半个家都暖和。\n" * 9]
SIZES = {"bpe": 300, "unigram": 300, "char": None, "byte": None}
TRAPS = "[MASK] <extra_id_0></s> [CLS] <pad> <|endoftext|>"


@pytest.mark.parametrize("kind", KINDS)
def test_bert(kind, tmp_path):
    learn(kind, TEXT, SIZES[kind], "bert").save(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    assert (tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id) == (0, 1, 2, 3)
    assert tokenizer.bos_id is None and tokenizer.eos_id is None and tokenizer.end_id == tokenizer.sep_id
    assert tokenizer.special_ids == {0, 1, 2, 3} and tokenizer.kind == kind and tokenizer.is_known
    assert not tokenizer.special_ids & set(tokenizer.encode(TRAPS)) and tokenizer.lossless_on(TRAPS)
    assert tokenizer.vocab == {"bpe": 300, "unigram": 300, "byte": 260}.get(kind, tokenizer.vocab)


@pytest.mark.parametrize("kind", KINDS)
def test_t5(kind, tmp_path):
    learn(kind, TEXT, SIZES[kind], "t5").save(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.end_id, tokenizer.bos_id) == (0, 1, 1, None)
    assert tokenizer.token_bytes(tokenizer.vocab - 1) == b"<extra_id_0>"
    assert tokenizer.token_bytes(tokenizer.vocab - 100) == b"<extra_id_99>"
    assert len(tokenizer.special_ids) == 102 and tokenizer.kind == kind and tokenizer.is_known
    assert not tokenizer.special_ids & set(tokenizer.encode(TRAPS)) and tokenizer.lossless_on(TRAPS)
    assert tokenizer.vocab == {"bpe": 400, "unigram": 400, "byte": 358}.get(kind, tokenizer.vocab)


@pytest.mark.parametrize("kind", KINDS)
def test_other_tokenizers_have_none_of_them(kind):
    tokenizer = learn(kind, TEXT, SIZES[kind])
    assert tokenizer.special_ids == {0} and tokenizer.mask_id is tokenizer.cls_id is tokenizer.sep_id is None


@pytest.mark.parametrize("purpose", SPECIAL)
def test_transformers_reads_the_same_roles(purpose, tmp_path):
    transformers = pytest.importorskip("transformers")
    ours = learn("bpe", TEXT, 300, purpose)
    ours.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for role in ("bos", "eos", "pad", "cls", "sep", "mask"):
        assert getattr(theirs, f"{role}_token_id") == getattr(ours, f"{role}_id")
    assert len(theirs) == ours.vocab


def test_a_size_without_room_for_them_is_refused():
    with pytest.raises(UserError, match=r"needs at least 260 tokens \(256 bytes, four special\), not 259"):
        learn("bpe", TEXT, 259, "bert")
    with pytest.raises(UserError, match=r"needs at least 260 tokens \(256 bytes, two special, two pieces\), not 259"):
        learn("unigram", TEXT, 259, "t5")


@pytest.mark.parametrize("said", [{"bos_token": None}, {"add_bos_token": False}])
def test_a_folder_that_has_no_bos_gets_none(tmp_path, said):
    """Though its model's configuration names an id, as Qwen2's does; and it stays so when saved."""
    learn("bpe", ["the stove burns"] * 3, 280).save(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **said}))
    (tmp_path / "config.json").write_text(json.dumps({"bos_token_id": 0}))
    tokenizer = Tokenizer.load(tmp_path)
    assert not tokenizer.begins
    tokenizer.save(tmp_path / "again")
    assert not Tokenizer.load(tmp_path / "again").begins
    assert learn("bpe", ["the stove burns"] * 3, 280).begins


def test_special_tokens_keep_the_spaces_that_they_take(tmp_path):
    library = learn("bpe", ["the stove burns"] * 3, 280).copy_of_library()
    library.add_special_tokens([tokenizers.AddedToken("<|end|>", rstrip=True, special=True)])
    tokenizer = Tokenizer(library, eos="<|end|>")
    found = next(t for t in tokenizer.copy_of_library().get_added_tokens_decoder().values() if t.content == "<|end|>")
    assert found.rstrip and found.special
