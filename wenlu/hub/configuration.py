"""config.json ↔ `ModelConfig`: what Transformers 4 and 5 write is read; what is written opens in both."""

from __future__ import annotations

import json
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Any, get_args

from wenlu.base.errors import UserError, did_you_mean
from wenlu.hub import bert
from wenlu.models.config import ACTIVATIONS, ModelConfig

ARCHITECTURES = {
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "lstm": "WenluLSTM",
}
MODEL_TYPES = {"gpt2": "gpt2", "llama": "llama", "qwen3": "qwen3", "lstm": "wenlu_lstm", "bert": "bert"}

COMMON = {"vocab": "vocab_size", "bos_id": "bos_token_id", "eos_id": "eos_token_id", "pad_id": "pad_token_id"}
GPT2 = {
    "dim": "n_embd",
    "layers": "n_layer",
    "heads": "n_head",
    "ffn": "n_inner",
    "context": "n_positions",
    "activation": "activation_function",
    "dropout": "resid_pdrop",
    "norm_eps": "layer_norm_epsilon",
    "tied": "tie_word_embeddings",
}
LLAMA = {
    "dim": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "ffn": "intermediate_size",
    "context": "max_position_embeddings",
    "activation": "hidden_act",
    "dropout": "attention_dropout",
    "norm_eps": "rms_norm_eps",
    "tied": "tie_word_embeddings",
    "attention_bias": "attention_bias",
}
BERT = {
    "dim": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "ffn": "intermediate_size",
    "context": "max_position_embeddings",
    "activation": "hidden_act",
    "dropout": "hidden_dropout_prob",
    "norm_eps": "layer_norm_eps",
    "tied": "tie_word_embeddings",
    "types": "type_vocab_size",
}
LSTM = {name: name for name in ("dim", "layers", "context", "dropout", "tied")}
KEYS = {
    "gpt2": COMMON | GPT2,
    "llama": COMMON | LLAMA | {"mlp_bias": "mlp_bias"},
    "qwen3": COMMON | LLAMA,
    "lstm": COMMON | LSTM,
    "bert": COMMON | BERT,
}
"""Our field → their key, by family."""

ABSENT = {
    "gpt2": {"tied": True, "ffn": 0, "activation": "gelu_new", "dropout": 0.1, "norm_eps": 1e-5},
    "llama": {"tied": False, "kv_heads": 0, "head_dim": 0, "activation": "silu", "dropout": 0.0, "norm_eps": 1e-6},
    "qwen3": {"tied": False, "kv_heads": 0, "head_dim": 128, "activation": "silu", "dropout": 0.0, "norm_eps": 1e-6},
    "lstm": {},
    "bert": {"tied": True, "activation": "gelu", "dropout": 0.1, "norm_eps": 1e-12, "types": 2},
}
"""What Transformers takes where a key is absent."""

UNSUPPORTED = {
    "gpt2": {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False},
    "llama": {"pretraining_tp": 1},
    "qwen3": {"use_sliding_window": False},
    "lstm": {},
    "bert": {
        "position_embedding_type": "absolute",
        "is_decoder": False,
        "add_cross_attention": False,
        "chunk_size_feed_forward": 0,
        "pruned_heads": {},
    },
}
"""Features that are read only at their ordinary value."""

REQUIRED = ("vocab", "dim", "layers", "heads", "ffn", "context")
"""Fields without which a shape would be a guess, unless `ABSENT` has them."""

SAME_ACTIVATION = {"swish": "silu", "gelu_pytorch_tanh": "gelu_new"}
"""Transformers' second names for the same formula."""

TYPES = {field.name: get_args(field.type) or (field.type,) for field in fields_of(ModelConfig)}


def to_json(config: ModelConfig) -> dict[str, Any]:
    """The body of config.json."""
    config = config.resolved()
    body = {"architectures": [ARCHITECTURES.get(config.family)], "model_type": MODEL_TYPES[config.family]}
    body |= {theirs: getattr(config, ours) for ours, theirs in KEYS[config.family].items()}
    body["eos_token_id"] = eos_token_id(config)
    body |= {"dtype": "float32", "torch_dtype": "float32", "use_cache": True}
    if config.family == "gpt2":
        body |= {"n_ctx": config.context, "attn_pdrop": config.dropout, "embd_pdrop": config.dropout}
    elif config.family == "bert":
        body |= bert.head_json(config)
    elif config.family == "lstm":
        body |= {"about": "an LSTM in wenlu's own form: Transformers has no such family; open it with wenlu"}
    else:
        body |= {
            "rope_theta": config.rope_theta,
            "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        }
    return body


def eos_token_id(config: ModelConfig) -> int | list[int] | None:
    """The tokens that end a text, in Transformers' form: one id, or a list of several."""
    return [config.eos_id, *config.other_eos_ids] if config.other_eos_ids else config.eos_id


def from_json(body: dict[str, Any], where: str) -> ModelConfig:
    """The configuration in a config.json; a feature that is not supported is refused by name."""
    if not isinstance(body, dict):
        raise UserError(f"{where} must hold a JSON object, not a {type(body).__name__}")
    families = {model_type: family for family, model_type in MODEL_TYPES.items()}
    model_type = body.get("model_type")
    if model_type not in families:
        raise UserError(
            f"{where}: model_type {model_type!r} is not supported.{did_you_mean(str(model_type), families)} "
            f"Supported: {', '.join(families)}"
        )
    family = families[model_type]
    for key, ordinary in UNSUPPORTED[family].items():
        if body.get(key, ordinary) != ordinary:
            raise UserError(f"{where}: {key} = {body[key]!r} is not supported (only {ordinary!r})")
    if body.get("quantization_config"):
        raise UserError(f"{where}: quantization_config is not supported: take the unquantised weights")
    if other := set(body.get("layer_types") or ()) - {"full_attention"}:
        raise UserError(f"{where}: layer_types holds {min(other)!r}, which is not supported (only 'full_attention')")
    fields: dict[str, Any] = {}
    for ours, theirs in KEYS[family].items():
        value = body.get(theirs)
        if value is None:
            if ours in REQUIRED and ours not in ABSENT[family]:
                raise UserError(f"{where} lacks {theirs}")
            value = ABSENT[family].get(ours)
        if ours == "eos_id" and isinstance(value, list) and value:
            value, *others = value
            fields["other_eos_ids"] = tuple(_typed("eos_id", other, f"{where}: {theirs}") for other in others)
        if value is not None:
            fields[ours] = _typed(ours, value, f"{where}: {theirs}")
    if "activation" in fields:
        named = fields["activation"]
        fields["activation"] = SAME_ACTIVATION.get(named, named)
        if fields["activation"] not in ACTIVATIONS:
            known = ", ".join([*ACTIVATIONS, *SAME_ACTIVATION])
            raise UserError(f"{where}: {KEYS[family]['activation']} = {named!r} is not supported (only {known})")
    if family == "bert":
        fields |= bert.head_fields(body, where)
    if family in ("llama", "qwen3"):
        fields["rope_theta"] = _rope_theta(body, where)
    return ModelConfig(family=family, **fields)


def _typed(ours: str, value: Any, where: str) -> Any:
    """The value, where it is of its field's type (a whole number will do for a float)."""
    kinds = TYPES[ours]
    if type(value) in kinds or (float in kinds and type(value) is int):
        return value
    raise UserError(f"{where} must be of type {kinds[0].__name__}, not {value!r}")


def _rope_theta(body: dict[str, Any], where: str) -> float:
    """The base of the rotary angles, from the forms of Transformers 4 (rope_scaling) and 5 (rope_parameters)."""
    theta, partial = body.get("rope_theta"), body.get("partial_rotary_factor")
    for key in ("rope_scaling", "rope_parameters"):
        rope = body.get(key) or {}
        if not isinstance(rope, dict) or any(isinstance(value, dict) for value in rope.values()):
            raise UserError(f"{where}: {key} of this form is not supported (only one set for all layers)")
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            raise UserError(f"{where}: rotary scaling of type {kind!r} is not supported (only 'default')")
        theta, partial = rope.get("rope_theta", theta), rope.get("partial_rotary_factor", partial)
    if partial not in (None, 1):
        raise UserError(f"{where}: partial_rotary_factor is not supported (only 1)")
    return float(_typed("rope_theta", 10000.0 if theta is None else theta, f"{where}: rope_theta"))


def read_config(folder: Path) -> ModelConfig:
    """The configuration of a model folder."""
    path = folder / "config.json"
    try:
        return from_json(json.loads(path.read_text(encoding="utf-8")), str(path))
    except FileNotFoundError:
        raise UserError(f"{folder} holds no config.json: it is not a model's folder") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from None
