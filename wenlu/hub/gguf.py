"""A model's folder as one GGUF file, which llama.cpp and what is built on it open: weights, shape, tokenizer.

Names and meanings are those of llama.cpp's own converter and loader; the file is written by its package `gguf`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wenlu.base.errors import UserError, did_you_mean
from wenlu.base.files import make_folder, replacing, writing
from wenlu.hub.configuration import read_config
from wenlu.hub.folder import has_tokenizer, load, locate, their_tensors
from wenlu.hub.gguf_tokenizer import UNKNOWN, Vocabulary, describe
from wenlu.hub.names import parameter_names
from wenlu.models.config import ModelConfig
from wenlu.models.position import scaled
from wenlu.tokenization.tokenizer import Tokenizer

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

DTYPES = {"f32": 0, "bf16": 32, "q8_0": 7}
"""Number format of the matrices → llama.cpp's number for files of that kind."""
Q8_0_BLOCK = 32
"""Numbers of a row that share a scale in Q8_0."""
ARCHITECTURES = {"gpt2": "gpt2", "llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""Our family → llama.cpp's architecture."""
OUTER = {
    "gpt2": {"transformer.wte": "token_embd", "transformer.wpe": "position_embd", "transformer.ln_f": "output_norm"},
    "llama": {"model.embed_tokens": "token_embd", "model.norm": "output_norm"},
}
GPT2_BLOCK = {
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
    "ln_1": "attn_norm",
    "ln_2": "ffn_norm",
}
LLAMA_BLOCK = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
TEMPLATE = "tokenizer.chat_template"
YARN_TURNS = {"low": 1.0, "high": 32.0}
"""What llama.cpp takes for these, whatever a file says."""


@dataclass(frozen=True)
class Written:
    """What was written, and what of the folder the file does not say."""

    file: Path
    bytes: int
    architecture: str
    tokenizer: str | None
    """llama.cpp's name of its kind and how it splits words; None where the folder has no tokenizer."""
    tensors: int
    kept_f32: tuple[str, ...]
    """Matrices that stay in f32, since their rows are no multiple of 32 numbers."""
    notes: tuple[str, ...]


def names(config: ModelConfig) -> dict[str, str]:
    """Transformers' name → GGUF's, of every tensor; no two are the same."""
    gpt2 = config.family == "gpt2"
    table = OUTER["gpt2" if gpt2 else "llama"] | {"lm_head": "output"}
    block, prefix = (GPT2_BLOCK, "transformer.h") if gpt2 else (LLAMA_BLOCK, "model.layers")
    for layer in range(config.layers):
        table |= {f"{prefix}.{layer}.{theirs}": f"blk.{layer}.{gguf}" for theirs, gguf in block.items()}
    result = {}
    for name in parameter_names(config):
        for theirs in name.theirs:
            stem, kind = theirs.rsplit(".", 1)
            result[theirs] = f"{table[stem]}.{kind}"
    return result


def check(config: ModelConfig, where: str) -> None:
    """`UserError` for a model that llama.cpp has no form for, by name."""
    config = config.resolved()
    if config.family not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise UserError(f"{where} is of the family {config.family}, which cannot be exported: {known} can")
    wanted = "gelu_new" if config.family == "gpt2" else "silu"
    if config.activation != wanted:
        raise UserError(
            f"{where}: llama.cpp's {ARCHITECTURES[config.family]} computes {wanted}, not {config.activation}"
        )
    if config.window and config.window < config.context:
        raise UserError(
            f"{where}: llama.cpp's {ARCHITECTURES[config.family]} has no sliding window, and this model's "
            f"({config.window}) is shorter than its context ({config.context})"
        )
    if config.attention_bias and config.family in ("qwen2", "qwen3"):
        raise UserError(f"{where}: llama.cpp's {config.family} has no place for attention_bias")
    if config.family == "qwen2" and config.head_dim * config.heads != config.dim:
        raise UserError(
            f"{where}: llama.cpp's qwen2 wants heads of {config.dim // config.heads}, not {config.head_dim}"
        )
    _check_rope(config, where)


def _check_rope(config: ModelConfig, where: str) -> None:
    rope = config.rope
    if rope.kind == "llama3" and ARCHITECTURES[config.family] != "llama":
        raise UserError(f"{where}: llama.cpp's {config.family} cannot scale positions as llama3 does")
    if rope.kind == "yarn":
        asked = {"low": rope.low, "high": rope.high}
        if asked != YARN_TURNS or not rope.whole_pairs:
            raise UserError(
                f"{where}: of yarn llama.cpp knows beta_slow 1 and beta_fast 32 with truncate only, "
                f"not {rope.low:g} and {rope.high:g}{'' if rope.whole_pairs else ' without truncate'}"
            )


def model_facts(config: ModelConfig) -> dict[str, Any]:
    """The shape of a model under GGUF's keys."""
    config = config.resolved()
    arch, gpt2 = ARCHITECTURES[config.family], config.family == "gpt2"
    facts: dict[str, Any] = {
        "vocab_size": config.vocab,
        "context_length": config.context,
        "embedding_length": config.dim,
        "block_count": config.layers,
        "feed_forward_length": config.ffn,
        "attention.head_count": config.heads,
        f"attention.layer_norm_{'' if gpt2 else 'rms_'}epsilon": config.norm_eps,
    }
    if not gpt2:
        facts |= {
            "attention.head_count_kv": config.kv_heads,
            "attention.key_length": config.head_dim,
            "attention.value_length": config.head_dim,
            "rope.dimension_count": config.head_dim,
            "rope.freq_base": config.rope_theta,
        }
    rope = config.rope
    if rope.kind in ("linear", "yarn"):
        facts |= {"rope.scaling.type": rope.kind, "rope.scaling.factor": rope.factor}
    if rope.kind == "yarn":
        # llama.cpp multiplies by the paper's factor itself, and by this besides.
        own = rope.attention / (0.1 * math.log(rope.factor) + 1)
        facts |= {"rope.scaling.original_context_length": rope.context, "rope.scaling.attn_factor": own}
    return {f"{arch}.{key}": value for key, value in facts.items()}


def tokenizer_facts(tokenizer: Tokenizer, vocabulary: Vocabulary, config: ModelConfig, where: str) -> dict[str, Any]:
    """The tokenizer under GGUF's keys. `UserError` where no token ends a text: llama.cpp would take the eleventh."""
    begin = config.bos_id if tokenizer.bos_id is None else tokenizer.bos_id
    ends = [id for id in (config.eos_id, tokenizer.eos_id, *config.other_eos_ids) if id is not None]
    end, *others = [*dict.fromkeys(ends), None]
    if end is None:
        raise UserError(
            f"{where}: no token ends a text, and llama.cpp wants one: name eos_token in tokenizer_config.json"
        )
    facts: dict[str, Any] = {
        "model": vocabulary.model,
        "pre": vocabulary.pre,
        "tokens": list(vocabulary.tokens),
        "token_type": list(vocabulary.types),
        "scores": list(vocabulary.scores),
        "merges": list(vocabulary.merges),
        "bos_token_id": end if begin is None else begin,
        "eos_token_id": end,
        "add_bos_token": tokenizer.begins and begin is not None,
        "add_eos_token": False,
    }
    facts |= {f"{role}_token_id": id for role, id in zip(("eot", "eom"), [id for id in others if id is not None])}
    pad = config.pad_id if tokenizer.pad_id is None else tokenizer.pad_id
    unknown = [id for id, kind in enumerate(vocabulary.types) if kind == UNKNOWN]
    optional = {"padding_token_id": pad, "unknown_token_id": unknown[0] if unknown else None}
    facts |= {key: id for key, id in optional.items() if id is not None}
    if vocabulary.model == "llama":
        facts["add_space_prefix"] = vocabulary.space_first
    return {f"tokenizer.ggml.{key}": value for key, value in facts.items()}


def export(
    reference: Path | str,
    file: Path | str,
    dtype: str = "f32",
    done: Callable[[int, int], None] = lambda tensors, of: None,
) -> Written:
    """Write the model of a folder (or hub id) to `file`, which must not be there yet; it appears whole or not at all.

    `done` is told of every tensor. Matrices are in `dtype` (f32, bf16, q8_0), vectors and learned positions in f32.
    Raises UserError, before anything is fetched, for a dtype that there is not, and where `gguf` is not installed;
    before the weights are read, for what llama.cpp has no form for.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}.{did_you_mean(dtype, DTYPES)}")
    file = Path(file)
    if file.exists():
        raise UserError(f"{file} exists already: choose another --out, or remove it first")
    try:
        import gguf
    except ImportError:
        raise UserError("to write GGUF files: pip install 'wenlu[gguf]'") from None
    folder = locate(reference)
    config = read_config(folder)
    check(config, str(folder))
    facts, kind, notes = _facts(folder, config, dtype)
    template = facts.pop(TEMPLATE, None)
    make_folder(file.parent)
    tensors = _converted(folder, config)
    kept = tuple(name for name, t in tensors.items() if _matrix(name, t) and _format(name, t, dtype) != dtype)
    with writing(file), replacing(file) as temporary:
        writer = gguf.GGUFWriter(temporary, ARCHITECTURES[config.family])
        try:
            for key, value in facts.items():
                _add(writer, key, value)
            if template:
                writer.add_chat_template(template)
            _write(writer, tensors, dtype, done)
        except OSError as error:
            if error.errno is not None:
                raise
            # numpy's own words, where a file took only a part of an array
            raise UserError(
                f"cannot write {file}: the disk took only a part of it ({error}): free some space, or write elsewhere"
            ) from None
        finally:
            writer.close()
    return Written(file, file.stat().st_size, ARCHITECTURES[config.family], kind, len(tensors), kept, notes)


def _facts(folder: Path, config: ModelConfig, dtype: str) -> tuple[dict[str, Any], str | None, tuple[str, ...]]:
    """All that the file says beside weights and chat template; the tokenizer's kind, and what is to be noted."""
    about = {"general.name": folder.resolve().name, "general.file_type": DTYPES[dtype]}
    about |= {"general.quantization_version": 2, **model_facts(config)}
    if not has_tokenizer(folder):
        return about | {"tokenizer.ggml.model": "none"}, None, ("the folder has no tokenizer, so the file has none",)
    tokenizer = Tokenizer.load(folder)
    vocabulary = describe(tokenizer, config, str(folder))
    facts = tokenizer_facts(tokenizer, vocabulary, config, str(folder))
    ends = {config.eos_id, tokenizer.eos_id, *config.other_eos_ids} - {None}
    said = {facts.get(f"tokenizer.ggml.{role}_token_id") for role in ("eos", "eot", "eom")}
    lost = [vocabulary.tokens[id] for id in sorted(ends - said)]
    notes = [
        *vocabulary.notes,
        *([f"GGUF names three tokens that end a text, so not {', '.join(lost)}"] if lost else []),
    ]
    facts |= {TEMPLATE: tokenizer.chat_template}
    return about | facts, f"{vocabulary.model}, {vocabulary.pre}", tuple(notes)


def _converted(folder: Path, config: ModelConfig) -> dict[str, Tensor]:
    """The weights under GGUF's names, in its orientation (outputs first) and its order of rows."""
    model = load(folder)[0]
    table = names(config)
    transposed = {theirs for name in parameter_names(config) if name.transposed for theirs in name.theirs}
    shape = config.resolved()
    tensors = {}
    for theirs, tensor in their_tensors(model).items():
        name = table[theirs]
        tensor = tensor.T if theirs in transposed and tensor.ndim == 2 else tensor
        if ARCHITECTURES[config.family] == "llama" and (".attn_q." in name or ".attn_k." in name):
            tensor = interleaved(tensor, shape.heads if ".attn_q." in name else shape.kv_heads)
        tensors[name] = tensor
    if config.rope.kind == "llama3":
        tensors["rope_freqs.weight"] = rope_factors(config)
    return tensors


def interleaved(tensor: Tensor, heads: int) -> Tensor:
    """Rows of queries or keys as llama.cpp's llama turns them: pairs 2i, 2i+1 of a head, not i, i + head_dim / 2."""
    halves = tensor.reshape(heads, 2, len(tensor) // heads // 2, *tensor.shape[1:])
    return halves.swapaxes(1, 2).reshape(tensor.shape)


def rope_factors(config: ModelConfig) -> Tensor:
    """By how much each pair's angle is divided, head_dim / 2 numbers: llama.cpp's form of llama3's scaling."""
    import torch

    width = config.resolved().head_dim
    frequencies = 1.0 / config.rope_theta ** (torch.arange(0, width, 2, dtype=torch.float32) / width)
    return frequencies / scaled(frequencies, config.rope_theta, config.rope)


def _matrix(name: str, tensor: Tensor) -> bool:
    return tensor.ndim == 2 and not name.startswith("position_embd")


def _format(name: str, tensor: Tensor, dtype: str) -> str:
    """The number format that one tensor is written in."""
    whole = dtype != "q8_0" or tensor.shape[-1] % Q8_0_BLOCK == 0
    return dtype if _matrix(name, tensor) and whole else "f32"


def _add(writer: Any, key: str, value: Any) -> None:
    """A fact under its key; the kind of number follows from Python's."""
    if isinstance(value, list):
        writer.add_array(key, value)
        return
    add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    add[type(value)](key, value)


def _write(writer: Any, tensors: dict[str, Tensor], dtype: str, done: Callable[[int, int], None]) -> None:
    """Names and shapes, then one tensor after another, so that one at a time is held in its new format."""
    import numpy
    from gguf import GGMLQuantizationType
    from gguf.quants import quant_shape_to_byte_shape, quantize

    kinds = {name: GGMLQuantizationType[_format(name, tensor, dtype).upper()] for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        if kinds[name] == GGMLQuantizationType.F32:
            writer.add_tensor_info(name, tuple(tensor.shape), numpy.dtype("float32"), 4 * tensor.numel())
        else:
            shape = quant_shape_to_byte_shape(tuple(tensor.shape), kinds[name])
            writer.add_tensor_info(name, shape, numpy.dtype("uint8"), math.prod(shape), raw_dtype=kinds[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for number, (name, tensor) in enumerate(tensors.items(), 1):
        array: np.ndarray = tensor.detach().numpy()
        writer.write_tensor_data(quantize(numpy.ascontiguousarray(array), kinds[name]))
        done(number, len(tensors))
