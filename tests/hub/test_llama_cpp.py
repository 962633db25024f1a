"""Exported files in llama.cpp itself: the same ids of texts, the same logits, the same greedy text. Wants `peer`."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from wenlu.hub.folder import load, save
from wenlu.hub.gguf import export
from wenlu.inference.generator import Generator, Settings
from wenlu.models.build import build
from wenlu.models.config import ModelConfig, RopeScaling
from wenlu.tokenization.tokenizer import Tokenizer

from gguf_shapes import LLAMA3, QWEN, SHAPES, golden
from tokenizer_forms import FORMS, TEXT, TEXTS, sentencepiece

pytestmark = pytest.mark.peer

MODELS = {
    **SHAPES,
    "untied gpt2": replace(SHAPES["gpt2"], tied=False),
    "wide heads": replace(SHAPES["llama"], head_dim=32),
    "linear": replace(SHAPES["llama"], rope=RopeScaling("linear", 4.0)),
    "llama3": replace(SHAPES["mistral"], rope=LLAMA3),
    "yarn": replace(QWEN, rope=RopeScaling("yarn", 4.0, 16, 1.0, 32.0, attention=1.3)),
    "yarn of a llama": replace(SHAPES["llama"], rope=RopeScaling("yarn", 4.0, 16, 1.0, 32.0)),
}


def opened(file: Path, context: int = 64):
    """A file in llama.cpp, one thread, keys and values in f32."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="no llama.cpp: pip install -e '.[peer]'")
    exact = {"type_k": llama_cpp.GGML_TYPE_F32, "type_v": llama_cpp.GGML_TYPE_F32, "flash_attn": False}
    return llama_cpp.Llama(str(file), n_ctx=context, n_threads=1, logits_all=True, verbose=False, **exact)


def logits(llama, ids: list[int]) -> np.ndarray:
    llama.reset()
    llama.eval(ids)
    return np.array(llama.scores[: len(ids)])


@pytest.mark.parametrize("dtype", ["f32", "bf16", "q8_0"])
@pytest.mark.parametrize("name", MODELS)
def test_logits(name, dtype, tmp_path, shaken):
    """The root mean square of what differs, to that of the logits.

    gpt2's is greater in f32: llama.cpp looks its gelu up in a table of half precision. In bf16 and q8_0 it rounds
    activations too, and errors grow through the layers of random weights.
    """
    made = tmp_path / "m"
    save(shaken(build(MODELS[name], seed=1)), None, made)
    ids = torch.randint(0, 70, (30,), generator=torch.Generator().manual_seed(3)).tolist()
    with torch.inference_mode():
        wanted = load(made)[0](torch.tensor([ids]))[0].numpy()
    found = logits(opened(export(made, tmp_path / "a.gguf", dtype).file), ids)
    bound = {"f32": 1e-3 if "gpt2" in name else 1e-5, "bf16": 0.02, "q8_0": 0.06}[dtype]
    assert np.linalg.norm(found - wanted) < bound * np.linalg.norm(wanted)


def vocabulary(tokenizer: Tokenizer, tmp_path: Path):
    """A tokenizer in llama.cpp."""
    shape = {"dim": 32, "layers": 1, "heads": 1, "context": 16, "vocab": tokenizer.vocab}
    save(build(ModelConfig(family="llama", **shape, eos_id=tokenizer.eos_id), 0), tokenizer, tmp_path / "m")
    return opened(export(tmp_path / "m", tmp_path / "m.gguf").file)


@pytest.mark.parametrize("form", FORMS)
def test_ids_of_texts(form, tmp_path):
    tokenizer = FORMS[form]()
    llama = vocabulary(tokenizer, tmp_path)
    for text in TEXTS:
        wanted = tokenizer.encode(text)
        assert llama.tokenize(text.encode(), add_bos=False, special=False) == wanted, text
        begun = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
        assert llama.tokenize(text.encode(), add_bos=True, special=False) == begun + wanted
    text = llama.detokenize(tokenizer.encode(TEXT)).decode()
    assert text.removeprefix(" " * (form == "sentencepiece")) == TEXT
    assert llama.token_eos() == tokenizer.eos_id


def test_a_special_token_spelled_out_is_read_as_it(tmp_path):
    """What the export tells of such a tokenizer."""
    tokenizer = sentencepiece(pieces=("</", "s>"))
    llama = vocabulary(tokenizer, tmp_path)
    assert tokenizer.eos_id in llama.tokenize(b"a</s>", add_bos=False, special=False)
    assert tokenizer.eos_id not in tokenizer.encode("a</s>")


@pytest.mark.data
def test_golden_ids(data_dir, tmp_path):
    llama = vocabulary(Tokenizer.load(data_dir / "tokenizers" / "gpt2"), tmp_path)
    for text, ids in zip(*golden(data_dir, "gpt-2"), strict=True):
        assert llama.tokenize(text.encode(), add_bos=False, special=False) == ids


@pytest.mark.data
@pytest.mark.parametrize("name", ["stories260K", "tokenizers/minimind_6400"])
def test_ids_of_real_text(name, data_dir, tmp_path):
    tokenizer = Tokenizer.load(data_dir / name)
    llama = vocabulary(tokenizer, tmp_path)
    text = (data_dir / "english" / "tinyshakespeare.txt").read_text()[:20_000] + TEXT
    assert llama.tokenize(text.encode(), add_bos=False, special=False) == tokenizer.encode(text)


@pytest.mark.data
def test_the_greedy_text_of_a_real_model(data_dir, tmp_path):
    made = data_dir / "stories260K"
    llama = opened(export(made, tmp_path / "a.gguf").file, 512)
    told = llama.create_completion("Once upon a time", max_tokens=100, temperature=0.0)["choices"][0]["text"]
    (result,) = Generator(*load(made)).generate("Once upon a time", Settings(max_tokens=100, temperature=0))
    assert told == result.text and len(told) > 200
