"""A tokenizer in GGUF's words, or why it has none: byte BPE as `gpt2`, byte-fallback BPE as `llama`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from wenlu.base.errors import UserError
from wenlu.models.config import ModelConfig
from wenlu.tokenization.tokenizer import Tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""What a token is, by the numbers of llama.cpp's `llama_token_type`."""

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
AFTER_DIGITS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PRE = {
    (CONTRACTIONS + r"\p{N}" + AFTER_DIGITS, False): "qwen2",
    (CONTRACTIONS + r"\p{N}{1,3}" + AFTER_DIGITS, True): "llama-bpe",
    (CONTRACTIONS + r"\p{N}{1,3}" + AFTER_DIGITS, False): "smaug-bpe",
}
"""(expression that splits words, whether a word that is a token is taken whole) → llama.cpp's name for both."""
SPACE = "▁"
_BYTE_NAMES = tuple(f"<0x{byte:02X}>" for byte in range(256))


@dataclass(frozen=True)
class Vocabulary:
    """What llama.cpp reads of a tokenizer."""

    model: str
    """gpt2 or llama."""
    pre: str
    """How text is split before merging; `default` for llama, which does not split."""
    tokens: tuple[str, ...]
    """One for each row of the embedding."""
    types: tuple[int, ...]
    scores: tuple[float, ...] = ()
    """llama: what decides which pair is merged first."""
    merges: tuple[str, ...] = ()
    """gpt2: the pairs that are merged, in order."""
    space_first: bool = False
    """llama: a space is put before a text."""
    notes: tuple[str, ...] = ()
    """In what llama.cpp reads texts otherwise."""


def describe(tokenizer: Tokenizer, config: ModelConfig, where: str) -> Vocabulary:
    """The vocabulary in GGUF's form; `UserError` where llama.cpp has no name for what the tokenizer does."""
    plan = json.loads(tokenizer.copy_of_library().to_str())
    if tokenizer.vocab > config.vocab:
        raise UserError(
            f"{where}: the tokenizer has {tokenizer.vocab} ids, but the model only {config.vocab}: "
            "they do not belong together"
        )
    model = plan["model"]
    if model["type"] != "BPE":
        raise UserError(
            f"{where}: GGUF has no form for a {model['type']} tokenizer that keeps its ids: "
            "train with a bpe, char or byte tokenizer to export"
        )
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise UserError(f"{where}: GGUF has no name for the tokenizer's {name} ({model[name]!r})")
    beside = [t["content"] for t in plan["added_tokens"] if t["lstrip"] or t["rstrip"] or t["single_word"]]
    notes = [f"{len(beside)} added tokens take the spaces beside them, there they do not: {_few(beside)}"] * bool(
        beside
    )
    if tokenizer.rule.byte_level:
        return _byte_level(plan, config.vocab, where, notes)
    if tokenizer.rule.byte_fallback:
        return _byte_fallback(plan, config.vocab, where, notes)
    raise UserError(f"{where}: GGUF has no form for a BPE whose tokens are not bytes: it could not write every text")


def _byte_level(plan: dict[str, Any], rows: int, where: str, notes: list[str]) -> Vocabulary:
    model, normalizer = plan["model"], plan["normalizer"]
    if normalizer is not None:
        if normalizer["type"] != "NFC":
            raise UserError(f"{where}: GGUF has no name for the tokenizer's normalizer {normalizer['type']!r}")
        notes.append("the tokenizer composes characters (NFC), there it does not: give texts in NFC")
    merges = [_pair(merge) for merge in model["merges"]]
    pre = _pre(plan["pre_tokenizer"], bool(model.get("ignore_merges")), bool(merges))
    if pre is None:
        raise UserError(
            f"{where}: llama.cpp has no name for how this tokenizer splits words "
            f"({json.dumps(plan['pre_tokenizer'], ensure_ascii=False)[:160]})"
        )
    tokens, types = _tokens(plan, rows)
    # An array in GGUF may not be empty. What the pair asks for, two whole names side by side, no merge comes to.
    name = max(tokens, key=len)
    pairs = [f"{left} {right}" for left, right in merges] or [f"{name} {name}"]
    return Vocabulary("gpt2", pre, tokens, types, merges=tuple(pairs), notes=tuple(notes))


def _pre(splits: dict[str, Any] | None, whole_words: bool, merges: bool) -> str | None:
    """llama.cpp's name for how words are split; None where it has none."""
    bytes_only = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    by_gpt2 = bytes_only | {"use_regex": True}
    match _essence(splits):
        case [step] if step == by_gpt2 and not whole_words:
            return "gpt-2"
        case [step] if step == bytes_only and not merges:
            return "gpt-2"  # where nothing is merged it matters not where words end
        case [{"type": "Digits", "individual_digits": True}, step] if step == by_gpt2 and not whole_words:
            return "smollm"
        case [{"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}, step]:
            return PRE.get((regex, whole_words)) if step == bytes_only else None
    return None


def _essence(splits: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The steps of a pre-tokenizer, without what changes offsets alone."""
    steps = [] if splits is None else splits.get("pretokenizers", [splits])
    return [{key: value for key, value in step.items() if key != "trim_offsets"} for step in steps]


def _byte_fallback(plan: dict[str, Any], rows: int, where: str, notes: list[str]) -> Vocabulary:
    vocab = plan["model"]["vocab"]
    if lacking := [name for name in _BYTE_NAMES if name not in vocab]:
        raise UserError(f"{where}: llama.cpp wants a token for every byte, and this tokenizer lacks {lacking[0]}")
    spaces = _spaces(plan)
    if spaces is None:
        raise UserError(
            f"{where}: llama.cpp has no name for what this tokenizer does to spaces (normalizer "
            f"{json.dumps(plan['normalizer'], ensure_ascii=False)[:100]}, pre-tokenizer "
            f"{json.dumps(plan['pre_tokenizer'], ensure_ascii=False)[:100]})"
        )
    real, first, note = spaces
    notes += [note] * bool(note)
    tokens, types = _tokens(plan, rows)
    scores = _scores(plan, where)
    if spelled := _spelled(plan):
        notes.append(f"where a text spells out {_few(spelled)}, the special token is read there")
    if real:
        if any(SPACE in token for token in tokens):
            raise UserError(f"{where}: llama.cpp reads {SPACE} as a space, and this tokenizer has a token for it")
        notes.append(f"a text with the character {SPACE} (U+2581) reads there as if it were a space")
        tokens = tuple(token if kind == CONTROL else token.replace(" ", SPACE) for token, kind in zip(tokens, types))
    ranked = tuple(scores.get(token, 0.0) for token in tokens)
    return Vocabulary("llama", "default", tokens, types, ranked, space_first=first, notes=tuple(notes))


def _spaces(plan: dict[str, Any]) -> tuple[bool, bool, str] | None:
    """(whether tokens hold real spaces, whether one is put before a text, what differs there); None: something else."""
    replaced = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    prepended = {"type": "Prepend", "prepend": SPACE}
    normalizer, splits = plan["normalizer"], plan["pre_tokenizer"]
    steps = [] if normalizer is None else normalizer.get("normalizers", [normalizer])
    match steps, splits:
        case [], None:
            return True, False, ""
        case [step], None if step == replaced:
            return False, False, ""
        case [one, two], None if one == prepended and two == replaced:
            return False, True, ""
        case [], {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": False}:
            differs = "a text that begins with a space gets a second one there, as in sentencepiece"
            return False, scheme != "never", differs if scheme != "never" else ""
    return None


def _scores(plan: dict[str, Any], where: str) -> dict[str, float]:
    """token → minus the place at which its merge stands: llama.cpp merges what makes the token of the highest score.

    That gives the same ids only where every pair that makes a token is a merge, and where the merges that make the same
    token stand side by side, as sentencepiece's do. UserError where they do not.
    """
    refusal = f"{where}: its merges are not those of sentencepiece, so no scores make llama.cpp merge alike"
    vocab, special = plan["model"]["vocab"], {token["content"] for token in plan["added_tokens"]}
    merges = [_pair(merge) for merge in plan["model"]["merges"]]
    scores: dict[str, float] = {}
    last = None
    for place, (left, right) in enumerate(merges, 1):
        made = left + right
        if made != last and made in scores:
            raise UserError(f"{refusal} ({made!r} is made at two places)")
        scores.setdefault(made, -float(place))
        last = made
    known = set(merges)
    for token in vocab.keys() - special - set(_BYTE_NAMES):
        for cut in range(1, len(token)):
            pair = token[:cut], token[cut:]
            if pair not in known and all(half in vocab and half not in special for half in pair):
                raise UserError(f"{refusal} ({pair[0]!r} and {pair[1]!r} make a token, but are no merge)")
    return scores


def _spelled(plan: dict[str, Any]) -> list[str]:
    """Special tokens that llama.cpp may put together from tokens of a text."""
    special = {token["content"] for token in plan["added_tokens"]}
    pieces = plan["model"]["vocab"].keys() - special
    return sorted(
        token for token in special if any({token[:cut], token[cut:]} <= pieces for cut in range(1, len(token)))
    )


def _tokens(plan: dict[str, Any], rows: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Tokens and what they are; rows of the embedding without a token are unused ones."""
    tokens = [f"[PAD{id}]" for id in range(rows)]
    types = [UNUSED] * rows
    fallback = plan["model"].get("byte_fallback")
    for token, id in plan["model"]["vocab"].items():
        tokens[id] = token
        types[id] = BYTE if fallback and re.fullmatch(r"<0x[0-9A-F]{2}>", token) else NORMAL
    for added in plan["added_tokens"]:
        tokens[added["id"]] = added["content"]
        unknown = added["content"] == plan["model"].get("unk_token")
        types[added["id"]] = UNKNOWN if unknown else CONTROL if added["special"] else USER_DEFINED
    return tuple(tokens), tuple(types)


def _pair(merge: list[str] | str) -> tuple[str, str]:
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return left, right


def _few(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
