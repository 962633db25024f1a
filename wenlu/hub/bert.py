"""BERT's folders: names of older versions, parts that a head does not look at, another head than the saved one.

`BertForPreTraining` opens as the head for tokens: its second head, which tells whether two texts belong together, was
found to be of no use (Liu et al. 2019); it is left out, with the pooler that served it alone, and that is said.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, equal

from wenlu.base.errors import UserError
from wenlu.base.log import say
from wenlu.hub.names import parameter_names
from wenlu.models.config import ModelConfig

PARTS = {
    "the pooler": ("bert.pooler.", "pooler."),
    "the head for tokens": ("cls.predictions.",),
    "the head for next sentences": ("cls.seq_relationship.",),
    "the head for labels": ("classifier.",),
    "the head for spans": ("qa_outputs.",),
}
"""What a folder may hold beside the encoder, by the beginnings of its tensors' names."""
UNUSED = ("the pooler", "the head for next sentences")
"""Those that Transformers saves, or once saved, with heads that do not look at them."""
IN_HEAD = ("transform", "lm_head", "head_bias", "pooler", "label_head")
"""Beginnings of our names of what is no part of the encoder."""


def as_saved_today(config: ModelConfig, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under the names that Transformers 5 gives to them; what is stored twice, once."""
    tensors = {
        name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias"): tensor
        for name, tensor in tensors.items()
    }
    wanted = config.head not in ("pool", "none")
    found = any(name.startswith("bert.") for name in tensors)
    if wanted and not found:
        encoder = ("embeddings.", "encoder.", "pooler.")
        tensors = {f"bert.{name}" if name.startswith(encoder) else name: t for name, t in tensors.items()}
    elif found and not wanted:
        tensors = {name.removeprefix("bert."): tensor for name, tensor in tensors.items()}
    weight, first, second = (f"cls.predictions.{x}" for x in ("decoder.weight", "bias", "decoder.bias"))
    if not config.tied:
        if second not in tensors and first in tensors:
            tensors[second] = tensors[first]
        tensors.pop(first, None)  # Transformers 5 looks at the decoder's alone
        return tensors
    if first not in tensors and second in tensors:
        tensors[first] = tensors[second]
    embedding = f"{'bert.' if wanted else ''}embeddings.word_embeddings.weight"
    for twin, one in ((weight, embedding), (second, first)):
        if twin in tensors and one in tensors and not equal(tensors.pop(twin), tensors[one]):
            raise UserError(
                f"{twin} differs from {one}, and the configuration says that they are one: "
                "set tie_word_embeddings to false in config.json"
            )
    return tensors


def fit(
    config: ModelConfig, tensors: dict[str, Tensor], head: str | None, labels: tuple[str, ...], where: str
) -> tuple[ModelConfig, dict[str, Tensor], frozenset[str]]:
    """The configuration with the head that is asked for (None: the saved one), the tensors that it takes, and the
    names of our parameters that are new. What is left out is said."""
    saved = config
    if head is not None:
        kept = labels or (saved.labels if saved.head == head else ())
        config = replace(saved, head=head, labels=kept)
    tensors = as_saved_today(config, tensors)
    if head is None and config.head == "pool" and "pooler.dense.weight" not in tensors:
        config = replace(config, head="none")
    same_labels = (saved.head, saved.labels) == (config.head, config.labels)
    new, taken = set(), set()
    for name in parameter_names(config):
        fresh = head is not None and name.ours.startswith(IN_HEAD) and not set(name.theirs) <= tensors.keys()
        if fresh or (name.ours.startswith("label_head") and not same_labels):
            new.add(name.ours)
        else:
            taken |= set(name.theirs)
    for part, beginnings in PARTS.items():
        rest = {name for name in tensors if name.startswith(beginnings)} - taken
        if rest and (head is not None or (part in UNUSED and config.head in ("tokens", "tag", "span"))):
            say(f"{where}: {part} is left out: the head {config.head!r} does not look at it")
            tensors = {name: tensor for name, tensor in tensors.items() if name not in rest}
    return config, tensors, frozenset(new)
