"""The shape of a model, free of torch so that commands can read it quickly."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from wenlu.base.errors import UserError

Family = Literal["lstm", "gpt2", "llama", "qwen3", "bert"]
Head = Literal["tokens", "classify", "tag", "span", "pool", "none"]
ACTIVATIONS = ("silu", "gelu", "gelu_new", "relu", "relu2")
PLAIN = ("gpt2", "bert")
"""Families with LayerNorm, biases, learned positions and feed-forward layers without gates."""


def _round_up(value: float, multiple: int) -> int:
    return -(-int(value) // multiple) * multiple


@dataclass(frozen=True)
class ModelConfig:
    """What a model is made of. A zero, or an empty string, means "by the family's rule"; `resolved()` fills it in."""

    family: Family = "qwen3"
    """lstm, gpt2, llama, qwen3 or bert."""
    dim: int = 192
    """Width of the residual stream (LSTM: of the embedding and the hidden state)."""
    layers: int = 4
    heads: int = 3
    """Query heads (unused by the LSTM)."""
    kv_heads: int = 0
    """Key and value heads, shared by heads / kv_heads query heads each; 0 = heads."""
    head_dim: int = 0
    """Width of one head; 0 = dim / heads."""
    ffn: int = 0
    """Width of the feed-forward layer; 0 = 4 dim for gpt2 and bert, 8/3 dim rounded up to 32 for llama and qwen3."""
    context: int = 128
    """Longest sequence, in tokens, that the model is trained on (gpt2 and bert cannot read beyond it)."""
    activation: str = ""
    """silu, gelu, gelu_new, relu or relu2; empty = gelu_new for gpt2, gelu for bert, silu for the others."""
    dropout: float = 0.0
    tied: bool = True
    """The output layer shares the embedding's weights."""
    norm_eps: float = 0.0
    """0 = 1e-5 for gpt2, 1e-12 for bert, 1e-6 for llama and qwen3."""
    rope_theta: float = 10000.0
    attention_bias: bool = False
    """Biases in the attention's projections (gpt2 and bert always have them)."""
    mlp_bias: bool = False
    """Biases in llama's feed-forward layer (gpt2 and bert always have them)."""
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
        for name in ("kv_heads", "head_dim", "ffn", "vocab", "norm_eps"):
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
            raise UserError(f"model.dim ({self.dim}) must be a multiple of model.heads ({self.heads})")
        if self.kv_heads and self.heads % self.kv_heads:
            raise UserError(f"model.heads ({self.heads}) must be a multiple of model.kv_heads ({self.kv_heads})")
        if self.family in PLAIN and (
            self.kv_heads not in (0, self.heads) or self.head_dim not in (0, self.dim // self.heads)
        ):
            raise UserError(
                f"{self.family} has as many key heads as query heads, of dim / heads each: "
                "leave kv_heads and head_dim at 0"
            )
        if self.family not in PLAIN and (self.head_dim or self.dim // self.heads) % 2:
            raise UserError(f"rotary positions need an even head_dim, not {self.head_dim or self.dim // self.heads}")

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
        activation, norm_eps = {"gpt2": ("gelu_new", 1e-5), "bert": ("gelu", 1e-12)}.get(self.family, ("silu", 1e-6))
        return replace(
            self,
            kv_heads=self.kv_heads or self.heads,
            head_dim=self.head_dim or self.dim // self.heads,
            ffn=self.ffn or (4 * self.dim if self.family in PLAIN else _round_up(8 * self.dim / 3, 32)),
            activation=self.activation or activation,
            norm_eps=self.norm_eps or norm_eps,
        )
