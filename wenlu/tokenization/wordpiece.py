"""BERT's own tokenizers (WordPiece, Devlin et al. 2018), read, never learned: they do not give back every text."""

from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers

from wenlu.base.errors import UserError
from wenlu.tokenization.special import SPECIAL

TOKENS = (*SPECIAL["bert"].first, "[UNK]")


def open_bert(file: Path, config: dict[str, Any]) -> tokenizers.Tokenizer:
    """The tokenizer of a `vocab.txt`, which has a token in each line, as `tokenizer_config.json` sets it."""
    with file.open(encoding="utf-8") as lines:
        vocab = {line.rstrip("\n"): id for id, line in enumerate(lines)}
    if missing := [token for token in TOKENS if token not in vocab]:
        raise UserError(f"{file} lacks {', '.join(missing)}: it is not the vocabulary of a BERT; copy it again")
    inner = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    inner.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
        strip_accents=config.get("strip_accents"),
        lowercase=config.get("do_lower_case", True),
    )
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece(prefix="##")
    inner.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in TOKENS])
    inner.post_processor = SPECIAL["bert"].post_processor(inner.token_to_id)
    return inner


def named_by_bert(role: str, inner: tokenizers.Tokenizer) -> str | None:
    """The token that has a role (pad, cls, sep, mask) in BERT's tokenizers where no file says it."""
    token = f"[{role.upper()}]"
    is_bert = isinstance(inner.model, models.WordPiece)
    return token if is_bert and inner.token_to_id(token) is not None else None


def check_case(inner: tokenizers.Tokenizer, config: dict[str, Any], where: Path) -> None:
    """Refuse a folder whose files disagree on capitals: then it depends on the reader what a text's ids are."""
    wanted = config.get("do_lower_case")
    if isinstance(inner.normalizer, normalizers.BertNormalizer) and wanted not in (None, inner.normalizer.lowercase):
        raise UserError(
            f"{where}: do_lower_case is {wanted} in tokenizer_config.json, and tokenizer.json says otherwise: "
            "make them agree"
        )
