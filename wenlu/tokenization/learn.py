"""Learning a tokenizer from text: byte BPE, Unigram, characters, or bytes (which need no text)."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers

from wenlu.base.errors import UserError, did_you_mean
from wenlu.base.log import console
from wenlu.tokenization.byte_rule import BYTE_CHARACTERS
from wenlu.tokenization.encoder import require_unicode
from wenlu.tokenization.special import SPECIAL, Special
from wenlu.tokenization.tokenizer import Tokenizer, byte_level
from wenlu.tokenization.unigram import choose_pieces, one_thread, repeated
from wenlu.tokenization.words import EXPRESSION, count_words

KINDS = ("bpe", "unigram", "char", "byte")
SMALLEST_BPE = 1 + 256
"""The special token and the bytes: a byte BPE without merges."""
_BYTE_NAMES = tuple(f"<0x{byte:02X}>" for byte in range(256))
SMALLEST = {"bpe": SMALLEST_BPE, "unigram": SMALLEST_BPE + 2}
SAMPLE_BYTES = 100_000_000
"""The most text, in bytes of UTF-8, that merges are learned from."""
UNIGRAM_BYTES = 20_000_000
"""The most text that Unigram's pieces are chosen from: every turn cuts every word anew."""
BLOCK = 1 << 16
"""Texts are sampled in blocks of at most so many characters."""
BLOCK_COST = 64
"""What a block costs beside its text, so that a million tiny texts are bounded too."""
LONGEST_TOKEN = 32
"""Bytes: ten Chinese characters. Longer tokens are lines of dashes and whole sentences that a corpus repeats."""
LONGEST_RUN = 64
"""Characters: text without spaces is cut after so many, for a merge costs the length of every run it touches."""


@dataclass(frozen=True)
class Spec:
    """Which tokenizer is wanted: one to be learned, with `vocab` tokens (char: characters), or one in a folder."""

    kind: Literal["bpe", "unigram", "char", "byte", "folder"]
    vocab: int | None = None
    folder: Path | None = None


def parse_spec(spec: str) -> Spec:
    """Read `bpe`, `bpe:8192`, `unigram`, `unigram:8192`, `char`, `char:3000`, `byte`, or the path of a tokenizer.

    `char:N` keeps the N most frequent characters and writes the others as bytes. A folder named like a kind is
    written `./bpe`.
    """
    kind, colon, size = spec.partition(":")
    if kind not in KINDS:
        if not spec or not Path(spec).exists():
            raise UserError(
                f"tokenizer {spec!r} is neither bpe, unigram, char, bpe:N, unigram:N, char:N, byte "
                f"nor an existing folder.{did_you_mean(kind, KINDS)}"
            )
        return Spec("folder", folder=Path(spec))
    if not colon:
        return Spec(kind)
    if kind == "byte":
        raise UserError(f"tokenizer {spec!r}: byte always has {SMALLEST_BPE} tokens; write byte alone")
    if not re.fullmatch("[0-9]+", size):
        raise UserError(f"tokenizer {spec!r}: the size must be a whole number, as in {kind}:4096")
    _require_size(kind, int(size))
    return Spec(kind, int(size))


def _require_size(kind: str, vocab: int, special: int = 1) -> None:
    smallest = SMALLEST.get(kind, 0) + special - 1
    if kind in SMALLEST and vocab < smallest:
        more = ", two pieces" if kind == "unigram" else ""
        some = {1: "one", 2: "two", 4: "four"}.get(special, special)
        raise UserError(
            f"a {kind} tokenizer needs at least {smallest} tokens (256 bytes, {some} special{more}), not {vocab}"
        )
    if kind == "char" and vocab < 1:
        raise UserError(f"a char tokenizer must keep at least 1 character, not {vocab}")


def choose_vocab(corpus_bytes: int, distinct: int) -> int:
    """How many tokens of byte BPE or Unigram suit a corpus of so many bytes with so many distinct characters.

    512 x (bytes / 100 kB)^0.45 pieces of words, and as many again for characters where the script has them; rounded
    to 64 (matrix products like it), at least 320, at most 32768. Vocabulary grows about as the square root of a
    text (Heaps' law), so that a token is seen some hundred times at any size; a script of thousands of characters
    wants a token for each common one; 32768 ids fit 16 bits, and the embedding of a model that this package trains.
    Examples: 100 kB of English 576, 1.1 MB 1600, 100 MB 11648; 2.6 MB of Chinese 4416; beyond 1 GB 32768.
    """
    words = 512 * (corpus_bytes / 100_000) ** 0.45
    vocab = words + min(distinct, words)
    return min(32768, max(320, round(vocab / 64) * 64))


def learn(kind: str, texts: Iterable[str], vocab: int | None = None, purpose: str = "text") -> Tokenizer:
    """Learn a tokenizer with the special tokens of `purpose`: text, bert or t5; the same texts give the same ids.

    `vocab` is the number of tokens for bpe and unigram (by default `choose_vocab`'s), and for char the number of
    characters that get a token of their own (by default all). Merges are learned from at most 100 MB, Unigram's pieces
    from at most 20 MB, see `Sample`; characters are counted in all texts; byte reads none. Where a text is too
    short for `vocab` tokens, that is said on the console.
    """
    if kind not in KINDS:
        raise UserError(
            f"a tokenizer of kind {kind!r} cannot be learned: choose bpe, unigram, char or byte."
            f"{did_you_mean(kind, KINDS)}"
        )
    special = SPECIAL[purpose]
    if kind == "byte":
        if vocab is not None:
            raise UserError(f"a byte tokenizer always has {SMALLEST_BPE} tokens, not {vocab}: leave the size out")
        return _bytes(special)
    if vocab is not None:
        _require_size(kind, vocab, len(special.first))
    return {"bpe": _byte_bpe, "unigram": _unigram, "char": _characters}[kind](texts, vocab, special)


class Sample:
    """At most `limit` bytes of a stream of texts, evenly from all of it, whatever its length; the same every time.

    Texts are cut into blocks, and block number n is kept while sha256(n) lies below a bar; whenever what is kept
    exceeds the limit, the bar is halved. So between half the limit and the limit remains of a longer stream.
    """

    def __init__(self, texts: Iterable[str], limit: int):
        self.blocks: list[str] = []
        self.total = 0
        """Bytes of all texts."""
        self.kept = 0
        """Bytes of the blocks."""
        bar, held, costs, number = 1 << 64, [], 0, 0
        for text in texts:
            require_unicode(text)
            for start in range(0, len(text), BLOCK):
                block = text[start : start + BLOCK]
                size = len(block.encode())
                self.total += size
                place = int.from_bytes(hashlib.sha256(b"%d" % number).digest()[:8])
                number += 1
                if place >= bar:
                    continue
                held.append((place, size, block))
                costs += size + BLOCK_COST
                while costs > limit and len(held) > 1:
                    bar //= 2
                    held = [item for item in held if item[0] < bar]
                    costs = sum(item[1] + BLOCK_COST for item in held)
        self.kept = sum(size for _, size, _ in held)
        self.blocks = [block for _, _, block in held]

    @property
    def distinct(self) -> int:
        """Distinct characters in the blocks."""
        return len(set().union(*self.blocks))


def _sampled(kind: str, what: str, texts: Iterable[str], limit: int) -> Sample:
    """What a tokenizer is learned from; text that is left out is said."""
    sample = Sample(texts, limit)
    if not sample.blocks:
        raise UserError(
            f"there is no text to learn a {kind} tokenizer from: name a corpus, or choose byte, which needs none"
        )
    if sample.kept < sample.total:
        console.print(f"tokenizer: {what} are learned from {sample.kept:,} of {sample.total:,} bytes, evenly sampled")
    return sample


def _byte_bpe(texts: Iterable[str], vocab: int | None, special: Special) -> Tokenizer:
    sample = _sampled("bpe", "merges", texts, SAMPLE_BYTES)
    wanted = choose_vocab(sample.total, sample.distinct) if vocab is None else vocab
    inner = byte_level(models.BPE(), use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=wanted,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=_added(special.first),
        max_token_length=LONGEST_TOKEN,
        show_progress=False,
    )
    words = count_words(sample.blocks, LONGEST_RUN, marks=False)
    with one_thread():
        inner.train_from_iterator(repeated(words), trainer)
    inner.pre_tokenizer = byte_level(models.BPE()).pre_tokenizer
    _say_if_fewer("merges", inner.get_vocab_size(), wanted)
    return _finish(inner, special)


def _unigram(texts: Iterable[str], vocab: int | None, special: Special) -> Tokenizer:
    sample = _sampled("unigram", "pieces", texts, UNIGRAM_BYTES)
    wanted = choose_vocab(sample.total, sample.distinct) if vocab is None else vocab
    pieces = choose_pieces(
        count_words(sample.blocks, LONGEST_RUN, marks=True), wanted - len(special.first) - len(_BYTE_NAMES)
    )
    # No text is read as these: the expression cuts letters, digits and signs apart, and each name holds several.
    lowest = min(score for _, score in pieces)
    names = [(name, lowest) for name in (*special.first, *_BYTE_NAMES)]
    inner = tokenizers.Tokenizer(models.Unigram([*names, *pieces], unk_id=0, byte_fallback=True))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(EXPRESSION), "isolated")
    inner.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    _say_if_fewer("pieces", inner.get_vocab_size(), wanted)
    return _finish(inner, special)


def _say_if_fewer(what: str, tokens: int, wanted: int) -> None:
    if tokens < wanted:
        console.print(f"tokenizer: the text has {what} for {tokens:,} tokens only, not {wanted:,}")


def _characters(texts: Iterable[str], keep: int | None, special: Special) -> Tokenizer:
    counts: Counter[str] = Counter()
    for text in texts:
        require_unicode(text)
        counts.update(text)
    if not counts:
        raise UserError(
            "there is no text to learn a char tokenizer from: name a corpus, or choose byte, which needs none"
        )
    kept = sorted(sorted(counts, key=lambda character: (-counts[character], character))[:keep])
    if keep is not None and len(kept) < keep:
        console.print(f"tokenizer: the text has {len(kept):,} distinct characters only, not {keep:,}")
    tokens = [*special.first, *_BYTE_NAMES, *kept]
    inner = tokenizers.Tokenizer(models.BPE(vocab=_numbered(tokens), merges=[], byte_fallback=True))
    inner.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return _finish(inner, special)


def _bytes(special: Special) -> Tokenizer:
    tokens = [*special.first, *sorted(BYTE_CHARACTERS, key=BYTE_CHARACTERS.__getitem__)]
    return _finish(byte_level(models.BPE(vocab=_numbered(tokens), merges=[]), use_regex=False), special)


def _numbered(tokens: list[str]) -> dict[str, int]:
    return {token: id for id, token in enumerate(tokens)}


def _added(tokens: Iterable[str]) -> list[AddedToken]:
    return [AddedToken(token, special=True, normalized=False) for token in tokens]


def _finish(inner: tokenizers.Tokenizer, special: Special) -> Tokenizer:
    inner.add_special_tokens(_added((*special.first, *special.last)))
    if special.frame is not None:
        inner.post_processor = special.post_processor(inner.token_to_id)
    return Tokenizer(inner, **special.roles)
