"""GGUF files, by the package that llama.cpp's authors read them with: the same weights and shape, every refusal."""

import resource
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from wenlu.base.errors import UserError
from wenlu.hub.folder import has_tokenizer, load, save, their_tensors
from wenlu.hub.gguf import ARCHITECTURES, Written, check, export, interleaved, names, rope_factors
from wenlu.models.build import build
from wenlu.models.config import ModelConfig, RopeScaling
from wenlu.models.position import scaled
from wenlu.tokenization.chat_format import with_template
from wenlu.tokenization.learn import learn

from gguf_shapes import LLAMA3, QWEN, SHAPES, SMALL

gguf = pytest.importorskip("gguf")


def read(file: Path) -> tuple[dict, dict]:
    """(facts, tensors as floats) of a GGUF file."""
    reader = gguf.GGUFReader(file)
    facts = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    return facts, {t.name: gguf.dequantize(t.data, t.tensor_type).reshape(t.shape[::-1]) for t in reader.tensors}


@pytest.fixture
def folder(tmp_path, shaken):
    """A function: configuration → the folder of a shaken model of that shape."""

    def make(config: ModelConfig, tokenizer=None) -> Path:
        save(shaken(build(config, seed=1)), tokenizer, tmp_path / "model")
        return tmp_path / "model"

    return make


def as_theirs(config: ModelConfig, tensors: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Tensors of a file under Transformers' names, in its order of rows and orientation."""
    config, theirs = config.resolved(), {}
    for name, gguf_name in names(config).items():
        tensor = torch.from_numpy(tensors.pop(gguf_name).copy())
        if config.family in ("llama", "mistral") and name.rsplit(".", 2)[1] in ("q_proj", "k_proj"):
            heads = config.heads if "q_proj" in name else config.kv_heads
            pairs = tensor.reshape(heads, len(tensor) // heads // 2, 2, *tensor.shape[1:])
            tensor = pairs.transpose(1, 2).reshape(tensor.shape)
        linear = config.family == "gpt2" and tensor.ndim == 2 and ".h." in name
        theirs[name] = tensor.T if linear else tensor
    assert not tensors, "every tensor of the file is one of the model's"
    return theirs


@pytest.mark.parametrize("family", SHAPES)
def test_f32_weights_come_back_to_the_bit(family, folder, tmp_path):
    made = folder(SHAPES[family])
    written = export(made, tmp_path / "a.gguf")
    model = load(made)[0]
    back = as_theirs(model.config, read(written.file)[1])
    wanted = their_tensors(model)
    assert back.keys() == wanted.keys() and all(torch.equal(back[name], t) for name, t in wanted.items())
    assert written == Written(written.file, written.file.stat().st_size, ARCHITECTURES[family], None, len(wanted), (),
                              ("the folder has no tokenizer, so the file has none",))  # fmt: skip


@pytest.mark.parametrize("family", SHAPES)
def test_no_two_tensors_have_one_name(family):
    table = names(SHAPES[family])
    assert len(set(table.values())) == len(table)


@pytest.mark.parametrize(("dtype", "bound"), [("bf16", 2**-8), ("q8_0", 1 / 127)])
def test_smaller_formats_are_near(dtype, bound, folder, tmp_path):
    made = folder(SHAPES["llama"])
    exact = read(export(made, tmp_path / "exact.gguf").file)[1]
    written = export(made, tmp_path / "a.gguf", dtype)
    facts, near = read(written.file)
    assert facts["general.file_type"] == {"bf16": 32, "q8_0": 7}[dtype]
    assert written.bytes < {"bf16": 0.6, "q8_0": 0.4}[dtype] * (tmp_path / "exact.gguf").stat().st_size
    kinds = {t.name: t.tensor_type.name.lower() for t in gguf.GGUFReader(written.file).tensors}
    for name, tensor in exact.items():
        assert kinds[name] == (dtype if tensor.ndim == 2 else "f32")
        assert np.abs(near[name] - tensor).max() <= bound * np.abs(tensor).max()
        assert (near[name] == tensor).all() == (tensor.ndim == 1)


def test_rows_that_q8_0_has_no_blocks_for_stay_in_f32(folder, tmp_path):
    made = folder(replace(SHAPES["llama"], ffn=90))
    written = export(made, tmp_path / "a.gguf", "q8_0")
    assert written.kept_f32 == ("blk.0.ffn_down.weight", "blk.1.ffn_down.weight")
    kinds = {t.name: t.tensor_type.name for t in gguf.GGUFReader(written.file).tensors}
    assert kinds["blk.0.ffn_down.weight"] == "F32" and kinds["blk.0.ffn_up.weight"] == "Q8_0"


def test_the_shape_under_ggufs_keys(folder, tmp_path):
    facts = read(export(folder(SHAPES["mistral"]), tmp_path / "a.gguf").file)[0]
    wanted = {
        "general.architecture": "llama",
        "general.name": "model",
        "general.file_type": 0,
        "tokenizer.ggml.model": "none",
        "llama.vocab_size": 70,
        "llama.context_length": 32,
        "llama.embedding_length": 64,
        "llama.block_count": 2,
        "llama.feed_forward_length": 96,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 1,
        "llama.attention.key_length": 32,
        "llama.attention.value_length": 32,
        "llama.rope.dimension_count": 32,
        "llama.rope.freq_base": 5e5,
    }
    assert wanted.items() <= facts.items()
    assert facts["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-6)


def test_positions_scaled(folder, tmp_path):
    linear = read(export(folder(replace(QWEN, rope=RopeScaling("linear", 4.0))), tmp_path / "a.gguf").file)[0]
    assert (linear["qwen3.rope.scaling.type"], linear["qwen3.rope.scaling.factor"]) == ("linear", 4.0)
    yarn = RopeScaling("yarn", 4.0, 16, 1.0, 32.0, attention=1.3)
    facts = read(export(folder(replace(QWEN, rope=yarn)), tmp_path / "b.gguf").file)[0]
    assert (facts["qwen3.rope.scaling.type"], facts["qwen3.rope.scaling.original_context_length"]) == ("yarn", 16)
    assert facts["qwen3.rope.scaling.attn_factor"] == pytest.approx(1.3 / (0.1 * np.log(4) + 1))
    config = replace(SHAPES["mistral"], rope=LLAMA3)
    factors = torch.tensor(read(export(folder(config), tmp_path / "c.gguf").file)[1]["rope_freqs.weight"])
    assert torch.equal(factors, rope_factors(config)) and factors[0] == 1 and factors[-1] == 8
    plain = 1 / 5e5 ** (torch.arange(0, 32, 2) / 32)
    assert torch.allclose(plain / factors, scaled(plain, 5e5, LLAMA3))


def test_rows_interleaved():
    assert interleaved(torch.arange(8), heads=2).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_special_tokens_and_chat_template(folder, tmp_path):
    learned = learn("byte", [])
    tokenizer, new = with_template(learned)
    assert new == ["<|im_start|>", "<|im_end|>"]
    end, separator = tokenizer.eos_id, learned.eos_id
    config = replace(QWEN, vocab=264, bos_id=separator, eos_id=end, other_eos_ids=(separator,))
    written = export(folder(config, tokenizer), tmp_path / "a.gguf")
    facts = read(written.file)[0]
    assert written.tokenizer == "gpt2, gpt-2" and written.notes == ()
    assert facts["tokenizer.chat_template"] == tokenizer.chat_template
    ids = {name: facts[f"tokenizer.ggml.{name}_token_id"] for name in ("bos", "eos", "eot")}
    assert ids == {"bos": separator, "eos": end, "eot": separator}
    assert facts["tokenizer.ggml.add_bos_token"] is True
    assert len(facts["tokenizer.ggml.tokens"]) == 264 and facts["tokenizer.ggml.tokens"][-1] == "[PAD263]"
    assert facts["tokenizer.ggml.token_type"][end] == 3 and facts["tokenizer.ggml.token_type"][-1] == 5


def test_ends_beyond_the_third_are_told(folder, tmp_path):
    tokenizer = learn("byte", []).extended(("<a>", "<b>", "<c>"))
    config = replace(QWEN, vocab=260, eos_id=0, other_eos_ids=(257, 258, 259))
    written = export(folder(config, tokenizer), tmp_path / "a.gguf")
    assert written.notes == ("GGUF names three tokens that end a text, so not <c>",)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ModelConfig(family="lstm", dim=8, vocab=9), "lstm, which cannot be exported: gpt2, llama, mistral, qwen2"),
        (ModelConfig(family="t5", **SMALL), "is of the family t5, which cannot be exported"),
        (ModelConfig(family="bert", **SMALL), "is of the family bert, which cannot be exported"),
        (replace(QWEN, activation="relu2"), "llama.cpp's qwen3 computes silu, not relu2"),
        (replace(SHAPES["gpt2"], activation="relu"), "llama.cpp's gpt2 computes gelu_new, not relu"),
        (replace(QWEN, window=16), r"no sliding window, and this model's \(16\) is shorter than its context \(32\)"),
        (replace(QWEN, attention_bias=True), "llama.cpp's qwen3 has no place for attention_bias"),
        (replace(SHAPES["qwen2"], head_dim=32), "llama.cpp's qwen2 wants heads of 16, not 32"),
        (replace(QWEN, rope=LLAMA3), "llama.cpp's qwen3 cannot scale positions as llama3 does"),
        (replace(QWEN, rope=RopeScaling("yarn", 4.0, 16, 2.0, 32.0)), "beta_slow 1 and beta_fast 32 .* not 2 and 32"),
        (replace(QWEN, rope=RopeScaling("yarn", 4.0, 16, 1.0, 32.0, whole_pairs=False)), "1 and 32 without truncate"),
    ],
)
def test_what_llama_cpp_has_no_form_for(config, message):
    with pytest.raises(UserError, match=message):
        check(config, "m")


def test_a_window_as_long_as_the_context_is_none():
    check(replace(SHAPES["mistral"], window=32), "m")


def test_refusals_leave_nothing_behind(folder, tmp_path):
    made = folder(QWEN)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=r"dtype must be one of f32, bf16, q8_0, not 'q8'. Did you mean 'q8_0'\?"):
        export(made, tmp_path / "new" / "a.gguf", "q8")
    (made / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="is damaged"):
        export(made, tmp_path / "a.gguf")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_that_is_there_is_left_alone(folder, tmp_path):
    (tmp_path / "a.gguf").write_text("mine")
    with pytest.raises(UserError, match=r"a.gguf exists already: choose another --out, or remove it first"):
        export(folder(QWEN), tmp_path / "a.gguf")
    assert (tmp_path / "a.gguf").read_text() == "mine"


def test_an_interruption_leaves_no_file(folder, tmp_path):
    def stop(done: int, of: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    made = folder(QWEN)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(KeyboardInterrupt):
        export(made, tmp_path / "a.gguf", done=stop)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_disk_that_takes_only_a_part(folder, tmp_path):
    """A limit on the size of files stands for it."""
    made, before = folder(QWEN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(UserError, match=r"cannot write .*a.gguf: the disk took only a part of it \(.* written\)"):
            export(made, tmp_path / "a.gguf")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_model_without_an_end_is_refused(folder, tmp_path):
    made = folder(replace(QWEN, vocab=257), learn("byte", []))
    assert has_tokenizer(made)
    config = (made / "tokenizer_config.json").read_text().replace('"eos_token"', '"unk_token"')
    (made / "tokenizer_config.json").write_text(config)
    with pytest.raises(UserError, match=r"no token ends a text, and llama.cpp wants one: name eos_token"):
        export(made, tmp_path / "a.gguf")


def test_without_the_package(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UserError, match=r"to write GGUF files: pip install 'wenlu\[gguf\]'"):
        export(folder(QWEN), tmp_path / "a.gguf")
