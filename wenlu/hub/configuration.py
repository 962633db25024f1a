"""config.json ↔ `ModelConfig`: what Transformers 4 and 5 write is read; what is written opens in both."""

from __future__ import annotations

import json
from dataclasses import fields as fields_of
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from wenlu.base.errors import UserError, did_you_mean
from wenlu.base.log import say
from wenlu.hub.heads import head_fields, head_json
from wenlu.hub.rope import rope_from_json, rope_to_json
from wenlu.models.config import ACTIVATIONS, ROTARY, WINDOWED, ModelConfig

ARCHITECTURES = {
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "t5": "T5ForConditionalGeneration",
    "lstm": "WenluLSTM",
}
MODEL_TYPES = {family: "wenlu_lstm" if family == "lstm" else family for family in (*ARCHITECTURES, "bert")}

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
}
WINDOW = {"window": "sliding_window", "full_layers": "max_window_layers"}
T5 = {
    "dim": "d_model",
    "layers": "num_layers",
    "decoder_layers": "num_decoder_layers",
    "heads": "num_heads",
    "head_dim": "d_kv",
    "ffn": "d_ff",
    "context": "n_positions",
    "dropout": "dropout_rate",
    "norm_eps": "layer_norm_epsilon",
    "tied": "tie_word_embeddings",
    "buckets": "relative_attention_num_buckets",
    "distance": "relative_attention_max_distance",
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
    "llama": COMMON | LLAMA | {"attention_bias": "attention_bias", "mlp_bias": "mlp_bias"},
    "mistral": COMMON | LLAMA | {"window": "sliding_window"},
    "qwen2": COMMON | LLAMA | WINDOW,
    "qwen3": COMMON | LLAMA | WINDOW | {"attention_bias": "attention_bias"},
    "t5": COMMON | T5,
    "lstm": COMMON | LSTM,
    "bert": COMMON | BERT,
}
"""Our field → their key, by family."""

ABSENT = {
    "gpt2": {"tied": True, "ffn": 0, "activation": "gelu_new", "dropout": 0.1, "norm_eps": 1e-5},
    "llama": {"tied": False, "kv_heads": 0, "head_dim": 0, "activation": "silu", "dropout": 0.0, "norm_eps": 1e-6},
    "mistral": {
        **{"tied": False, "kv_heads": 8, "head_dim": 0, "activation": "silu", "dropout": 0.0, "norm_eps": 1e-6},
        "window": 4096,
    },
    "qwen2": {
        **{"tied": False, "kv_heads": 0, "head_dim": 0, "activation": "silu", "dropout": 0.0, "norm_eps": 1e-6},
        **{"window": 4096, "full_layers": 28},
    },
    "qwen3": {
        **{"tied": False, "kv_heads": 0, "head_dim": 128, "activation": "silu", "dropout": 0.0, "norm_eps": 1e-6},
        **{"window": 4096, "full_layers": 28},
    },
    "t5": {"tied": True, "decoder_layers": 0, "dropout": 0.1, "norm_eps": 1e-6, "buckets": 32, "distance": 128}
    | {"head_dim": 64, "context": 512, "pad_id": 0, "eos_id": 1},
    "lstm": {},
    "bert": {"tied": True, "activation": "gelu", "dropout": 0.1, "norm_eps": 1e-12, "types": 2},
}
"""What Transformers takes where a key is absent."""

UNSUPPORTED = {
    "gpt2": {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False},
    "llama": {"pretraining_tp": 1},
    "mistral": {},
    "qwen2": {},
    "qwen3": {},
    "t5": {"is_encoder_decoder": True, "is_decoder": False},
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

OPTIONAL = ("window", "kv_heads", "pad_id", "eos_id")
"""Fields for which null is said, and does not mean what an absent key does."""

FULL, SLIDING = "full_attention", "sliding_attention"

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
        body |= head_json(config)
    elif config.family == "lstm":
        body |= {"about": "an LSTM in wenlu's own form: Transformers has no such family; open it with wenlu"}
    elif config.family == "t5":
        body |= _t5_to_json(config)
    else:
        body |= rope_to_json(config)
    if config.family in WINDOWED:
        body |= _window_to_json(config)
    return body


def _t5_to_json(config: ModelConfig) -> dict[str, Any]:
    named = "gelu" if config.gated and config.activation == "gelu_new" else config.activation
    return {
        "feed_forward_proj": f"gated-{named}" if config.gated else named,
        "is_encoder_decoder": True,
        "decoder_start_token_id": config.pad_id,
    }


def _window_to_json(config: ModelConfig) -> dict[str, Any]:
    if config.family == "mistral":
        return {"sliding_window": config.window or None}
    windowed = [bool(config.window) and layer >= config.full_layers for layer in range(config.layers)]
    return {
        "use_sliding_window": bool(config.window),
        "sliding_window": config.window or None,
        "max_window_layers": config.full_layers if config.window else config.layers,
        "layer_types": [SLIDING if here else FULL for here in windowed],
    }


def eos_token_id(config: ModelConfig) -> int | list[int] | None:
    """The tokens that end a text, in Transformers' form: one id, or a list of several."""
    return [config.eos_id, *config.other_eos_ids] if config.other_eos_ids else config.eos_id


def from_json(body: dict[str, Any], where: str) -> ModelConfig:
    """The configuration in a config.json; a feature that is not supported is refused by name."""
    if not isinstance(body, dict):
        raise UserError(f"{where} must hold a JSON object, not a {type(body).__name__}")
    families = {model_type: family for family, model_type in MODEL_TYPES.items()}
    model_type = body.get("model_type")
    if not isinstance(model_type, str) or model_type not in families:
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
    fields: dict[str, Any] = {}
    for ours, theirs in KEYS[family].items():
        value = body.get(theirs)
        if value is None and not (theirs in body and ours in OPTIONAL):
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
    if family == "gpt2":
        _say_dropout(body, where)
    if family in ROTARY:
        fields["rope_theta"], fields["rope"] = rope_from_json(body, where)
        _read_window(family, body, fields, where)
    elif family == "t5":
        _read_t5(body, fields, where)
    elif family == "bert":
        fields |= head_fields(body, where)
    return ModelConfig(family=family, **fields)


def _say_dropout(body: dict[str, Any], where: str) -> None:
    """Where training here would drop out otherwise than a gpt2's folder says: we have one rate, for all places."""
    rates = {name: body.get(name, 0.1) for name in ("resid_pdrop", "attn_pdrop", "embd_pdrop")}
    if len(set(rates.values())) > 1:
        said = ", ".join(f"{name} {rate}" for name, rate in rates.items())
        say(f"{where}: {said}; training would drop out {rates['resid_pdrop']} (resid_pdrop) everywhere")


def _read_window(family: str, body: dict[str, Any], fields: dict[str, Any], where: str) -> None:
    """Correct the fields of a sliding window; layers that have it otherwise than the family's rule are refused."""
    if family in ("qwen2", "qwen3") and not (body.get("use_sliding_window") and fields.get("window")):
        fields["window"] = fields["full_layers"] = 0
    types, window, full = body.get("layer_types"), fields.get("window"), fields.get("full_layers", 0)
    rule = [SLIDING if window and layer >= full else FULL for layer in range(fields["layers"])]
    if types is not None and not isinstance(types, list):
        raise UserError(f"{where}: layer_types must be a list, not {types!r}")
    if types and types != rule:
        if other := set(map(str, types)) - {SLIDING, FULL}:
            raise UserError(f"{where}: layer_types holds {min(other)!r}, which is not supported (only {FULL!r})")
        raise UserError(
            f"{where}: layer_types is not supported in this order (only as use_sliding_window, sliding_window and "
            f"max_window_layers say: {rule.count(FULL)} times {FULL!r}, then {rule.count(SLIDING)} times {SLIDING!r})"
        )


def _read_t5(body: dict[str, Any], fields: dict[str, Any], where: str) -> None:
    """The fields that t5 has under names of its own."""
    named = body.get("feed_forward_proj", "relu")
    gate, _, activation = str(named).rpartition("-")
    activation = SAME_ACTIVATION.get(activation, activation)
    fields["gated"] = gate == "gated"
    fields["activation"] = "gelu_new" if named == "gated-gelu" else activation
    if gate not in ("", "gated") or activation not in ACTIVATIONS:
        raise UserError(f"{where}: feed_forward_proj = {named!r} is not supported (only relu, gated-gelu and the like)")
    start = body.get("decoder_start_token_id")
    if start is not None and start != fields.get("pad_id"):
        raise UserError(
            f"{where}: decoder_start_token_id = {start!r} is not supported (only pad_token_id, {fields.get('pad_id')})"
        )
    # Transformers 5 ties all heads that a folder does not hold, and says by this key whether logits are scaled: a tied
    # head without scaling is the same as one of its own (`folder.load` fills it in).
    scaled = body.get("scale_decoder_outputs")
    if scaled and not fields["tied"]:
        raise UserError(f"{where}: scale_decoder_outputs = True is not supported where tie_word_embeddings is false")
    fields["tied"] = fields["tied"] and scaled is not False


def _typed(ours: str, value: Any, where: str) -> Any:
    """The value, where it is of its field's type (a whole number will do for a float)."""
    kinds = TYPES[ours]
    if type(value) in kinds or (float in kinds and type(value) is int):
        return value
    raise UserError(f"{where} must be of type {kinds[0].__name__}, not {value!r}")


def read_config(folder: Path, body: Any = None) -> ModelConfig:
    """The configuration of a model folder, of whose config.json the `body` may have been read already.

    What generation_config.json says beyond it of the tokens that end a text is added.
    """
    config = from_json(read_body(folder) if body is None else body, str(folder / "config.json"))
    path = folder / "generation_config.json"
    if config.family == "bert" or not path.is_file():
        return config
    try:
        ends = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
    except (ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
    known = [id for id in (config.eos_id, *config.other_eos_ids) if id is not None]
    first, *others = [*dict.fromkeys(known + [_typed("eos_id", id, f"{path}: eos_token_id") for id in ends]), None]
    return replace(config, eos_id=first, other_eos_ids=tuple(id for id in others if id is not None))


def read_body(folder: Path) -> Any:
    """What config.json holds."""
    path = folder / "config.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder} holds no config.json: it is not a model's folder") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from None
