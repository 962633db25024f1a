"""Quantisation of a trained model's weights to int8, each rounded to the nearest; no data is needed."""

import torch
from torch import nn

from wenlu.base.errors import UserError
from wenlu.models.lstm import Layer
from wenlu.models.quantized import is_int8, to_int8_form


def quantize(model: nn.Module) -> nn.Module:
    """The same model, edited: its matrices (of layers, head and embedding, in every family) are int8 from now on.

    UserError for one that is quantised already, or has weights that are not finite.
    """
    if is_int8(model):
        raise UserError("this model is in int8 already: quantise the one that it was made from")
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise UserError(f"{name} holds NaN or infinity, and cannot be quantised: take an older checkpoint")
    for module, form in to_int8_form(model):
        if isinstance(module, Layer):
            form.w.fill(module.w)
            form.u.fill(module.u)
        else:
            form.fill(module.weight)
    return model
