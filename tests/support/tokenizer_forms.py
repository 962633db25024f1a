"""Tokenizers of the forms that model folders have, learned from a little text in many scripts."""

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from wenlu.hub.gguf_tokenizer import AFTER_DIGITS, CONTRACTIONS
from wenlu.tokenization.learn import learn
from wenlu.tokenization.tokenizer import Tokenizer

TEXT = (
    "The stove burns; it's warm, WE'LL SEE 12345 times. 炉火在屋里燃烧，天气真好。\n\n  def f(x):\n\treturn 1234567\r\n"
    "Führer café naïve Привет мир 🙂🙂 ½ ① ٣٤٥ हिन्दी ไทย — “quoted” …   three   spaces \u00a0 nbsp\u3000wide\n \n"
)
TEXTS = [TEXT, "", *TEXT.split(), "<|endoftext|>", "</s>", "aaaa", "aaaaa", "x\u0301", "🙂", "天 气"]
TEXTS += [" ", "  ", "\n", "\n\n\n", "\t\n", "a", " a", "a ", "'s", "I'M", "1", "12 345"]
END = "<|endoftext|>"


def by_expression(digits: str, *, whole_words: bool = False, composed: bool = False) -> Tokenizer:
    """Byte BPE that splits words as Llama 3 and Qwen do."""
    inner = tokenizers.Tokenizer(models.BPE(ignore_merges=whole_words))
    split = pre_tokenizers.Split(Regex(CONTRACTIONS + digits + AFTER_DIGITS), "isolated")
    inner.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    inner.normalizer = normalizers.NFC() if composed else None
    return _byte_level(inner)


def by_digits() -> Tokenizer:
    """Byte BPE that splits words as SmolLM does."""
    inner = tokenizers.Tokenizer(models.BPE())
    steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    inner.pre_tokenizer = pre_tokenizers.Sequence(steps)
    return _byte_level(inner)


def _byte_level(inner: tokenizers.Tokenizer) -> Tokenizer:
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, special_tokens=[END], show_progress=False)
    inner.train_from_iterator([TEXT] * 3, trainer)
    return Tokenizer(inner, eos=END)


def sentencepiece(
    *, spaces: str = "prepend", pieces: tuple[str, ...] = ("▁t", "he", "▁the", "aa", "aaa", "炉火")
) -> Tokenizer:
    """Byte-fallback BPE as Llama's and Mistral's folders have it: the merges are all pairs that make a piece, by its
    place. `spaces`: prepend, keep, or Metaspace's scheme."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    tokens += sorted(set("▁" + "".join(pieces) + TEXT) - set(" \n"))
    vocab = {token: id for id, token in enumerate(tokens)}
    halves = [((piece[:cut], piece[cut:]), piece) for piece in pieces for cut in range(1, len(piece))]
    merges = [pair for pair, _ in halves if all(half in vocab for half in pair)]
    inner = tokenizers.Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    replace = normalizers.Replace(" ", "▁")
    if spaces in ("prepend", "keep"):
        inner.normalizer = replace if spaces == "keep" else normalizers.Sequence([normalizers.Prepend("▁"), replace])
    else:
        inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=spaces, split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    inner.decoder = decoders.Sequence(steps if spaces in ("keep", "never") else [*steps, decoders.Strip(" ", 1, 0)])
    inner.add_special_tokens(tokens[:3])
    return Tokenizer(inner, bos="<s>", eos="</s>")


FORMS = {
    "bpe": lambda: learn("bpe", [TEXT] * 5, 400),
    "byte": lambda: learn("byte", []),
    "char": lambda: learn("char", [TEXT]),
    "qwen2": lambda: by_expression(r"\p{N}"),
    "llama-bpe": lambda: by_expression(r"\p{N}{1,3}", whole_words=True),
    "smaug-bpe": lambda: by_expression(r"\p{N}{1,3}"),
    "smollm": by_digits,
    "sentencepiece": sentencepiece,
    "sentencepiece, no space first": lambda: sentencepiece(spaces="keep"),
}
"""Those that read every text in llama.cpp as here."""
