"""The shape of a model, free of torch so that commands can read it quickly."""

from dataclasses import dataclass, replace
from typing import Literal

from wenlu.base.errors import UserError

Family = Literal["lstm", "gpt2", "llama", "qwen3"]


def _round_up(value: float, multiple: int) -> int:
    return -(-int(value) // multiple) * multiple


@dataclass(frozen=True)
class ModelConfig:
    """What a model is made of. A zero, or an empty string, means "by the family's rule"; `resolved()` fills it in."""

    family: Family = "qwen3"
    """lstm, gpt2, llama or qwen3."""
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
    """Width of the feed-forward layer; 0 = 4 dim for gpt2, 8/3 dim rounded up to 32 for llama and qwen3."""
    context: int = 128
    """Longest sequence, in tokens, that the model is trained on (gpt2 cannot read beyond it)."""
    activation: str = ""
    """silu, gelu, gelu_new, relu or relu2; empty = gelu_new for gpt2, silu for llama and qwen3."""
    dropout: float = 0.0
    tied: bool = True
    """The output layer shares the embedding's weights."""
    norm_eps: float = 0.0
    """0 = 1e-5 for gpt2, 1e-6 for llama and qwen3."""
    rope_theta: float = 10000.0
    attention_bias: bool = False
    """Biases in the attention's projections (gpt2 always has them)."""
    mlp_bias: bool = False
    """Biases in llama's feed-forward layer (gpt2 always has them)."""
    vocab: int = 0
    """Rows of the embedding; taken from the tokenizer when a model is trained."""
    bos_id: int | None = None
    eos_id: int | None = None
    other_eos_ids: tuple[int, ...] = ()
    """Tokens beside `eos_id` that end a text too."""
    pad_id: int | None = None

    def __post_init__(self):
        if self.family not in ("lstm", "gpt2", "llama", "qwen3"):
            raise UserError(f"model family must be lstm, gpt2, llama or qwen3, not {self.family!r}")
        for name in ("dim", "layers", "heads", "context"):
            if getattr(self, name) < 1:
                raise UserError(f"model.{name} must be at least 1, not {getattr(self, name)}")
        for name in ("kv_heads", "head_dim", "ffn", "vocab", "norm_eps"):
            if getattr(self, name) < 0:
                raise UserError(f"model.{name} must not be negative, not {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"model.dropout must lie in [0, 1), not {self.dropout}")
        if self.activation not in ("", "silu", "gelu", "gelu_new", "relu", "relu2"):
            raise UserError(f"model.activation must be silu, gelu, gelu_new, relu or relu2, not {self.activation!r}")
        if self.family == "lstm":
            return
        if self.head_dim == 0 and self.dim % self.heads:
            raise UserError(f"model.dim ({self.dim}) must be a multiple of model.heads ({self.heads})")
        if self.kv_heads and self.heads % self.kv_heads:
            raise UserError(f"model.heads ({self.heads}) must be a multiple of model.kv_heads ({self.kv_heads})")
        if self.family == "gpt2" and (
            self.kv_heads not in (0, self.heads) or self.head_dim not in (0, self.dim // self.heads)
        ):
            raise UserError(
                "gpt2 has as many key heads as query heads, of dim / heads each: leave kv_heads and head_dim at 0"
            )
        if self.family != "gpt2" and (self.head_dim or self.dim // self.heads) % 2:
            raise UserError(f"rotary positions need an even head_dim, not {self.head_dim or self.dim // self.heads}")

    def resolved(self) -> "ModelConfig":
        """The same shape with every rule of the family written out."""
        if self.family == "lstm":
            return replace(self, heads=1)
        gpt2 = self.family == "gpt2"
        return replace(
            self,
            kv_heads=self.kv_heads or self.heads,
            head_dim=self.head_dim or self.dim // self.heads,
            ffn=self.ffn or (4 * self.dim if gpt2 else _round_up(8 * self.dim / 3, 32)),
            activation=self.activation or ("gelu_new" if gpt2 else "silu"),
            norm_eps=self.norm_eps or (1e-5 if gpt2 else 1e-6),
        )
