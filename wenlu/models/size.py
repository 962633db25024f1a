"""How large a model is: parameters, floating-point operations, bytes while it trains. Free of torch."""

from wenlu.models.config import PLAIN, ModelConfig

WHOLE_LOGITS = 1 << 21
"""More logits than that never exist at once (8 MiB in f32): a loss is computed in chunks, a text in parts.

Larger chunks are at best a tenth faster, and arrays near 32 MiB tear holes into the C library's heap: up to half the
memory of a small model.
"""
SHORT = 256
"""Tokens up to which a processor that multiplies in bf16 attends faster by whole products than by the fused kernel,
whose own small ones oneDNN takes ten times longer to begin (measured)."""
SHORT_COPIED = 512
"""The same where autocast makes them (twice as fast there as the fused kernel, measured on a Zen 4)."""
CHOSEN = 0.15
"""Of the tokens that an encoder learns to fill in, the part that its head looks at (Devlin et al. 2018)."""
WORKSPACE = 42 << 20
"""What libraries set aside for themselves and the C library's heap does not give back, in bytes (measured)."""
BF16_PRODUCTS = 90 << 20
"""What oneDNN sets aside beside that for a transformer's products in bf16 on a processor, in bytes (measured)."""
HOLES = 0.22
"""Of what a step allocates on a processor, the part that is lost between blocks of that heap (measured)."""
HEAP = 32 << 20
"""Larger arrays are no part of that heap: each is given back by itself."""


def _block_weights(config: ModelConfig) -> tuple[int, int]:
    """Weights in the matrices, and in the vectors, of one block or layer."""
    dim = config.dim
    if config.family == "lstm":
        return 8 * dim * dim, 4 * dim
    queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
    plain = config.family in PLAIN
    matrices = dim * (queries + 2 * keys) + queries * dim + dim * config.ffn * (3 if _gated(config) else 2)
    vectors = 4 * dim if plain else 2 * dim
    if plain or config.attention_bias or config.family == "qwen2":
        vectors += queries + 2 * keys
    if plain or config.attention_bias:
        vectors += dim
    if plain:
        vectors += config.ffn + dim
    elif config.mlp_bias:
        vectors += 2 * config.ffn + dim
    return matrices, vectors + (2 * config.head_dim if config.family == "qwen3" else 0)


def _gated(config: ModelConfig) -> bool:
    return config.gated if config.family == "t5" else config.family not in PLAIN


def _cross_weights(config: ModelConfig) -> tuple[int, int]:
    """What each block of t5's decoder has besides: in matrices, in vectors."""
    return 4 * config.dim * config.heads * config.head_dim, config.dim


def _head_weights(config: ModelConfig) -> tuple[int, int]:
    """Of bert's heads: weights of the matrix that is dim high and wide, and all others that are not the embedding's."""
    dim, labels = config.dim, 2 if config.head == "span" else len(config.labels)
    square = dim * dim if config.head in ("tokens", "classify", "pool") else 0
    others = (dim if square else 0) + labels * (dim + 1)
    return square, others + (2 * dim + config.vocab if config.head == "tokens" else 0)


def parameters(config: ModelConfig) -> int:
    """Trainable weights, the embedding counted once where the head shares it."""
    config = config.resolved()
    matrices, vectors = _block_weights(config)
    ends = config.vocab * config.dim * (1 if config.tied or config.head != "tokens" else 2)
    if config.family == "lstm":
        ends += config.vocab
    elif config.family == "gpt2":
        ends += config.context * config.dim + 2 * config.dim
    elif config.family == "bert":
        ends += (config.context + config.types + 2) * config.dim + sum(_head_weights(config))
    else:
        ends += config.dim
    if config.family == "t5":
        ends += config.dim + 2 * config.buckets * config.heads
        ends += config.decoder_layers * (matrices + vectors + sum(_cross_weights(config)))
    return config.layers * (matrices + vectors) + ends


def flops_per_token(config: ModelConfig, seq: int) -> float:
    """Floating-point operations of training on one token, forward and backward.

    6 for each weight that multiplies (the head's among them, the embedding's look-up not), and for attention
    12 · layers · heads · head_dim · seq, halved where it is causal (Chowdhery et al. 2022, appendix B). bert's head of
    tokens looks at `CHOSEN` of them; its others hardly count. Of t5: training on one token of a source and one of a
    target, each `seq` long.
    """
    config = config.resolved()
    head = config.vocab * config.dim
    if config.family == "bert":
        square = _head_weights(config)[0]
        head = CHOSEN * (head + square) - square if config.head == "tokens" else -square
    work = 6.0 * (hidden_weights(config) + head)
    if config.family != "lstm":
        # twice where all is seen, and in t5's decoder thrice: once for itself, twice for the source
        seen = 2 if config.family in ("bert", "t5") else 1
        layers = seen * config.layers + 3 * config.decoder_layers
        work += 6.0 * layers * config.heads * config.head_dim * seq
    return work


def hidden_weights(config: ModelConfig) -> int:
    """Weights of the matrices between embedding and head, those that Muon moves."""
    config = config.resolved()
    blocks = (config.layers + config.decoder_layers) * _block_weights(config)[0]
    if config.family == "bert":
        return blocks + _head_weights(config)[0]
    return blocks + config.decoder_layers * (_cross_weights(config)[0] if config.family == "t5" else 0)


def unit_weights(config: ModelConfig) -> tuple[int, int]:
    """Weights of one block (of t5: of its decoder's), and of all that is outside the blocks: embedding, positions, last
    norms, head."""
    block = sum(_block_weights(config.resolved()))
    ends = parameters(config) - config.layers * block
    if config.family != "t5":
        return block, ends
    larger = block + sum(_cross_weights(config.resolved()))
    return larger, ends - config.resolved().decoder_layers * larger


def attends_explicitly(seq: int, dtype: str, device: str) -> bool:
    """Whether attention's weights are a tensor of their own, without dropout."""
    return device == "cpu" and seq <= {"bf16": SHORT, "autocast": SHORT_COPIED}.get(dtype, 0)


def _copied(dtype: str, device: str) -> bool:
    """Whether products are of copies in bf16, and give such."""
    return dtype == "autocast" or (dtype == "bf16" and device != "cpu")


def kept_by_block(config: ModelConfig, seq: int, dtype: str = "f32", device: str = "cpu") -> tuple[int, int]:
    """Numbers that a block keeps of each token for its backward pass: those always in f32, those in the products' form.

    Of a norm, what it was given and its output; of attention, queries, keys, values and result, and its weights where
    they are computed; of the feed-forward layer, what is ffn wide. Dropout keeps masks on a GPU; on a processor, where
    the kernels of training make them again (models/passes), only attention's weights twice. Of an LSTM layer its
    output and five more that oneDNN keeps (measured).
    """
    config = config.resolved()
    if config.family == "lstm":
        return (8 if config.dropout else 6) * config.dim, 0
    queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
    wide = narrow = 2 * config.dim
    kernels = device == "cpu"
    if config.family in PLAIN:
        narrow += 4 * queries + 2 * config.ffn
    elif config.family == "t5":
        dropped = config.ffn * (1 if kernels else 2) if config.dropout and not (kernels and config.gated) else 0
        narrow += 4 * queries + ((3 if kernels else 4) if config.gated else 1) * config.ffn + dropped
    elif kernels:
        narrow += 2 * queries + 2 * keys + 3 * config.ffn + (queries + 2 * keys if config.family == "qwen3" else 0)
        narrow += 2 * (queries - keys) if attends_explicitly(seq, dtype, device) or config.dropout else 0
    else:
        narrow += 3 * queries + 3 * keys + 4 * config.ffn
        wide += queries + keys if config.family == "qwen3" else 0
    if config.dropout and not kernels:
        narrow += 2 * config.dim
    if kernels and (attends_explicitly(seq, dtype, device) or config.family == "t5" or config.dropout):
        narrow += (2 if config.dropout else 1) * config.heads * seq
    return wide, narrow


def kept_by_cross(config: ModelConfig, seq: int, device: str = "cpu") -> tuple[int, int]:
    """The same of what a block of t5's decoder has besides, for each token of the target (and one of the source)."""
    narrow = config.dim * (2 if config.dropout and device != "cpu" else 1) + 4 * config.heads * config.head_dim
    if device == "cpu":
        narrow += (2 if config.dropout else 1) * config.heads * seq
    return config.dim, narrow


def optimizer_bytes(config: ModelConfig, optimizer: str) -> int:
    """State of an optimiser, f32: Adam's two moments of every weight; of Muon's matrices one momentum."""
    count = parameters(config)
    return {"sgd": 0, "adam": 8 * count, "adamw": 8 * count, "muon": 8 * count - 4 * hidden_weights(config)}[optimizer]


def training_bytes(
    config: ModelConfig,
    batch: int,
    seq: int,
    optimizer: str,
    dtype: str = "f32",
    device: str = "cpu",
    accumulating: bool = False,
    recompute: bool = False,
) -> dict[str, int]:
    """Predicted peak of training on `batch` sequences of `seq` tokens at once, in bytes; what it is made of, by kind.

    `total` is less than the sum of the kinds: gradients come, block by block, as activations go. It is the most of
    four moments: the loss, the first block to go backward, the last one, and the update. When gradients are
    `accumulating` over micro-batches, all are there from the second one on. With `recompute` no more of a block is kept
    than its input, and one block is computed again at a time (Chen et al. 2016); the loop itself does not do so.
    """
    config = config.resolved()
    autocast = _copied(dtype, device)
    tokens, number = batch * seq, 2 if autocast else 4
    head, hidden = 4 * config.vocab * config.dim, 4 * hidden_weights(config)
    gradients = 4 * parameters(config)
    # Beside the weights in f32, autocast keeps a copy of every matrix until the backward pass is over; a processor
    # rounds them on the way.
    weights = gradients + ((head + hidden) // 2 if autocast else 0)
    wide, narrow = kept_by_block(config, seq, dtype, device)
    block = tokens * (4 * wide + number * narrow)
    layers = config.layers + config.decoder_layers
    kept = block + layers * tokens * 4 * config.dim if recompute else layers * block
    if config.family == "t5":
        wide, narrow = kept_by_cross(config, seq, device)
        kept += (1 if recompute else config.decoder_layers) * tokens * (4 * wide + number * narrow)
        masks = 2 if config.dropout and device != "cpu" else 0
        ends = (3 + masks) * config.dim + config.heads * seq  # of each stack; biases, what hides
        kept += 2 * tokens * 4 * ends
    activations = kept + tokens * 4 * config.dim * (4 if config.dropout and device != "cpu" else 3)
    told = _outputs(config, tokens)
    logits = 3 * 4 * min(told, WHOLE_LOGITS)  # log-probabilities, their gradient, the logits'
    if told > WHOLE_LOGITS:
        logits += 2 * head  # its gradient in one chunk, and the sum over all
    working = tokens * number * _working(config, seq, dtype, device)
    if config.family == "lstm":
        scratch = tokens * 4 * 4 * config.dim  # of the forward pass; in the heap it stays beside the backward pass's
        working += 2 * hidden // layers + (scratch if scratch < HEAP else 0)
    update = 3 * hidden if optimizer == "muon" else 0  # the directions, and their group's copies made orthogonal
    before = gradients if accumulating else 0
    moments = {
        "loss": before + activations + logits,
        "first block": max(before, head + hidden // layers) + activations + working,
        "last block": gradients + block + working + (head if config.tied else 0),
        "update": gradients + update,
    }
    peak = max(moments.values())
    holes = int(HOLES * peak) if device == "cpu" else 0
    workspace = WORKSPACE
    if dtype != "f32" and device == "cpu" and config.family != "lstm":
        workspace += BF16_PRODUCTS
    kinds = {"weights": weights, "gradients": gradients, "optimizer": optimizer_bytes(config, optimizer)}
    kinds |= {"activations": activations + working + workspace, "logits": logits, "update": update, "holes": holes}
    return {**kinds, "total": weights + kinds["optimizer"] + peak + holes + workspace}


def _outputs(config: ModelConfig, tokens: int) -> int:
    """Numbers that the head gives for so many tokens, as the loss asks for them."""
    if config.head == "tokens":
        return int((CHOSEN if config.family == "bert" else 1) * tokens * config.vocab)
    return tokens * max(2, len(config.labels))


def _working(config: ModelConfig, seq: int, dtype: str, device: str) -> int:
    """Numbers of each token that a block's backward pass holds beside what was kept."""
    if config.family == "lstm":
        return 9 * config.dim
    wide = 3 * config.ffn if _gated(config) else config.ffn
    if config.family == "t5" and config.dropout:
        wide += config.ffn
    if attends_explicitly(seq, dtype, device) or (config.dropout and device == "cpu"):
        wide = max(wide, config.heads * seq)
    return 2 * config.dim + wide
