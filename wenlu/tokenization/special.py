"""The special tokens that a tokenizer is learned with, by what it is for."""

from collections.abc import Callable
from dataclasses import dataclass, field

from tokenizers import processors

END_OF_TEXT = "<|endoftext|>"
"""Separates documents; beginning, end and padding token of tokenizers for models that write on."""


@dataclass(frozen=True)
class Special:
    """Special tokens and their roles."""

    first: tuple[str, ...]
    """The least ids, from 0 on."""
    roles: dict[str, str] = field(default_factory=dict)
    """Role → token."""
    last: tuple[str, ...] = ()
    """The greatest ids, beyond the size that was asked for."""
    frame: tuple[str, str] | None = None
    """What Transformers puts around a text, and around two, that it gives to a model: in its templates' form."""

    def post_processor(self, ids: Callable[[str], int | None]) -> processors.TemplateProcessing | None:
        """The frame as the tokenizers library does it; our own `encode` adds nothing."""
        if self.frame is None:
            return None
        single, pair = self.frame
        used = [(token, ids(token)) for token in self.first if token in single]
        return processors.TemplateProcessing(single=single, pair=pair, special_tokens=used)


SENTINELS = 100
SPECIAL = {
    "text": Special((END_OF_TEXT,), dict.fromkeys(("bos", "eos", "pad"), END_OF_TEXT)),
    "bert": Special(
        ("[PAD]", "[CLS]", "[SEP]", "[MASK]"),
        {"pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"},
        frame=("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"),
    ),
    "t5": Special(
        ("<pad>", "</s>"),
        {"pad": "<pad>", "eos": "</s>"},
        tuple(f"<extra_id_{n}>" for n in reversed(range(SENTINELS))),
        ("$A </s>", "$A </s> $B </s>"),
    ),
}
"""For models that write on; for masked tokens (Devlin et al. 2018); for spans taken out (Raffel et al. 2020, whose
first sentinel has the greatest id)."""
