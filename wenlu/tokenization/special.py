"""The special tokens that a tokenizer is learned with, by what it is for."""

from dataclasses import dataclass, field

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


SENTINELS = 100
SPECIAL = {
    "text": Special((END_OF_TEXT,), dict.fromkeys(("bos", "eos", "pad"), END_OF_TEXT)),
    "bert": Special(
        ("[PAD]", "[CLS]", "[SEP]", "[MASK]"), {"pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    ),
    "t5": Special(
        ("<pad>", "</s>"),
        {"pad": "<pad>", "eos": "</s>"},
        tuple(f"<extra_id_{n}>" for n in reversed(range(SENTINELS))),
    ),
}
"""For models that write on; for masked tokens (Devlin et al. 2018); for spans taken out (Raffel et al. 2020, whose
first sentinel has the greatest id)."""
