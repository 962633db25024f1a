"""The shape of a model, free of torch so that commands can read it quickly."""

import math
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from wenlu.base.errors import UserError

Family = Literal["lstm", "gpt2", "llama", "mistral", "qwen2", "qwen3", "bert", "t5"]
Head = Literal["tokens", "classify", "tag", "span", "pool", "none"]
ACTIVATIONS = ("silu", "gelu", "gelu_new", "relu", "relu2")
PLAIN = ("gpt2", "bert")
"""Families with LayerNorm, biases, learned positions and feed-forward layers without gates."""
ROTARY = ("llama", "mistral", "qwen2", "qwen3")
"""The families with rotary positions, RMSNorm and gated units; Llama's, but for what their names stand for."""
WINDOWED = ("mistral", "qwen2", "qwen3")
"""Those that may attend to a sliding window."""


def _round_up(value: float, multiple: int) -> int:
    return -(-int(value) // multiple) * multiple


@dataclass(frozen=True)
class RopeScaling:
    """How rotary angles are slowed down for texts longer than those that a model was first trained on."""

    kind: Literal["none", "linear", "llama3", "yarn"] = "none"
    """linear: every angle divided by `factor` (Chen et al. 2023); llama3: only slow ones (Llama team 2024); yarn:
    slow ones, by a ramp over the pairs, and attention made sharper (Peng et al. 2023)."""
    factor: float = 1.0
    context: int = 0
    """llama3, yarn: longest sequence, in tokens, before the scaling."""
    low: float = 1.0
    """llama3: angles with fewer turns than this in `context` are divided wholly; yarn too (its beta_slow)."""
    high: float = 4.0
    """llama3: angles with more turns than this stay; yarn too (its beta_fast, 32 by its paper)."""
    attention: float = 1.0
    """yarn: what cosines and sines are multiplied by; 0.1 ln(factor) + 1 by its paper."""
    whole_pairs: bool = True
    """yarn: the ramp begins and ends at a whole pair."""

    def __post_init__(self):
        if self.kind not in ("none", "linear", "llama3", "yarn"):
            raise UserError(f"model.rope.kind must be none, linear, llama3 or yarn, not {self.kind!r}")
        if not 1 <= self.factor < math.inf:
            raise UserError(f"model.rope.factor must be at least 1, not {self.factor}")
        if self.kind in ("llama3", "yarn") and self.context < 1:
            raise UserError(f"model.rope.context, the length before scaling, must be at least 1, not {self.context}")
        if self.kind in ("llama3", "yarn") and not 0 < self.low < self.high < math.inf:
            raise UserError(f"model.rope.low ({self.low}) must lie between 0 and model.rope.high ({self.high})")
        if not 0 < self.attention < math.inf:
            raise UserError(f"model.rope.attention must be above 0, not {self.attention}")


@dataclass(frozen=True)
class ModelConfig:
    """What a model is made of. A zero, or an empty string, means "by the family's rule"; `resolved()` fills it in."""

    family: Family = "qwen3"
    """lstm, gpt2, llama, mistral, qwen2, qwen3, bert or t5."""
    dim: int = 192
    """Width of the residual stream (LSTM: of the embedding and the hidden state)."""
    layers: int = 4
    """Blocks; of t5, those of the encoder."""
    heads: int = 3
    """Query heads (unused by the LSTM)."""
    kv_heads: int = 0
    """Key and value heads, shared by heads / kv_heads query heads each; 0 = heads."""
    head_dim: int = 0
    """Width of one head; 0 = dim / heads."""
    ffn: int = 0
    """Width of the feed-forward layer; 0 = 4 dim for gpt2, bert and a t5 without gates, else 8/3 dim rounded up to
    32."""
    context: int = 128
    """Longest sequence, in tokens, that the model is trained on (gpt2 and bert cannot read beyond it)."""
    activation: str = ""
    """silu, gelu, gelu_new, relu or relu2; empty = gelu_new for gpt2 and t5 (relu for a t5 without gates), gelu for
    bert, silu for the others."""
    dropout: float = 0.0
    tied: bool = True
    """The output layer shares the embedding's weights."""
    norm_eps: float = 0.0
    """0 = 1e-5 for gpt2, 1e-12 for bert, 1e-6 for the others."""
    rope_theta: float = 10000.0
    rope: RopeScaling = field(default_factory=RopeScaling)
    """Rotary positions for texts longer than those of the first training."""
    window: int = 0
    """mistral, qwen2, qwen3: tokens see themselves and window - 1 before them; 0 = all before them."""
    full_layers: int = 0
    """qwen2, qwen3: so many of the first layers see all tokens before them, whatever `window` says."""
    attention_bias: bool = False
    """Biases in the attention's projections (gpt2 and bert always have them, qwen2 has those of q, k, v)."""
    mlp_bias: bool = False
    """Biases in llama's feed-forward layer (gpt2 and bert always have them)."""
    decoder_layers: int = 0
    """t5: blocks of the decoder; 0 = layers."""
    gated: bool = True
    """t5: gated feed-forward layers, as version 1.1 has them; version 1.0 has none (and is tied)."""
    buckets: int = 32
    """t5: how many distances between tokens are told apart, the far ones by their logarithm."""
    distance: int = 128
    """t5: from so many tokens on, all distances are one."""
    head: Head = "tokens"
    """What is told of the states: tokens = a token of the vocabulary for each. bert besides: classify = a label for the
    text, tag = a label for each token, span = where an answer begins and ends, pool = one vector, none = the states."""
    labels: tuple[str, ...] = ()
    """bert: names of the labels of the heads classify and tag."""
    types: int = 2
    """bert: how many types of token are told apart, such as question and text."""
    vocab: int = 0
    """Rows of the embedding; taken from the tokenizer when a model is trained."""
    bos_id: int | None = None
    eos_id: int | None = None
    other_eos_ids: tuple[int, ...] = ()
    """Tokens beside `eos_id` that end a text too."""
    pad_id: int | None = None

    def __post_init__(self):
        if self.family not in get_args(Family):
            raise UserError(f"model family must be one of {', '.join(get_args(Family))}, not {self.family!r}")
        for name in ("dim", "layers", "heads", "context", "types"):
            if getattr(self, name) < 1:
                raise UserError(f"model.{name} must be at least 1, not {getattr(self, name)}")
        for name in ("kv_heads", "head_dim", "ffn", "vocab", "norm_eps", "window", "full_layers", "decoder_layers"):
            if getattr(self, name) < 0:
                raise UserError(f"model.{name} must not be negative, not {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"model.dropout must lie in [0, 1), not {self.dropout}")
        if self.activation not in ("", *ACTIVATIONS):
            raise UserError(f"model.activation must be {', '.join(ACTIVATIONS)}, not {self.activation!r}")
        self._check_head()
        if self.family == "lstm":
            return
        if self.head_dim == 0 and self.dim % self.heads:
            even = 2 if self.family in ROTARY else 1
            fitting = [heads for heads in range(1, self.dim + 1) if self.dim % (heads * even) == 0]
            near = sorted(sorted(fitting, key=lambda heads: abs(self.dim / 64 - heads))[:3])
            ways = f"; model.heads that fit: {', '.join(map(str, near))}" if near else ""
            raise UserError(f"model.dim ({self.dim}) must be a multiple of model.heads ({self.heads}){ways}")
        if self.kv_heads and self.heads % self.kv_heads:
            raise UserError(f"model.heads ({self.heads}) must be a multiple of model.kv_heads ({self.kv_heads})")
        if self.family in PLAIN and (
            self.kv_heads not in (0, self.heads) or self.head_dim not in (0, self.dim // self.heads)
        ):
            raise UserError(
                f"{self.family} has as many key heads as query heads, of dim / heads each: "
                "leave kv_heads and head_dim at 0"
            )
        if self.family in ROTARY and (self.head_dim or self.dim // self.heads) % 2:
            raise UserError(f"rotary positions need an even head_dim, not {self.head_dim or self.dim // self.heads}")
        if self.family not in ROTARY and self.rope.kind != "none":
            raise UserError(f"{self.family} has no rotary positions to scale: leave model.rope out")
        if self.window and self.family not in WINDOWED:
            raise UserError(f"{self.family} has no sliding window: leave model.window at 0, or take mistral or qwen2")
        if self.decoder_layers and self.family != "t5":
            raise UserError(f"{self.family} has no decoder of its own: leave model.decoder_layers at 0, or take t5")
        if self.full_layers and self.family not in ("qwen2", "qwen3"):
            raise UserError(f"in {self.family} every layer has the window: leave model.full_layers at 0")
        if self.family == "t5":
            self._check_t5()

    def _check_t5(self) -> None:
        if self.kv_heads not in (0, self.heads):
            raise UserError("t5 has as many key heads as query heads: leave model.kv_heads at 0")
        if self.buckets < 4:
            raise UserError(f"model.buckets must be at least 4, not {self.buckets}")
        if self.distance <= self.buckets // 2:
            raise UserError(
                f"model.distance ({self.distance}) must be more than half of model.buckets ({self.buckets})"
            )
        if self.gated and self.activation == "gelu":
            raise UserError("t5's form has no name for gates with the exact gelu: take gelu_new")
        if self.attention_bias or self.mlp_bias:
            raise UserError("t5 has no biases: leave model.attention_bias and model.mlp_bias at false")

    def _check_head(self) -> None:
        if self.head not in get_args(Head):
            raise UserError(f"model.head must be one of {', '.join(get_args(Head))}, not {self.head!r}")
        if self.family != "bert" and self.head != "tokens":
            raise UserError(
                f"{self.family} has a head for tokens only, not {self.head!r}: take bert, or leave model.head"
            )
        if self.head not in ("classify", "tag"):
            if self.labels:
                raise UserError(
                    f"the head {self.head!r} has no labels: leave model.labels out, or take classify or tag"
                )
        elif len(self.labels) < 2:
            raise UserError(f"the head {self.head!r} needs two labels or more: name them in model.labels")
        elif len(set(self.labels)) < len(self.labels):
            twice = next(label for label in self.labels if self.labels.count(label) > 1)
            raise UserError(f"model.labels holds {twice!r} twice: every label is named once")

    def resolved(self) -> "ModelConfig":
        """The same shape with every rule of the family written out."""
        if self.family == "lstm":
            return replace(self, heads=1)
        plain, t5 = self.family in PLAIN, self.family == "t5"
        gated = self.gated if t5 else not plain
        activation, norm_eps = {"gpt2": ("gelu_new", 1e-5), "bert": ("gelu", 1e-12)}.get(self.family, ("silu", 1e-6))
        if t5:
            activation = "gelu_new" if gated else "relu"
        return replace(
            self,
            kv_heads=self.kv_heads or self.heads,
            head_dim=self.head_dim or self.dim // self.heads,
            ffn=self.ffn or (_round_up(8 * self.dim / 3, 32) if gated else 4 * self.dim),
            activation=self.activation or activation,
            norm_eps=self.norm_eps or norm_eps,
            decoder_layers=(self.decoder_layers or self.layers) if t5 else 0,
        )
