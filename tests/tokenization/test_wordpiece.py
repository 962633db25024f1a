"""BERT's own tokenizers are read as Transformers reads them, and what they lose is known."""

import json

import pytest
from transformers import AutoTokenizer, BertTokenizer

from wenlu.base.errors import UserError
from wenlu.tokenization.learn import learn
from wenlu.tokenization.tokenizer import Tokenizer

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] the stove s ##s ##ing burn warm naive , . ! ' 文 火 ##火 don t 1 ##2".split()
TEXTS = [
    "The stoves burning, warm!",
    "文火, the naïve stove's.",
    "don't burn 12.",
    "unknown words",
    "",
    "  the\tstove\n\n.",
    "burn" * 60,
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def whole(folder):
    """The folder as Transformers saves it, with a tokenizer.json."""
    BertTokenizer.from_pretrained(folder).save_pretrained(folder / "whole")
    return folder / "whole"


def test_ids_and_texts_are_those_of_transformers(folder, whole):
    for place in (folder, whole):
        ours, theirs = Tokenizer.load(place), BertTokenizer.from_pretrained(place)
        assert ours.kind == "wordpiece" and ours.vocab == len(theirs) == len(WORDS) and not ours.is_known
        for text in TEXTS:
            ids = theirs(text, add_special_tokens=False)["input_ids"]
            assert ours.encode(text) == ids
            assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
            assert "".join(map(ours.stream().push, ids)) == ours.decode(ids)


def test_roles(folder, whole):
    for place in (folder, whole):
        tokenizer = Tokenizer.load(place)
        assert (tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id) == (0, 2, 3, 4)
        assert tokenizer.end_id == 3 and tokenizer.bos_id is None and tokenizer.eos_id is None
        assert tokenizer.special_ids == {0, 1, 2, 3, 4}


def test_special_tokens_in_a_text_are_text(whole):
    assert not {2, 3, 4} & set(Tokenizer.load(whole).encode("the [MASK] [CLS] stove [SEP]"))


def test_what_is_lost_is_known(whole):
    tokenizer = Tokenizer.load(whole)
    assert tokenizer.lossless_on("the stoves burning, warm!")
    for text in ("The stove", "the  stove", "文火", "naïve"):
        assert not tokenizer.lossless_on(text)


@pytest.mark.parametrize("lower", [True, False])
def test_capitals_are_kept_where_the_folder_says_so(folder, lower):
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"do_lower_case": lower, "tokenizer_class": "BertTokenizer"})
    )
    ours, theirs = Tokenizer.load(folder), AutoTokenizer.from_pretrained(folder)
    assert ours.encode("THE stove") == theirs("THE stove", add_special_tokens=False)["input_ids"]
    assert (ours.encode("THE") == [WORDS.index("the")]) == lower


def test_saved_it_is_read_there_with_its_types(tmp_path, whole):
    Tokenizer.load(whole).save(tmp_path / "ours")
    learn("char", ["the stove burns"], purpose="bert").save(tmp_path / "learned")
    for place in (tmp_path / "ours", tmp_path / "learned"):
        ours, theirs = Tokenizer.load(place), AutoTokenizer.from_pretrained(place)
        first, second = ours.encode("the"), ours.encode("stove")
        given = theirs("the", "stove")
        assert given["input_ids"] == [ours.cls_id, *first, ours.sep_id, *second, ours.sep_id]
        assert given["token_type_ids"] == [0] * (len(first) + 2) + [1] * (len(second) + 1)
        assert theirs("the")["input_ids"] == [ours.cls_id, *first, ours.sep_id]
    assert Tokenizer.load(tmp_path / "ours").fingerprint == Tokenizer.load(whole).fingerprint


def test_a_t5_ends_a_text_there_too(tmp_path):
    learn("char", ["the stove burns"], purpose="t5").save(tmp_path)
    ours, theirs = Tokenizer.load(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert theirs("the")["input_ids"] == [*ours.encode("the"), ours.eos_id]


def test_files_that_disagree_on_capitals_are_refused(whole):
    config = json.loads((whole / "tokenizer_config.json").read_text())
    (whole / "tokenizer_config.json").write_text(json.dumps({**config, "do_lower_case": False}))
    with pytest.raises(UserError, match=r"do_lower_case is False in tokenizer_config\.json.*make them agree"):
        Tokenizer.load(whole)


def test_another_vocabulary_is_refused(folder):
    (folder / "vocab.txt").write_text("the\nstove\n[PAD]\n")
    with pytest.raises(
        UserError, match=r"vocab\.txt lacks \[CLS\], \[SEP\], \[MASK\], \[UNK\]: it is not the vocabulary"
    ):
        Tokenizer.load(folder)


def test_only_line_ends_part_tokens(folder):
    """Not U+2028 and the like, which may stand in one."""
    words = [*WORDS[:5], "x\u2028", "y\x85", *WORDS[5:]]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    theirs = BertTokenizer.from_pretrained(folder)("the stove", add_special_tokens=False)["input_ids"]
    assert Tokenizer.load(folder).encode("the stove") == theirs
