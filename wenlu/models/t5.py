"""The encoder-decoder T5 (Raffel et al. 2020), version 1.0 and, with gated units, 1.1.

It knows positions by a learned bias in attention's weights: one number for each head and each kind of distance between
two tokens. All layers of the encoder share one table of them, those of the decoder another. Attention's products are
not divided by √head_dim, and where embedding and head are one, the last states are, by √dim.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from wenlu.base.errors import UserError
from wenlu.models.attention import Attention
from wenlu.models.block import Block, norm
from wenlu.models.cache import HIDDEN, EncoderDecoderCache, causal_mask
from wenlu.models.config import ModelConfig
from wenlu.models.layers import dropout, project
from wenlu.models.position import RelativePositions

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


class T5(nn.Module):
    """logits = head(hidden(ids, decoder_ids))."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config = config.resolved()
        self.embed = nn.Embedding(config.vocab, config.dim)
        self.encoder = Stack(config, config.layers, Block)
        self.decoder = Stack(config, config.decoder_layers, DecoderBlock)
        self.lm_head = None if config.tied else nn.Linear(config.dim, config.vocab, bias=False)

    def encode(
        self, ids: Int[Tensor, "batch source"], segments: Int[Tensor, "batch source"] | None = None
    ) -> Float[Tensor, "batch source dim"]:
        """The encoder's states, normalised; a token sees all tokens of its own segment number."""
        return self._encoded(self.embed(ids), segments)

    def _encoded(self, x: Tensor, segments: Tensor | None) -> Tensor:
        return self.encoder(x, None if segments is None else _same(segments, segments))

    def hidden(
        self,
        ids: Int[Tensor, "batch source"] | None,
        decoder_ids: Int[Tensor, "batch target"],
        segments: Int[Tensor, "batch source"] | None = None,
        decoder_segments: Int[Tensor, "batch target"] | None = None,
        cache: EncoderDecoderCache | None = None,
    ) -> Float[Tensor, "batch target dim"]:
        """The decoder's last states, normalised.

        With segments, tokens see their own segment number's only, in the source and, not ahead, in the target;
        without `decoder_segments` a row's target is one text, which sees all of the source but padding (-1). A cache
        that has read the source does not read it again (ids may be None); decoder_ids are those it has not seen yet.
        """
        if decoder_segments is not None and cache is not None:
            raise UserError("packed documents (segments) cannot be written with a cache: write them one by one")
        written = None
        if cache is not None and cache.read:
            read, hidden = cache.read, cache.hidden
        elif ids is None:
            raise UserError("t5 has no source to write from: give the ids that its encoder is to read")
        else:
            # One look-up for both: its gradient is as large as the table, and is added up once.
            sizes = (ids.numel(), decoder_ids.numel())
            source, written = self.embed(torch.cat((ids.flatten(), decoder_ids.flatten()))).split(sizes)
            states = self._encoded(source.view(*ids.shape, -1), segments)
            read, hidden = [block.cross.read(states) for block in self.decoder.blocks], None
            if segments is not None or decoder_segments is not None:
                hidden = _cross_bias(states, segments, decoder_segments)
            if cache is not None:
                cache.read, cache.hidden = read, hidden
        new = decoder_ids.shape[1]
        fresh = cache is None or not cache.length
        allowed = (causal_mask(new, 0, decoder_ids.device) if new > 1 else None) if fresh else cache.sees(new)
        if decoder_segments is not None:
            same = _same(decoder_segments, decoder_segments)
            allowed = same if allowed is None else allowed & same
        written = self.embed(decoder_ids) if written is None else written.view(*decoder_ids.shape, -1)
        states = self.decoder(written, allowed, cache, read, hidden)
        if cache is not None:
            cache.advance(new)
        return states

    def head(self, hidden: Float[Tensor, "... dim"]) -> Float[Tensor, "... vocab"]:
        """Logits of the next token."""
        if self.lm_head is None:
            return project(hidden * self.config.dim**-0.5, self.embed)
        return project(hidden, self.lm_head)

    def forward(
        self, ids: Int[Tensor, "batch source"] | None, decoder_ids: Int[Tensor, "batch target"], **context
    ) -> Float[Tensor, "batch target vocab"]:
        return self.head(self.hidden(ids, decoder_ids, **context))

    def new_cache(self, batch: int, length: int = 0) -> EncoderDecoderCache:
        """An empty cache for `batch` texts, with room for `length` written tokens to begin with."""
        config = self.config
        shape = (config.decoder_layers, batch, config.heads, length, config.head_dim)
        return EncoderDecoderCache(shape, self.decoder.norm.weight)

    @property
    def begin_id(self) -> int:
        """The token before the first that the decoder writes: padding, as T5 was trained."""
        if self.config.pad_id is None:
            raise UserError("t5's decoder begins with the padding token: set pad_token_id in config.json")
        return self.config.pad_id


class Stack(nn.Module):
    """Encoder or decoder: embedded tokens → blocks → norm, with one table of position biases for all blocks."""

    def __init__(self, config: ModelConfig, layers: int, block: type[Block]):
        super().__init__()
        self.relative = RelativePositions(config, both_ways=block is Block)
        self.blocks = nn.ModuleList(block(config, layer) for layer in range(layers))
        self.norm = norm(config)
        self.dropout = config.dropout

    def forward(
        self, x: Float[Tensor, "batch seq dim"], allowed: Bool[Tensor, "*batch seq whole"] | None, cache=None, *source
    ) -> Float[Tensor, "batch seq dim"]:
        """`allowed`: where a token may look; `source`: of the decoder, keys and values by layer, and their bias."""
        new = x.shape[1]
        places, before = (slice(0, new), 0) if cache is None else (cache.places(new), cache.length)
        bias = self.relative(places, before + new)
        if allowed is not None:
            bias = torch.where(allowed, bias, HIDDEN)
        x = self.drop(x)
        for layer, block in enumerate(self.blocks):
            x = block(x, None, None, bias, cache, *((source[0][layer], source[1]) if source else ()))
        return self.drop(self.norm(x))

    def drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.dropout, self.training)


class DecoderBlock(Block):
    """Pre-norm residual block with three layers: attention, attention to the source, feed-forward."""

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__(config, layer)
        self.norm_cross, self.cross = norm(config), CrossAttention(config)

    def forward(
        self, x: Float[Tensor, "batch seq dim"], rotary, positions, mask, cache, read, hidden
    ) -> Float[Tensor, "batch seq dim"]:
        x = self.add(x, self.attention(self.norm_1(x), rotary, positions, mask, cache))
        x = self.add(x, self.cross(self.norm_cross(x), read, hidden))
        return self.add(x, self.feed_forward(self.norm_2(x)))


class CrossAttention(nn.Module):
    """Queries from the target, keys and values, in one matrix, from the source's states."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.heads, self.head_dim, inner = config.heads, config.head_dim, config.heads * config.head_dim
        self.q = nn.Linear(config.dim, inner, bias=False)
        self.kv = nn.Linear(config.dim, 2 * inner, bias=False)
        self.out = nn.Linear(inner, config.dim, bias=False)
        self.stacked = {"kv.weight": (inner, inner)}
        self.dropout, self.scale, self.causal = config.dropout, 1.0, False

    def read(self, states: Float[Tensor, "batch source dim"]) -> tuple[Tensor, ...]:
        """Keys and values, [batch, heads, source, head_dim] each."""
        batch, seq, _ = states.shape
        return self.kv(states).view(batch, seq, 2, self.heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind()

    def forward(
        self, x: Float[Tensor, "batch seq dim"], read: tuple[Tensor, ...], hidden: Tensor | None
    ) -> Float[Tensor, "batch seq dim"]:
        batch, seq, _ = x.shape
        q = self.q(x).view(batch, seq, self.heads, self.head_dim).transpose(1, 2)
        return self.out(self.attended(q, *read, hidden).transpose(1, 2).reshape(batch, seq, -1))

    attended = Attention.attended


def _same(queries: Int[Tensor, "batch seq"], keys: Int[Tensor, "batch whole"]) -> Bool[Tensor, "batch 1 seq whole"]:
    return (queries[:, :, None] == keys[:, None, :])[:, None]


def _cross_bias(states: Tensor, segments: Tensor | None, decoder_segments: Tensor | None) -> Tensor:
    """[batch, 1, target or 1, source]: 0 where the target may look at the source, else `HIDDEN`."""
    if segments is None:
        segments = torch.zeros(states.shape[:2], dtype=torch.long, device=states.device)
    allowed = (segments >= 0)[:, None, None, :] if decoder_segments is None else _same(decoder_segments, segments)
    return torch.where(allowed, 0.0, HIDDEN).to(states.dtype)
