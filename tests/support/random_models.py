"""Small models with all weights random, so that no layer is passed over, and a tokenizer of bytes for them."""

import torch

from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.tokenization.learn import learn

TOKENIZER = learn("byte", ["x"], None)


def random_model(family, context=96, seed=1, vocab=TOKENIZER.vocab):
    more = {"kv_heads": 2} if family in ("llama", "mistral", "qwen2", "qwen3") else {}
    more |= {"window": 9} if family == "mistral" else {"pad_id": 0} if family == "t5" else {}
    config = ModelConfig(family, dim=32, layers=2, heads=4, context=context, vocab=vocab, tied=False, **more)
    model, generator = build(config, 0), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            gain = parameter.ndim == 1 and "norm" in name and not name.endswith("bias")
            parameter.normal_(0.5 if gain else 0.0, 0.3, generator=generator)
    return model.eval()
