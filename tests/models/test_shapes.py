"""A tensor of another shape than a signature says is caught in every test."""

import pytest
import torch
from jaxtyping import TypeCheckError

from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.models.layers import rms_norm
from wenlu.training.objectives import head_loss


def test_wrong_shapes_and_kinds_are_caught():
    model = build(ModelConfig("qwen3", dim=16, layers=1, heads=2, context=8, vocab=11), 0)
    with pytest.raises(TypeCheckError, match="parameter 'ids'"):
        model.hidden(torch.zeros(5, dtype=torch.long))
    with pytest.raises(TypeCheckError, match="parameter 'ids'"):
        model.hidden(torch.zeros(2, 5))
    with pytest.raises(TypeCheckError, match="parameter 'weight'"):
        rms_norm(torch.ones(2, 3, 8), torch.ones(7), 1e-6)
    with pytest.raises(TypeCheckError, match="parameter 'targets'"):
        head_loss(model, torch.zeros(2, 3, 16), torch.zeros(2, 4, dtype=torch.long))
