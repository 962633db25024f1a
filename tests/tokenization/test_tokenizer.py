"""Laws of the tokenizer: nothing lost, nothing torn, the same ids and text as the reference libraries."""

import json
import lzma
import pickle
import random
import subprocess
import sys

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models

from wenlu.base.errors import UserError
from wenlu.tokenization.encoder import cut_at_spaces
from wenlu.tokenization.learn import learn
from wenlu.tokenization.tokenizer import END_OF_TEXT, Tokenizer

from tokenizer_forms import sentencepiece

CORPUS = [
    "The cat sat on the mat; the dogs don't.\n",
    "天地玄黄，宇宙洪荒。日月盈昃，辰宿列张。\n",
    "Ünïcödé 🙂 3.14\r\n",
] * 5
KINDS = ("bpe", "unigram", "char", "byte")


@pytest.fixture(scope="module")
def learned() -> dict[str, Tokenizer]:
    return {
        "bpe": learn("bpe", CORPUS, 400),
        "unigram": learn("unigram", CORPUS, 400),
        "char": learn("char", CORPUS),
        "byte": learn("byte", []),
        "sentencepiece": sentencepiece(),
    }


def _stream(tokenizer: Tokenizer, ids: list[int], skip_special: bool = True) -> list[str]:
    stream = tokenizer.stream(skip_special)
    return [*map(stream.push, ids), stream.flush()]


@settings(max_examples=150, deadline=None)
@given(text=st.text())
def test_decode_gives_back_every_text(learned, text):
    for kind in KINDS:
        tokenizer = learned[kind]
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert tokenizer.decode(ids, skip_special=False) == text
        assert "".join(_stream(tokenizer, ids)) == text
        assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()
        assert tokenizer.lossless_on(text)
        assert not tokenizer.special_ids & set(ids)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_stream_equals_decode_on_any_ids(learned, data):
    for tokenizer in learned.values():
        ids = data.draw(st.lists(st.integers(0, tokenizer.vocab - 1), max_size=24))
        for skip in (True, False):
            assert "".join(_stream(tokenizer, ids, skip)) == tokenizer.decode(ids, skip_special=skip)


def test_stream_never_tears_a_character(learned):
    for tokenizer in learned.values():
        given_out = _stream(tokenizer, tokenizer.encode("t 龘🙂é"))
        assert "\ufffd" not in "".join(given_out)
        assert "".join(given_out) == "t 龘🙂é"


def test_stream_gives_out_what_is_certain_at_once(learned):
    stream = learned["byte"].stream()
    assert [stream.push(byte + 1) for byte in "a中b".encode()] == ["a", "", "", "中", "b"]
    assert stream.push(0xE4 + 1) == ""
    assert stream.flush() == "\ufffd"


@pytest.mark.parametrize("kind", ["bpe", "unigram", "char", "byte", "sentencepiece"])
def test_decode_equals_the_library_on_random_ids(learned, kind):
    """Where the bytes are UTF-8; elsewhere the library's byte fallback writes U+FFFD for whole runs of bytes."""
    tokenizer = learned[kind]
    rng = random.Random(1)
    compared = 0
    for _ in range(2000):
        ids = [rng.randrange(tokenizer.vocab) for _ in range(rng.randrange(6))]
        try:
            b"".join(tokenizer.pieces(ids)).decode()
        except UnicodeDecodeError:
            if tokenizer.rule.byte_fallback:
                continue
        compared += 1
        assert tokenizer.decode(ids) == tokenizer._inner.decode(ids, skip_special_tokens=True)
    assert compared > 100


def test_decode_of_metaspace_equals_the_library():
    vocab = {token: id for id, token in enumerate(["</s>", "▁", "▁a", "b", "▁▁c", "中"])}
    for scheme in ("always", "first", "never"):
        inner = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[]))
        inner.decoder = decoders.Metaspace(prepend_scheme=scheme)
        inner.add_special_tokens(["</s>"])
        tokenizer = Tokenizer(inner, eos="</s>")
        rng = random.Random(2)
        for _ in range(300):
            ids = [rng.randrange(6) for _ in range(rng.randrange(5))]
            assert (
                tokenizer.decode(ids) == inner.decode(ids, skip_special_tokens=True) == "".join(_stream(tokenizer, ids))
            )


def test_special_tokens_in_text_are_text(learned):
    for kind in KINDS:
        tokenizer = learned[kind]
        for text in (END_OF_TEXT, f"a{END_OF_TEXT}b", "<0x41>", "<0xE4><0xB8>"):
            ids = tokenizer.encode(text)
            assert tokenizer.eos_id not in ids
            assert tokenizer.decode(ids) == text
    assert len(learned["char"].encode("<0x41>")) == 6
    assert learned["sentencepiece"].decode(learned["sentencepiece"].encode("</s> <0x41>")) == "</s> <0x41>"


def test_special_ids_are_skipped_or_shown(learned):
    for kind in KINDS:
        tokenizer = learned[kind]
        ids = [tokenizer.bos_id, *tokenizer.encode("ab"), tokenizer.eos_id]
        assert tokenizer.decode(ids) == "ab"
        assert tokenizer.decode(ids, skip_special=False) == f"{END_OF_TEXT}ab{END_OF_TEXT}"
        assert tokenizer.token_bytes(tokenizer.eos_id) == END_OF_TEXT.encode()


def test_token_bytes(learned):
    assert [learned["byte"].token_bytes(id) for id in range(1, 257)] == [bytes([byte]) for byte in range(256)]
    assert [learned["char"].token_bytes(id) for id in range(1, 257)] == [bytes([byte]) for byte in range(256)]
    assert learned["char"].token_bytes(learned["char"].encode("天")[0]) == "天".encode()
    llama = learned["sentencepiece"]
    assert [llama.token_bytes(id) for id in llama.encode("the \n")] == [b" the", b" ", b"\n"]
    assert llama.pieces(llama.encode("the \n")) == [b"the", b" ", b"\n"]


def test_an_unknown_id_is_refused(learned):
    tokenizer = learned["byte"]
    for id in (257, -1):
        for act in (tokenizer.token_bytes, lambda id: tokenizer.decode([id]), lambda id: tokenizer.stream().push(id)):
            with pytest.raises(UserError, match=f"no token has the id {id}: this tokenizer's ids lie in 0 to 256"):
                act(id)


def test_a_lone_surrogate_is_refused(learned):
    for tokenizer in learned.values():
        with pytest.raises(UserError, match=r"lone surrogate U\+DC80 at character 2.*errors='replace'"):
            tokenizer.encode("ab\udc80")
        with pytest.raises(UserError, match="lone surrogate"):
            tokenizer.encode_batch(["fine", "\ud83d"])
        with pytest.raises(UserError, match="lone surrogate"):
            tokenizer.lossless_on("\udfff")


def test_batch_equals_one_by_one(learned):
    texts = ["", "The cat", "天地", " a ", "\n\n"]
    for tokenizer in learned.values():
        assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]
        assert tokenizer.encode_batch([]) == []


@settings(max_examples=150, deadline=None)
@given(text=st.text(alphabet="cathe's .\t\r\n\u00a0\x1c\u3000天地，。é", max_size=60), size=st.integers(1, 8))
def test_a_text_cut_at_spaces_has_the_same_ids(learned, text, size):
    parts = list(cut_at_spaces(text, size))
    assert "".join(parts) == text
    for tokenizer in (learned["bpe"], learned["unigram"]):
        whole = tokenizer._inner.encode(text, add_special_tokens=False).ids
        assert [id for part in parts for id in tokenizer.encode(part)] == whole


def test_chinese_without_a_space_is_read_in_parts(learned):
    text = "天地玄黄，宇宙洪荒。日月盈昃，辰宿列张。" * 50
    parts = list(cut_at_spaces(text, 100))
    assert "".join(parts) == text and len(parts) > 8 and max(map(len, parts)) < 110
    for kind in ("bpe", "unigram"):
        whole = learned[kind]._inner.encode(text, add_special_tokens=False).ids
        assert [id for part in parts for id in learned[kind].encode(part)] == whole


def test_kinds_and_roles(learned):
    for kind in KINDS:
        tokenizer = learned[kind]
        assert tokenizer.kind == kind
        assert tokenizer.bos_id == tokenizer.eos_id == tokenizer.pad_id == 0
        assert tokenizer.special_ids == {0}
    assert learned["byte"].vocab == 257
    llama = learned["sentencepiece"]
    assert (llama.kind, llama.bos_id, llama.eos_id, llama.pad_id) == ("other", 1, 2, None)


def test_save_load_and_pickle_are_identities(learned, tmp_path):
    for kind, tokenizer in learned.items():
        tokenizer.save(tmp_path / kind)
        for other in (
            Tokenizer.load(tmp_path / kind),
            Tokenizer.load(tmp_path / kind / "tokenizer.json"),
            pickle.loads(pickle.dumps(tokenizer)),
        ):
            assert other.fingerprint == tokenizer.fingerprint
            assert (other.kind, other.vocab) == (tokenizer.kind, tokenizer.vocab)
            assert (other.bos_id, other.eos_id, other.pad_id) == (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id)
            for text in ("the </s> <|endoftext|>", "龘"):
                assert other.encode(text) == tokenizer.encode(text)
    assert len({tokenizer.fingerprint for tokenizer in learned.values()}) == len(learned)


def test_what_a_folder_says_of_chat_is_kept(learned, tmp_path):
    learned["byte"].save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config |= {"auto_map": {"AutoTokenizer": "evil.py"}, "model_max_length": 512}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    Tokenizer.load(tmp_path).save(tmp_path / "again")
    again = json.loads((tmp_path / "again" / "tokenizer_config.json").read_text())
    assert again == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 512,
        "chat_template": "{{ messages }}",
        **{f"{role}_token": END_OF_TEXT for role in ("bos", "eos", "pad")},
    }


def test_truncation_and_padding_of_a_file_are_switched_off(learned, tmp_path):
    inner = tokenizers.Tokenizer.from_str(learned["byte"]._inner.to_str())
    inner.enable_truncation(3)
    inner.enable_padding(length=9)
    inner.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer.load(tmp_path).encode("abcdef") == learned["byte"].encode("abcdef")


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_opens_what_is_saved(learned, tmp_path, kind):
    transformers = pytest.importorskip("transformers")
    tokenizer = learned[kind]
    tokenizer.save(tmp_path)
    for reader in (transformers.AutoTokenizer, transformers.PreTrainedTokenizerFast):
        theirs = reader.from_pretrained(str(tmp_path))
        assert len(theirs) == tokenizer.vocab
        roles = (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id)
        assert roles == (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id)
        for text in ("", " The cat,  don't .\n", "天龘 🙂\r\n é", "<0x41> ▁"):
            ids = tokenizer.encode(text)
            assert theirs(text)["input_ids"] == theirs.encode(text) == ids
            assert theirs.decode(ids, skip_special_tokens=True) == tokenizer.decode(ids) == text
        assert theirs.decode([0, *ids], skip_special_tokens=True) == text
        text = f"a{END_OF_TEXT}b"
        assert theirs(text)["input_ids"] != tokenizer.encode(text)
        assert theirs(text, split_special_tokens=True)["input_ids"] == tokenizer.encode(text)


def _folder(tmp_path, tokenizer: Tokenizer, **files):
    tokenizer.save(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    for name, body in files.items():
        (tmp_path / f"{name}.json").write_text(body if isinstance(body, str) else json.dumps(body))
    return tmp_path


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config": {"eos_token": "</s>", "bos_token": None}},
        {"tokenizer_config": {"eos_token": {"content": "</s>", "special": True}}},
        {"special_tokens_map": {"eos_token": "</s>"}},
        {"special_tokens_map": {"eos_token": {"content": "</s>"}}},
        {"config": {"eos_token_id": 2, "pad_token_id": -1}},
        {"config": {"eos_token_id": [2, 1]}},
        {"tokenizer_config": {"eos_token": "</s>"}, "config": {"eos_token_id": 1}},
    ],
)
def test_where_special_tokens_are_named(learned, tmp_path, files):
    tokenizer = Tokenizer.load(_folder(tmp_path, learned["sentencepiece"], **files))
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (None, 2, None)


def test_a_missing_or_broken_file_is_refused(learned, tmp_path):
    with pytest.raises(UserError, match=r"no tokenizer at .*: expected tokenizer.json, or vocab.json and merges.txt"):
        Tokenizer.load(tmp_path)
    with pytest.raises(UserError, match="no tokenizer at"):
        Tokenizer.load(tmp_path / "absent")
    for body in (b"{", b"{}", b"\xff", b"[1]"):
        (tmp_path / "tokenizer.json").write_bytes(body)
        with pytest.raises(
            UserError, match=r"tokenizer.json is not a tokenizer that can be read .*copy or download it"
        ):
            Tokenizer.load(tmp_path)
    llama = learned["sentencepiece"]
    with pytest.raises(UserError, match=r"tokenizer_config.json is not JSON"):
        Tokenizer.load(_folder(tmp_path, llama, tokenizer_config="{"))
    with pytest.raises(UserError, match=r"tokenizer_config.json must hold a JSON object, not list"):
        Tokenizer.load(_folder(tmp_path, llama, tokenizer_config=[]))
    with pytest.raises(UserError, match=r"eos_token is 7, which the vocabulary lacks"):
        Tokenizer.load(_folder(tmp_path, llama, tokenizer_config={"eos_token": 7}))
    with pytest.raises(UserError, match=r"pad_token is '\[PAD\]', which the vocabulary lacks"):
        Tokenizer.load(_folder(tmp_path, llama, tokenizer_config={"pad_token": "[PAD]"}))


def test_broken_gpt2_files_are_refused(tmp_path):
    (tmp_path / "vocab.json").write_text("{")
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(UserError, match=r"vocab.json and merges.txt in .* cannot be read"):
        Tokenizer.load(tmp_path)


def test_named_tokens_are_special_and_an_empty_vocabulary_is_refused():
    inner = tokenizers.Tokenizer(models.BPE(vocab={"a": 0, "<s>": 1}, merges=[]))
    inner.decoder = decoders.ByteLevel()
    tokenizer = Tokenizer(inner, bos="<s>")
    assert (tokenizer.vocab, tokenizer.bos_id, tokenizer.special_ids) == (2, 1, {1})
    assert tokenizer.decode([1, 0]) == "a"
    empty = tokenizers.Tokenizer(models.BPE())
    empty.decoder = decoders.ByteLevel()
    with pytest.raises(UserError, match="the vocabulary is empty"):
        Tokenizer(empty)


def test_a_decoder_that_is_no_rule_for_tokens_is_refused():
    for decoder, name in ((decoders.CTC(), "CTC"), (None, "none"), (decoders.Strip(" ", 1, 0), "Strip")):
        inner = tokenizers.Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
        if decoder is not None:
            inner.decoder = decoder
        with pytest.raises(UserError, match=f"the decoder '{name}' is not supported; byte-level"):
            Tokenizer(inner)


def test_nothing_here_imports_torch():
    names = ("tokenizer", "learn", "words", "unigram", "survey")
    imports = ";".join(f"import wenlu.tokenization.{name}" for name in names)
    code = f"{imports};import sys;assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.data
def test_stories260k_decodes_its_published_text(data_dir):
    tokenizer = Tokenizer.load(data_dir / "stories260K")
    assert (tokenizer.kind, tokenizer.vocab, tokenizer.bos_id, tokenizer.eos_id) == ("other", 512, 1, 2)
    text = (data_dir / "stories260K" / "greedy.txt").read_text()
    ids = tokenizer.encode(text)
    assert ids == tokenizer._inner.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids) == "".join(_stream(tokenizer, ids)) == text
    assert tokenizer.decode([1, *ids, 2]) == text
    assert tokenizer.lossless_on("  two spaces, 中文 🙂\n")
    assert not tokenizer.lossless_on("▁")


@pytest.mark.data
@pytest.mark.parametrize("name", ["stories260K", "tokenizers/minimind_6400", "tokenizers/gpt2"])
def test_foreign_folders_equal_transformers_before_and_after_saving(data_dir, tmp_path, name):
    transformers = pytest.importorskip("transformers")
    novel = lzma.decompress((data_dir / "english" / "Austen_Emma.txt.xz").read_bytes()).decode("utf-8-sig")
    text = novel[:200_000] + "天地玄黄 🙂 <think>" + "\n  def f(x):\n\treturn 1234567\r\n"
    tokenizer = Tokenizer.load(data_dir / name)
    tokenizer.save(tmp_path)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == "".join(_stream(tokenizer, ids)) == text
    assert Tokenizer.load(tmp_path).fingerprint == tokenizer.fingerprint
    for folder in (data_dir / name, tmp_path):
        if not (folder / "tokenizer.json").exists():
            continue  # Transformers wants a config.json beside GPT-2's two files
        theirs = transformers.AutoTokenizer.from_pretrained(str(folder))
        assert theirs.encode(text, add_special_tokens=False) == ids
        assert (theirs.bos_token_id, theirs.eos_token_id) == (tokenizer.bos_id, tokenizer.eos_id)
        assert theirs.decode(ids) == text


@pytest.mark.data
def test_gpt2_gives_the_golden_ids_of_llama_cpp(data_dir):
    tokenizer = Tokenizer.load(data_dir / "tokenizers" / "gpt2")
    assert (tokenizer.kind, tokenizer.vocab, tokenizer.eos_id) == ("bpe", 50257, 50256)
    golden = data_dir / "tokenizers" / "golden" / "ggml-vocab-gpt-2.gguf"
    texts = golden.with_name(golden.name + ".inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")[:-1]
    ids = [[*map(int, line.split())] for line in golden.with_name(golden.name + ".out").read_text().splitlines()]
    assert len(texts) == len(ids) == 46
    assert tokenizer.encode_batch(texts) == ids
    assert list(map(tokenizer.decode, ids)) == texts
