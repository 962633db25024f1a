"""Small models with random weights that read English and Chinese, for tests."""

import torch

from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.tokenization.chat_format import with_template
from wenlu.tokenization.learn import learn

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
