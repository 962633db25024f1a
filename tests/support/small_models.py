"""Small models with random weights that read English and Chinese, for tests."""

import torch

from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.tokenization.chat_format import with_template
from wenlu.tokenization.learn import learn

BYTES = learn("byte", ["x"], None)
TEXT = "Two and two are four. The stove is warm, naïve café! 二加二等于四。炉子是热的。红楼梦里的人说：天气真好。\n" * 3


def model_of(kind, seed=0):
    tokenizer, _ = with_template(learn(kind, [TEXT], 320 if kind == "bpe" else None))
    config = ModelConfig(
        "llama", dim=32, layers=1, heads=2, context=512, vocab=tokenizer.vocab, bos_id=tokenizer.eos_id
    )
    model = build(config, seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(seed + 1))
    return model.eval(), tokenizer


def random_model(family, context=96, seed=1, vocab=BYTES.vocab):
    """All weights random, so that no layer is passed over and texts do not just repeat."""
    more = {"kv_heads": 2} if family in ("llama", "mistral", "qwen2", "qwen3") else {}
    more |= {"window": 9} if family == "mistral" else {"pad_id": 0} if family == "t5" else {}
    config = ModelConfig(family, dim=32, layers=2, heads=4, context=context, vocab=vocab, tied=False, **more)
    model, generator = build(config, 0), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            gain = parameter.ndim == 1 and "norm" in name and not name.endswith("bias")
            parameter.normal_(0.5 if gain else 0.0, 0.3, generator=generator)
    return model.eval()
