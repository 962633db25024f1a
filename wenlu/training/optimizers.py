"""Which weight is moved by which rule: plain gradient descent, Adam, AdamW, Muon beside AdamW."""

from __future__ import annotations

from torch import Tensor, nn

from wenlu.training.adam import Adam, GradientDescent
from wenlu.training.muon import Muon
from wenlu.training.recipe import OptimizerConfig


class Optimizer:
    """The weights of one model under one rule; its state is a flat dictionary of tensors that safetensors can hold.

    With muon, hidden matrices go by Muon; embeddings, head and vectors by AdamW. Only matrices decay; beside Muon,
    only Muon's.
    """

    def __init__(self, model: nn.Module, config: OptimizerConfig):
        self._rate, self._muon_rate = (rule(model.config.family) for rule in (config.rate, config.muon_rate))
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        matrices = hidden_matrices(model) if config.name == "muon" else {}
        self._muon = None
        if matrices:
            taken = {name: named.pop(name) for name in matrices}
            self._muon = Muon(taken, matrices, config.momentum, config.weight_decay)
        decayed = {name: p for name, p in named.items() if p.ndim > 1 and config.name != "muon"}
        plain = {name: p for name, p in named.items() if name not in decayed}
        groups = [(decayed, config.weight_decay), (plain, 0.0)]
        self._rules = [_rule(config, weights, decay) for weights, decay in groups if weights]

    def step(self, factor: float) -> None:
        """One update with every learning rate at `factor` times its peak; the gradients are left as they are."""
        for rule in self._rules:
            rule.step(factor * self._rate)
        if self._muon:
            self._muon.step(factor * self._muon_rate)

    def state(self) -> dict[str, Tensor]:
        """Every tensor that the next update depends on, by `parameter/what`; the tensors themselves, not copies."""
        state = {f"{name}/momentum": buffer for name, buffer in (self._muon.buffers if self._muon else {}).items()}
        for rule in self._rules:
            state |= {f"{name}/{what}": t for name, tensors in rule.state.items() for what, t in tensors.items()}
        return state

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take up the state that `state()` gave."""
        for name, tensor in self.state().items():
            tensor.copy_(tensors[name])


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
        if parameter.ndim == 2 and "embed" not in name and "head" not in name and parameter.requires_grad
    }


def _rule(config: OptimizerConfig, weights: dict[str, Tensor], decay: float) -> Adam | GradientDescent:
    if config.name == "sgd":
        return GradientDescent(weights, decay)
    return Adam(weights, (config.beta1, config.beta2), decay, decoupled=config.name != "adam")
