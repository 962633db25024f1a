"""How large a model is: parameters, floating-point operations, bytes while it trains. Free of torch."""

from wenlu.models.config import ModelConfig

WHOLE_LOGITS = 1 << 23
"""More logits than that never exist at once (32 MiB in f32): a loss is computed in chunks, a text in parts."""
WORKSPACE = 8 << 20
"""What libraries set aside for themselves, in bytes."""


def _block_weights(config: ModelConfig) -> tuple[int, int]:
    """Weights in the matrices, and in the vectors, of one block or layer."""
    dim = config.dim
    if config.family == "lstm":
        return 8 * dim * dim, 4 * dim
    queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
    gpt2 = config.family == "gpt2"
    matrices = dim * (queries + 2 * keys) + queries * dim + dim * config.ffn * (2 if gpt2 else 3)
    vectors = 4 * dim if gpt2 else 2 * dim
    if gpt2 or config.attention_bias:
        vectors += queries + 2 * keys + dim
    if gpt2:
        vectors += config.ffn + dim
    elif config.mlp_bias:
        vectors += 2 * config.ffn + dim
    return matrices, vectors + (2 * config.head_dim if config.family == "qwen3" else 0)


def parameters(config: ModelConfig) -> int:
    """Trainable weights, the embedding counted once where the head shares it."""
    config = config.resolved()
    matrices, vectors = _block_weights(config)
    ends = config.vocab * config.dim * (1 if config.tied else 2)
    if config.family == "lstm":
        ends += config.vocab
    elif config.family == "gpt2":
        ends += config.context * config.dim + 2 * config.dim
    else:
        ends += config.dim
    return config.layers * (matrices + vectors) + ends


def flops_per_token(config: ModelConfig, seq: int) -> float:
    """Floating-point operations of training on one token, forward and backward.

    6 for each weight that multiplies (the head's among them, the embedding's look-up not), and for attention
    12 · layers · heads · head_dim · seq, halved since it is causal (Chowdhery et al. 2022, appendix B).
    """
    config = config.resolved()
    matrices, _ = _block_weights(config)
    work = 6.0 * (config.layers * matrices + config.vocab * config.dim)
    if config.family != "lstm":
        work += 6.0 * config.layers * config.heads * config.head_dim * seq
    return work


def training_bytes(
    config: ModelConfig, batch: int, seq: int, optimizer: str, dtype: str = "f32", device: str = "cpu"
) -> dict[str, int]:
    """Predicted peak of training on `batch` sequences of `seq` tokens at once, by kind, in bytes.

    Weights are exact, gradients too where the logits are not chunked; activations are what the forward pass keeps for
    the backward one, with an allowance for what the widest operators need meanwhile. On a processor (`device` "cpu"),
    attention with dropout keeps its seq × seq weights, about four times over: torch has no fused kernel for it there.
    """
    config = config.resolved()
    weights = 4 * parameters(config)
    states = {"sgd": 0.0, "muon": 1.3, "adam": 2.0, "adamw": 2.0}[optimizer]
    tokens, dim = batch * seq, config.dim
    if config.family == "lstm":
        numbers = config.layers * 8 * dim + 12 * dim
    else:
        queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
        if config.family == "gpt2":
            numbers = config.layers * (5 * dim + 5 * queries + 3 * config.ffn)
        else:
            numbers = config.layers * (5 * dim + 4 * queries + 5 * keys + 5 * config.ffn) + 6 * config.ffn + 8 * dim
        if config.dropout:
            numbers += config.layers * (2 * dim + 2 * queries + keys)
            numbers += config.layers * 4 * config.heads * seq if device == "cpu" else 0
    activations = tokens * numbers * (4 if dtype == "f32" else 3) + WORKSPACE
    logits = 4 * 4 * min(tokens * config.vocab, WHOLE_LOGITS)
    gradients = weights
    if tokens * config.vocab > WHOLE_LOGITS:
        gradients += 2 * 4 * config.vocab * dim  # the head's in one chunk, and the sum over chunks
    kinds = {"weights": weights, "gradients": gradients, "optimizer": int(states * weights), "activations": activations}
    kinds["logits"] = logits
    return {**kinds, "total": sum(kinds.values())}
