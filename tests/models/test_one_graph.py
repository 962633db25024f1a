"""What torch compiles of a model is one graph: at a break it would give up the whole function without a word."""

import subprocess
import sys

HIDDEN = """
import torch
from wenlu.base.device import bf16_products
from wenlu.models.build import build
from wenlu.models.config import ModelConfig

SHAPE = {"dim": 16, "layers": 2, "heads": 2, "context": 16, "vocab": 70}
ids = torch.randint(70, (2, 16), generator=torch.Generator().manual_seed(3))
segments = {"segments": torch.arange(16).div(8, rounding_mode="floor").expand(2, 16)}
for config in (
    ModelConfig("gpt2", **SHAPE, dropout=0.1),
    ModelConfig("qwen3", **SHAPE),
    ModelConfig("mistral", **SHAPE, window=5),
    ModelConfig("bert", **SHAPE, dropout=0.1),
    ModelConfig("t5", **SHAPE, dropout=0.1),
):
    torch.compiler.reset()
    model = build(config, seed=1)
    given = (ids, ids) if config.family == "t5" else (ids,)
    hidden = torch.compile(model.hidden, fullgraph=True, backend="eager", dynamic=False)
    for packed in ({}, segments):
        for training in (True, False):
            model.train(training)
            with torch.set_grad_enabled(training), bf16_products(True):
                assert hidden(*given, **packed).shape == (2, 16, 16)
    print(config.family)
"""


def test_hidden_states_of_every_family():
    """In a process of its own, where shapes are not checked: torch cannot look into what checks them."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", HIDDEN], capture_output=True, text=True)
    assert done.stdout.split() == ["gpt2", "qwen3", "mistral", "bert", "t5"], done.stderr[-3000:]
