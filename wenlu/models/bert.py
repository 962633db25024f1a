"""BERT (Devlin et al. 2018): an encoder, whose every token sees all tokens of its text, with a head by the task.

Of the states of a text, token by token:

    tokens     logits of the vocabulary, W · norm(act(A h + a)) + b, W being the embedding where they are tied
    classify   logits of the labels for the whole text, C · tanh(P h₁ + p) + c, of its first token's state
    tag        logits of the labels for each token, C h + c
    span       two logits for each token: that an answer begins, that it ends there
    pool       one vector for the whole text, tanh(P h₁ + p)
    none       the states
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wenlu.base.errors import UserError
from wenlu.models.block import PostNormBlock, norm
from wenlu.models.config import ModelConfig
from wenlu.models.layers import ACTIVATIONS, dropout, project

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class BERT(nn.Module):
    """logits = head(hidden(ids))."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config = config.resolved()
        self.embed = nn.Embedding(config.vocab, config.dim)
        self.position_embed = nn.Embedding(config.context, config.dim)
        self.type_embed = nn.Embedding(config.types, config.dim)
        self.embed_norm = norm(config)
        self.blocks = nn.ModuleList(PostNormBlock(config, layer) for layer in range(config.layers))
        tokens, pooled = config.head == "tokens", config.head in ("classify", "pool")
        self.transform = nn.Linear(config.dim, config.dim) if tokens else None
        self.transform_norm = norm(config) if tokens else None
        self.lm_head = None if config.tied or not tokens else nn.Linear(config.dim, config.vocab, bias=False)
        self.head_bias = nn.Parameter(torch.zeros(config.vocab)) if tokens else None
        self.pooler = nn.Linear(config.dim, config.dim) if pooled else None
        labels = 2 if config.head == "span" else len(config.labels)
        self.label_head = nn.Linear(config.dim, labels) if labels else None

    def hidden(
        self,
        ids: Int[Tensor, "batch seq"],
        positions: Int[Tensor, "batch seq"] | None = None,
        segments: Int[Tensor, "batch seq"] | None = None,
        types: Int[Tensor, "batch seq"] | None = None,
    ) -> Float[Tensor, "batch seq dim"]:
        """The last layer's states.

        Positions count from 0 in every row, unless given. With `segments`, a number for each token, tokens see only
        those of the same number: texts packed in one row, and padding, whose number is -1. `types` tell a text's parts
        apart; without them all tokens are of type 0.
        """
        if positions is None:
            self._check(ids.shape[1])
            positions = slice(0, ids.shape[1])
        elif not torch.compiler.is_compiling():
            self._check(int(positions.max()) + 1)
        mask = None if segments is None else (segments[:, :, None] == segments[:, None, :])[:, None]
        x = self.embed(ids) + self.position_embed.weight[positions]
        x = x + (self.type_embed.weight[0] if types is None else self.type_embed(types))
        x = self.drop(self.embed_norm(x))
        for block in self.blocks:
            x = block(x, None, None, mask, None)
        return x

    def head(self, hidden: Float[Tensor, "*batch seq dim"]) -> Float[Tensor, ...]:
        """What the head makes of the states, [*batch, seq, outputs]; of whole texts (classify, pool) [*batch, outputs].

        Outputs are the vocabulary's tokens, the labels, or the two ends of a span; for pool and none there are `dim`.
        """
        match self.config.head:
            case "tokens":
                x = ACTIVATIONS[self.config.activation](self.transform(hidden))
                # Where autocast makes it bf16, torch would sum the norm's gradients in bf16 too.
                x = self.transform_norm(x.to(self.transform_norm.weight.dtype))
                return project(x, self.lm_head or self.embed, self.head_bias)
            case "classify":
                return self.label_head(self.drop(self.pooler(hidden[..., 0, :]).tanh()))
            case "tag":
                return self.label_head(self.drop(hidden))
            case "span":
                return self.label_head(hidden)
            case "pool":
                return self.pooler(hidden[..., 0, :]).tanh()
        return hidden

    def forward(self, ids: Int[Tensor, "batch seq"], **context) -> Float[Tensor, ...]:
        return self.head(self.hidden(ids, **context))

    def drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.config.dropout, self.training)

    def _check(self, length: int) -> None:
        if length > self.config.context:
            raise UserError(
                f"this bert has learned {self.config.context} positions, and {length} are asked for: shorten the text"
            )


def sentence_embeddings(
    model: BERT, ids: Int[Tensor, "batch seq"], segments: Int[Tensor, "batch seq"] | None = None
) -> Float[Tensor, "batch dim"]:
    """A vector of length 1 for each row: the mean of its states, without padding's (segment -1).

    So do sentence-transformers' models (Reimers & Gurevych 2019) of the form "mean pooling, normalised", such as
    all-MiniLM-L6-v2; the similarity of two texts is their vectors' product.
    """
    hidden = model.hidden(ids, segments=segments)
    if segments is None:
        return F.normalize(hidden.mean(1), dim=-1)
    real = (segments >= 0).unsqueeze(-1).to(hidden.dtype)
    return F.normalize((hidden * real).sum(1) / real.sum(1).clamp_min(1e-9), dim=-1)
