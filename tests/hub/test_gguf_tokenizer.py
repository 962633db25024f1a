"""Tokenizers in GGUF's words: what llama.cpp's own files say, what each form is called, every refusal."""

import json

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from wenlu.base.errors import UserError
from wenlu.hub.gguf_tokenizer import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, describe
from wenlu.models.config import ModelConfig
from wenlu.tokenization.learn import learn
from wenlu.tokenization.tokenizer import Tokenizer

from gguf_shapes import golden
from tokenizer_forms import END, FORMS, by_expression, sentencepiece

NAMES = {"bpe": "gpt-2", "byte": "gpt-2", "char": "default", "sentencepiece": "default"}


def described(tokenizer: Tokenizer, rows: int = 0):
    return describe(tokenizer, ModelConfig(vocab=rows or tokenizer.vocab), "m")


@pytest.mark.parametrize("form", FORMS)
def test_every_form_has_its_name(form):
    tokenizer = FORMS[form]()
    found = described(tokenizer)
    assert found.pre == NAMES.get(form.split(",")[0], form)
    assert found.model == ("llama" if found.pre == "default" else "gpt2")
    assert len(found.tokens) == len(set(found.tokens)) == len(found.types) == tokenizer.vocab
    assert {id for id, kind in enumerate(found.types) if kind in (CONTROL, UNKNOWN)} == tokenizer.special_ids
    assert bool(found.merges) != bool(found.scores) and found.space_first == (form == "sentencepiece")
    assert len(found.notes) == (form == "char")


def test_merges_are_the_tokenizers_own():
    tokenizer = FORMS["bpe"]()
    model = json.loads(tokenizer.copy_of_library().to_str())["model"]
    assert described(tokenizer).merges == tuple(" ".join(merge) for merge in model["merges"])


def test_without_merges_one_stands_there_that_no_text_comes_to():
    assert described(learn("byte", [])).merges == (f"{END} {END}",)


def test_rows_without_a_token_are_unused_ones():
    found = described(learn("byte", []), rows=260)
    assert found.tokens[256:] == ("ÿ", "[PAD257]", "[PAD258]", "[PAD259]") and found.types[-2:] == (UNUSED, UNUSED)


def test_what_tokens_are():
    inner = sentencepiece().copy_of_library()
    inner.add_tokens(["<think>"])
    found = described(Tokenizer(inner, bos="<s>", eos="</s>"))
    assert found.types[:4] == (UNKNOWN, CONTROL, CONTROL, BYTE)
    assert (found.types[found.tokens.index("▁the")], found.types[-1]) == (NORMAL, USER_DEFINED)
    scores = dict(zip(found.tokens, found.scores))
    assert 0 == scores["t"] > scores["▁t"] > scores["he"] > scores["▁the"]


def test_a_character_tokenizers_space_is_written_as_sentencepiece_does():
    tokenizer = learn("char", ["a b"])
    found = described(tokenizer)
    assert found.tokens[tokenizer.encode(" ")[0]] == "▁" and found.tokens[0] == END
    assert found.notes == ("a text with the character ▁ (U+2581) reads there as if it were a space",)


@pytest.mark.parametrize("scheme", ["first", "always"])
def test_metaspace_is_told(scheme):
    found = described(sentencepiece(spaces=scheme))
    assert found.space_first and found.notes[0].startswith("a text that begins with a space gets a second one")
    assert not described(sentencepiece(spaces="never")).notes


def test_special_tokens_that_a_text_may_spell_are_told():
    found = described(sentencepiece(pieces=("</", "s>")))
    assert found.notes == ("where a text spells out </s>, <s>, the special token is read there",)


def test_normalizing_is_told():
    assert "composes characters (NFC)" in described(by_expression(r"\p{N}", composed=True)).notes[0]


def test_tokens_that_take_spaces_are_told():
    inner = learn("byte", []).copy_of_library()
    inner.add_tokens([tokenizers.AddedToken("<m>", lstrip=True)])
    assert described(Tokenizer(inner, eos=END)).notes == (
        "1 added tokens take the spaces beside them, there they do not: <m>",
    )


def changed(change, form: str = "bpe") -> Tokenizer:
    plan = json.loads(FORMS[form]().copy_of_library().to_str())
    change(plan)
    return Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(plan)), eos=END if form != "sentencepiece" else "</s>")


def set_to(*path_and_value):
    *path, last, value = path_and_value

    def change(plan):
        for key in path:
            plan = plan[key]
        plan[last] = value

    return change


def without_bytes(plan):
    del plan["model"]["vocab"]["<0x07>"]
    plan["model"]["vocab"]["<7>"] = 10


def apart(plan):
    plan["model"]["merges"].insert(0, plan["model"]["merges"].pop(4))


LETTERS = {"type": "Split", "pattern": {"Regex": r"\p{L}+"}, "behavior": "Isolated", "invert": False}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
REFUSED = {
    "another expression": (
        lambda: changed(set_to("pre_tokenizer", {"type": "Sequence", "pretokenizers": [LETTERS, BYTES]})),
        r"llama.cpp has no name for how this tokenizer splits words \(.*p\{L\}",
    ),
    "a space before a text of bytes": (
        lambda: changed(set_to("pre_tokenizer", "add_prefix_space", True)),
        "no name for how this tokenizer splits words",
    ),
    "no split": (
        lambda: changed(set_to("pre_tokenizer", "use_regex", False)),
        "no name for how this tokenizer splits words",
    ),
    "whole words, as GPT-2 does not": (
        lambda: changed(set_to("model", "ignore_merges", True)),
        "no name for how this tokenizer splits words",
    ),
    "lower case": (
        lambda: changed(set_to("normalizer", {"type": "Lowercase"})),
        "GGUF has no name for the tokenizer's normalizer 'Lowercase'",
    ),
    "dropout": (
        lambda: changed(set_to("model", "dropout", 0.1)),
        r"GGUF has no name for the tokenizer's dropout \(0.1\)",
    ),
    "Unigram": (lambda: learn("unigram", ["a stove, a fire. " * 50], 300), "no form for a Unigram tokenizer"),
    "no byte": (lambda: changed(without_bytes, "sentencepiece"), "every byte, and this tokenizer lacks <0x07>"),
    "spaces": (
        lambda: changed(set_to("normalizer", {"type": "Prepend", "prepend": "▁"}), "sentencepiece"),
        r"no name for what this tokenizer does to spaces \(normalizer .*Prepend",
    ),
    "no merge": (
        lambda: changed(lambda plan: plan["model"]["merges"].pop(1), "sentencepiece"),
        r"not those of sentencepiece, so no scores .* \('h' and 'e' make a token, but are no merge",
    ),
    "merges apart": (
        lambda: changed(apart, "sentencepiece"),
        "'aaa' is made at two places",
    ),
    "the mark of spaces": (
        lambda: learn("char", ["a ▁"]),
        "llama.cpp reads ▁ as a space, and this tokenizer has a token for it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_llama_cpp_has_no_name_for(case):
    make, message = REFUSED[case]
    with pytest.raises(UserError, match=message):
        described(make())


def test_bpe_of_words_and_of_another_model_are_refused():
    inner = tokenizers.Tokenizer(models.BPE({"a": 0, "▁": 1}, []))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    inner.normalizer = normalizers.NFC()
    with pytest.raises(UserError, match="no form for a BPE whose tokens are not bytes"):
        described(Tokenizer(inner))
    with pytest.raises(UserError, match="has 257 ids, but the model only 200: they do not belong together"):
        described(learn("byte", []), rows=200)


@pytest.mark.data
def test_gpt2s_vocabulary_is_that_of_llama_cpps_file(data_dir):
    gguf = pytest.importorskip("gguf")
    fields = gguf.GGUFReader(data_dir / "tokenizers" / "golden" / "ggml-vocab-gpt-2.gguf").fields
    wanted = {
        key: fields[f"tokenizer.ggml.{key}"].contents() for key in ("model", "pre", "tokens", "token_type", "merges")
    }
    tokenizer = Tokenizer.load(data_dir / "tokenizers" / "gpt2")
    found = described(tokenizer)
    assert (found.model, found.pre) == (wanted["model"], wanted["pre"]) == ("gpt2", "gpt-2")
    assert [*found.tokens] == wanted["tokens"] and [*found.types] == wanted["token_type"]
    assert [*found.merges] == wanted["merges"]
    texts, ids = golden(data_dir, "gpt-2")
    assert tokenizer.encode_batch(texts) == ids


@pytest.mark.data
def test_berts_vocabulary_gives_the_golden_ids(data_dir):
    texts, ids = golden(data_dir, "bert-bge")
    tokenizer = Tokenizer.load(data_dir / "tokenizers" / "bert_base_uncased")
    assert tokenizer.encode_batch(texts) == ids
    with pytest.raises(UserError, match="no form for a WordPiece tokenizer"):
        described(tokenizer)


@pytest.mark.data
@pytest.mark.parametrize(("name", "kind"), [("stories260K", "default"), ("tokenizers/minimind_6400", "gpt-2")])
def test_real_folders(data_dir, name, kind):
    found = described(Tokenizer.load(data_dir / name))
    assert found.pre == kind and not found.notes
