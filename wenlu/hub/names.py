"""Parameter names: ours ↔ Transformers', tables read both ways.

Three things differ besides the names: we keep query, key and value in one matrix, and gate and up; GPT-2's
projections are stored transposed (its `Conv1D`).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, cat, equal

from wenlu.base.errors import UserError
from wenlu.models.config import ModelConfig


@dataclass(frozen=True)
class Name:
    """One parameter of ours, and the tensors elsewhere that it is made of, stacked along rows, perhaps transposed."""

    ours: str
    theirs: tuple[str, ...]
    transposed: bool = False


def _llama_block(config: ModelConfig, layer: int) -> list[Name]:
    ours, theirs = f"blocks.{layer}", f"model.layers.{layer}"
    projections = tuple(f"{theirs}.self_attn.{x}_proj" for x in "qkv")
    gate_up = (f"{theirs}.mlp.gate_proj", f"{theirs}.mlp.up_proj")
    linear = [
        (f"{ours}.attention.qkv", projections, config.attention_bias or config.family == "qwen2"),
        (f"{ours}.attention.out", (f"{theirs}.self_attn.o_proj",), config.attention_bias),
        (f"{ours}.feed_forward.up", gate_up, config.mlp_bias),
        (f"{ours}.feed_forward.down", (f"{theirs}.mlp.down_proj",), config.mlp_bias),
    ]
    names = [Name(f"{o}.weight", tuple(f"{t}.weight" for t in ts)) for o, ts, _ in linear]
    names += [Name(f"{o}.bias", tuple(f"{t}.bias" for t in ts)) for o, ts, biased in linear if biased]
    names += [
        Name(f"{ours}.norm_1.weight", (f"{theirs}.input_layernorm.weight",)),
        Name(f"{ours}.norm_2.weight", (f"{theirs}.post_attention_layernorm.weight",)),
    ]
    if config.family == "qwen3":
        names += [Name(f"{ours}.attention.{x}_norm", (f"{theirs}.self_attn.{x}_norm.weight",)) for x in "qk"]
    return names


def _gpt2_block(config: ModelConfig, layer: int) -> list[Name]:
    ours, theirs = f"blocks.{layer}", f"transformer.h.{layer}"
    linear = [("attention.qkv", "attn.c_attn"), ("attention.out", "attn.c_proj")]
    linear += [("feed_forward.up", "mlp.c_fc"), ("feed_forward.down", "mlp.c_proj")]
    names = [Name(f"{ours}.{o}.weight", (f"{theirs}.{t}.weight",), transposed=True) for o, t in linear]
    names += [Name(f"{ours}.{o}.bias", (f"{theirs}.{t}.bias",)) for o, t in linear]
    norms = [("norm_1", "ln_1"), ("norm_2", "ln_2")]
    return names + [Name(f"{ours}.{o}.{x}", (f"{theirs}.{t}.{x}",)) for o, t in norms for x in ("weight", "bias")]


def _t5_block(config: ModelConfig, stack: str, layer: int) -> list[Name]:
    ours, theirs = f"{stack}.blocks.{layer}", f"{stack}.block.{layer}.layer"
    attention, cross = f"{theirs}.0.SelfAttention", f"{theirs}.1.EncDecAttention"
    last = 2 if stack == "decoder" else 1
    up = ("wi_0", "wi_1") if config.gated else ("wi",)
    names = [
        Name(f"{ours}.attention.qkv.weight", tuple(f"{attention}.{x}.weight" for x in "qkv")),
        Name(f"{ours}.attention.out.weight", (f"{attention}.o.weight",)),
        Name(f"{ours}.norm_1.weight", (f"{theirs}.0.layer_norm.weight",)),
        Name(f"{ours}.feed_forward.up.weight", tuple(f"{theirs}.{last}.DenseReluDense.{x}.weight" for x in up)),
        Name(f"{ours}.feed_forward.down.weight", (f"{theirs}.{last}.DenseReluDense.wo.weight",)),
        Name(f"{ours}.norm_2.weight", (f"{theirs}.{last}.layer_norm.weight",)),
    ]
    if stack == "decoder":
        names += [
            Name(f"{ours}.cross.q.weight", (f"{cross}.q.weight",)),
            Name(f"{ours}.cross.kv.weight", tuple(f"{cross}.{x}.weight" for x in "kv")),
            Name(f"{ours}.cross.out.weight", (f"{cross}.o.weight",)),
            Name(f"{ours}.norm_cross.weight", (f"{theirs}.1.layer_norm.weight",)),
        ]
    return names


def _t5(config: ModelConfig) -> list[Name]:
    table = [Name("embed.weight", ("shared.weight",))]
    for stack, layers in (("encoder", config.layers), ("decoder", config.decoder_layers or config.layers)):
        biases = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        table += [Name(f"{stack}.relative.embed.weight", (biases,))]
        table += [name for layer in range(layers) for name in _t5_block(config, stack, layer)]
        table += [Name(f"{stack}.norm.weight", (f"{stack}.final_layer_norm.weight",))]
    return table


def _bert_block(encoder: str, layer: int) -> list[Name]:
    ours, theirs = f"blocks.{layer}", f"{encoder}encoder.layer.{layer}"
    linear = [
        ("attention.qkv", tuple(f"attention.self.{x}" for x in ("query", "key", "value"))),
        ("attention.out", ("attention.output.dense",)),
        ("norm_1", ("attention.output.LayerNorm",)),
        ("feed_forward.up", ("intermediate.dense",)),
        ("feed_forward.down", ("output.dense",)),
        ("norm_2", ("output.LayerNorm",)),
    ]
    return [
        Name(f"{ours}.{o}.{x}", tuple(f"{theirs}.{t}.{x}" for t in ts)) for o, ts in linear for x in ("weight", "bias")
    ]


def _bert(config: ModelConfig) -> list[Name]:
    encoder = "" if config.head in ("pool", "none") else "bert."
    embeddings = [("embed", "word"), ("position_embed", "position"), ("type_embed", "token_type")]
    table = [Name(f"{o}.weight", (f"{encoder}embeddings.{t}_embeddings.weight",)) for o, t in embeddings]
    linear = [("embed_norm", f"{encoder}embeddings.LayerNorm")]
    linear += {
        "tokens": [
            ("transform", "cls.predictions.transform.dense"),
            ("transform_norm", "cls.predictions.transform.LayerNorm"),
        ],
        "classify": [("pooler", "bert.pooler.dense"), ("label_head", "classifier")],
        "tag": [("label_head", "classifier")],
        "span": [("label_head", "qa_outputs")],
        "pool": [("pooler", "pooler.dense")],
        "none": [],
    }[config.head]
    table += [Name(f"{o}.{x}", (f"{t}.{x}",)) for o, t in linear for x in ("weight", "bias")]
    table += [name for layer in range(config.layers) for name in _bert_block(encoder, layer)]
    if config.head != "tokens":
        return table
    if config.tied:
        return [*table, Name("head_bias", ("cls.predictions.bias",))]
    decoder = "cls.predictions.decoder"
    return [*table, Name("head_bias", (f"{decoder}.bias",)), Name("lm_head.weight", (f"{decoder}.weight",))]


def parameter_names(config: ModelConfig) -> list[Name]:
    """Every parameter of a model. The LSTM's form is our own: its names are the same on both sides."""
    if config.family == "bert":
        return _bert(config)
    if config.family == "lstm":
        names = ["embed.weight", "head_bias"]
        names += [f"layers.{layer}.{x}" for layer in range(config.layers) for x in "wub"]
        table = [Name(name, (name,)) for name in names]
    elif config.family == "gpt2":
        table = [Name("embed.weight", ("transformer.wte.weight",))]
        table += [Name("position_embed.weight", ("transformer.wpe.weight",))]
        table += [name for layer in range(config.layers) for name in _gpt2_block(config, layer)]
        table += [Name(f"norm.{x}", (f"transformer.ln_f.{x}",)) for x in ("weight", "bias")]
    elif config.family == "t5":
        table = _t5(config)
    else:
        table = [Name("embed.weight", ("model.embed_tokens.weight",)), Name("norm.weight", ("model.norm.weight",))]
        table += [name for layer in range(config.layers) for name in _llama_block(config, layer)]
    return table if config.tied else [*table, Name("lm_head.weight", ("lm_head.weight",))]


def to_theirs(config: ModelConfig, weights: dict[str, Tensor], rows: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Our parameters under Transformers' names; `rows` says how many rows each part of a stacked one has."""
    result = {}
    for name in parameter_names(config):
        tensor = weights[name.ours]
        parts = tensor.split(rows[name.ours]) if len(name.theirs) > 1 else (tensor,)
        for theirs, part in zip(name.theirs, parts, strict=True):
            result[theirs] = (part.T if name.transposed else part).contiguous()
    if config.family == "bert" and "lm_head.weight" in weights:  # Transformers has a second, which it does not look at
        result["cls.predictions.bias"] = weights["head_bias"].clone()
    return result


def to_ours(
    config: ModelConfig,
    tensors: dict[str, Tensor],
    shapes: dict[str, tuple[int, ...]],
    rows: dict[str, tuple[int, ...]],
    new: frozenset[str] = frozenset(),
) -> dict[str, Tensor]:
    """Transformers' tensors as our parameters; one missing, left over or of another shape is refused by name.

    `shapes` are our parameters'; `rows` says how many rows each part of a stacked one has, so that parts of wrong
    shapes are refused even where their sum is right. Those of ours that are `new` are not looked for.
    """
    tensors = {name: t for name, t in tensors.items() if not name.endswith(IGNORED)}
    if config.family == "gpt2" and not any(name.startswith("transformer.") for name in tensors):
        tensors = {name if name.startswith("lm_head") else f"transformer.{name}": t for name, t in tensors.items()}
    (embedding,) = parameter_names(config)[0].theirs
    if config.family == "t5":
        _one_embedding(tensors, embedding)
    head = tensors.pop("lm_head.weight", None) if config.tied else None
    if head is not None and embedding in tensors and not equal(head, tensors[embedding]):
        raise UserError(
            f"lm_head.weight differs from {embedding}, and the configuration says that they are one: "
            "set tie_word_embeddings (wenlu_lstm: tied) to false in config.json"
        )
    result = {}
    for name in parameter_names(config):
        if name.ours in new:
            continue
        for theirs in name.theirs:
            if theirs not in tensors:
                raise UserError(
                    f"the weights lack {theirs}, which this configuration asks for: the folder is incomplete"
                )
        shape, parts = shapes[name.ours], []
        for theirs, height in zip(name.theirs, rows[name.ours] if len(name.theirs) > 1 else shape[:1], strict=True):
            tensor, asked = tensors.pop(theirs), [height, *shape[1:]]
            found, asked = list(tensor.shape), asked[::-1] if name.transposed else asked
            if found != asked:
                raise UserError(f"{theirs} has shape {found}, and the configuration asks for {asked}")
            parts.append(tensor.T if name.transposed else tensor)
        result[name.ours] = cat(parts)
    if tensors:
        raise UserError(f"the weights hold {min(tensors)}, which this configuration has no place for")
    return result


def _one_embedding(tensors: dict[str, Tensor], embedding: str) -> None:
    """Put t5's embedding, which some folders hold for encoder and decoder too, under its one name."""
    for alias in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"):
        if alias in tensors and not equal(tensors.setdefault(embedding, tensors[alias]), tensors.pop(alias)):
            raise UserError(f"{alias} differs from {embedding}: a t5 with two embeddings is not supported")


IGNORED = (
    ".attn.bias",
    ".attn.masked_bias",
    "rotary_emb.inv_freq",
    "EncDecAttention.relative_attention_bias.weight",
    "embeddings.position_ids",
)
"""Tensors that old folders carry: buffers that are computed anew, and a table of t5's that nothing reads."""
