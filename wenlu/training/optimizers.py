"""Which weight is moved by which rule: plain gradient descent, Adam, AdamW, Muon beside AdamW."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wenlu.training.muon import Muon
from wenlu.training.recipe import OptimizerConfig


class Optimizer:
    """The weights of one model under one rule; its state is a flat dictionary of tensors that safetensors can hold.

    sgd: w ← w − η ∂L/∂w. adam and adamw: Kingma & Ba 2015, Loshchilov & Hutter 2019 (decay on matrices only).
    muon: hidden matrices by Muon, embeddings, head and vectors by AdamW.
    """

    def __init__(self, model: nn.Module, config: OptimizerConfig):
        self._config = config
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        hidden = hidden_matrices(model) if config.name == "muon" else {}
        self._muon = None
        if hidden:
            matrices = {name: named.pop(name) for name in hidden}
            self._muon = Muon(matrices, hidden, config.momentum, config.weight_decay)
        decayed = {name: p for name, p in named.items() if p.ndim > 1 and config.name != "muon"}
        plain = {name: p for name, p in named.items() if name not in decayed}
        self._names = [*decayed, *plain]
        groups = [
            {"params": list(decayed.values()), "weight_decay": config.weight_decay},
            {"params": list(plain.values()), "weight_decay": 0.0},
        ]
        self._inner = _torch_optimizer([g for g in groups if g["params"]], config)

    def step(self, factor: float) -> None:
        """One update with every learning rate at `factor` times its peak; the gradients are left as they are."""
        for group in self._inner.param_groups:
            group["lr"] = factor * self._config.lr
        self._inner.step()
        if self._muon:
            self._muon.step(factor * self._config.muon_lr)

    def state(self) -> dict[str, Tensor]:
        """Every tensor that the next update depends on, by `rule/parameter/name`."""
        tensors = {
            f"muon/{name}/momentum": buffer for name, buffer in (self._muon.buffers if self._muon else {}).items()
        }
        state = self._inner.state_dict()["state"]
        for index, name in enumerate(self._names):
            for key, value in state.get(index, {}).items():
                if value is not None:
                    tensors[f"{self._config.name}/{name}/{key}"] = torch.as_tensor(value)
        return {name: tensor.contiguous() for name, tensor in tensors.items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take up the state that `state()` gave."""
        state: dict[int, dict[str, Tensor]] = {}
        for full_name, tensor in tensors.items():
            rule, rest = full_name.split("/", 1)
            name, key = rest.rsplit("/", 1)
            if rule == "muon" and key == "momentum":
                self._muon.buffers[name].copy_(tensor)
            else:
                state.setdefault(self._names.index(name), {})[key] = tensor.clone()
        self._inner.load_state_dict({"state": state, "param_groups": self._inner.state_dict()["param_groups"]})


def hidden_matrices(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The matrices between embedding and head, by name, each with the row counts of the matrices stacked in it."""
    stacked = {
        f"{prefix}.{name}": rows
        for prefix, module in model.named_modules()
        for name, rows in getattr(module, "stacked", {}).items()
    }
    return {
        name: stacked.get(name, (parameter.shape[0],))
        for name, parameter in model.named_parameters()
        if parameter.ndim == 2 and "embed" not in name and "lm_head" not in name and parameter.requires_grad
    }


def _torch_optimizer(groups: list[dict], config: OptimizerConfig) -> torch.optim.Optimizer:
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr)
    betas = (config.beta1, config.beta2)
    if config.name == "adam":
        return torch.optim.Adam(groups, lr=config.lr, betas=betas, fused=True)
    return torch.optim.AdamW(groups, lr=config.lr, betas=betas, fused=True)
