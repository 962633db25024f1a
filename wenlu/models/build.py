"""A new model with its initial weights: a function of the configuration and a seed, of nothing else."""

import math

import torch
from torch import nn

from wenlu.base.errors import UserError
from wenlu.models.bert import BERT
from wenlu.models.config import ModelConfig
from wenlu.models.gpt import GPT
from wenlu.models.lstm import LSTM
from wenlu.models.t5 import T5

FAMILIES = {"lstm": LSTM, "gpt2": GPT, "llama": GPT, "mistral": GPT, "qwen2": GPT, "qwen3": GPT, "t5": T5, "bert": BERT}


def empty(config: ModelConfig) -> nn.Module:
    """The model with weights yet to be loaded, in f32 on the processor."""
    if config.vocab < 1:
        raise UserError("a model needs a vocabulary: model.vocab is 0; it is taken from the tokenizer when training")
    return FAMILIES[config.family](config)


def build(config: ModelConfig, seed: int) -> nn.Module:
    """The model as training begins, in f32 on the processor.

    gpt2: N(0, 0.02), the projections into the residual stream by 1/√(2 · layers) less (Radford et al. 2019).
    llama, mistral, qwen2, qwen3: embeddings N(0, 0.02); matrices uniform with variance 1 / fan-in; the projections
    into the residual stream zero, so that every block begins as the identity (Zhang et al. 2019); an untied head zero.
    t5: likewise; queries by 1 / √head_dim less, since attention's products are not divided by it, and where head and
    embedding are one, the last norm's weights √dim, so that logits begin as those of the others; position biases zero.
    bert: N(0, 0.02) (Devlin et al. 2018); the projections into the residual stream zero, so that a block begins as its
    norms. Matrices with variance 1 / fan-in learned nothing but frequencies at Muon's usual rate.
    lstm: matrices uniform with variance 1 / (2 fan-in), since every gate sums two of them; the forget gate's bias 1
    (Jozefowicz et al. 2015).
    """
    model = empty(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if config.family == "bert":
                _bert(name, parameter, generator)
            elif config.family == "gpt2":
                _gpt2(name, parameter, config, generator)
            else:
                _others(name, parameter, config, generator)
            if config.family == "t5":
                _t5(name, parameter, model.config)
    return model


def _gpt2(name: str, parameter: torch.Tensor, config: ModelConfig, generator: torch.Generator) -> None:
    if parameter.ndim == 2:
        into_stream = name.endswith(("out.weight", "down.weight"))
        parameter.normal_(0, 0.02 / math.sqrt(2 * config.layers) if into_stream else 0.02, generator=generator)
    elif name.endswith("bias"):
        parameter.zero_()


def _t5(name: str, parameter: torch.Tensor, config: ModelConfig) -> None:
    queries = {"attention.qkv.weight": config.heads * config.head_dim, "cross.q.weight": len(parameter)}
    for end, rows in queries.items():
        if name.endswith(end):
            parameter[:rows] /= math.sqrt(config.head_dim)
    if name.endswith("relative.embed.weight"):
        parameter.zero_()
    elif name == "decoder.norm.weight" and config.tied:
        parameter.fill_(math.sqrt(config.dim))


def _bert(name: str, parameter: torch.Tensor, generator: torch.Generator) -> None:
    if name.endswith(("out.weight", "down.weight")):
        parameter.zero_()
    elif parameter.ndim == 2:
        parameter.normal_(0, 0.02, generator=generator)
    elif name.endswith("bias"):
        parameter.zero_()


def _others(name: str, parameter: torch.Tensor, config: ModelConfig, generator: torch.Generator) -> None:
    if name == "embed.weight":
        parameter.normal_(0, 0.02, generator=generator)
    elif name.endswith(("out.weight", "down.weight", "lm_head.weight", "bias")):
        parameter.zero_()
    elif parameter.ndim == 2:
        bound = math.sqrt((1.5 if config.family == "lstm" else 3.0) / parameter.shape[1])
        parameter.uniform_(-bound, bound, generator=generator)
    elif config.family == "lstm" and name.endswith(".b"):
        parameter.zero_()[config.dim : 2 * config.dim] = 1.0
