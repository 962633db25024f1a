"""Text to ids and back, over the `tokenizers` library; nothing is added to a text, lost from it or guessed."""

import codecs
import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from wenlu.base.errors import UserError
from wenlu.base.files import atomic_write
from wenlu.tokenization.byte_rule import ByteRule
from wenlu.tokenization.encoder import Cut, Encoder, cut_anywhere, cut_at_spaces, whole
from wenlu.tokenization.special import END_OF_TEXT
from wenlu.tokenization.wordpiece import check_case, named_by_bert, open_bert
from wenlu.tokenization.words import EXPRESSION

Kind = Literal["bpe", "unigram", "char", "byte", "wordpiece", "other"]

ROLES = ("bos", "eos", "pad")
ENCODER_ROLES = ("cls", "sep", "mask")
"""Those of BERT's tokenizers besides."""
_KEPT = ("chat_template", "model_max_length", "padding_side", "unk_token", "add_bos_token")
"""What `tokenizer_config.json` of a loaded folder says beyond our use, and is saved again."""


class Tokenizer:
    """A tokenizer whose ids mean bytes: `decode` joins the bytes of its tokens and reads them as UTF-8.

    Special tokens written in a text are text: `encode` gives the id of none (but of `<unk>`, where a foreign
    vocabulary needs it). `roles` are the strings of the
    special tokens with these roles, bos, eos, pad, cls, sep and mask, which must be in the vocabulary.
    """

    def __init__(
        self,
        inner: tokenizers.Tokenizer,
        *,
        config: dict[str, Any] | None = None,
        where: str = "the tokenizer",
        **roles: str | None,
    ):
        inner.no_truncation()
        inner.no_padding()
        inner.encode_special_tokens = True
        self._inner = inner
        assert set(roles) <= {*ROLES, *ENCODER_ROLES}
        self._names = {role: roles.get(role) for role in ROLES}
        self._names |= {role: roles[role] for role in ENCODER_ROLES if roles.get(role) is not None}
        self._config = {name: value for name, value in (config or {}).items() if name in _KEPT}
        for role, token in self._names.items():
            if token is not None and (not isinstance(token, str) or inner.token_to_id(token) is None):
                raise UserError(
                    f"{where}: {role}_token is {token!r}, which the vocabulary lacks: add it, or name another"
                )
        special = {token.content for token in inner.get_added_tokens_decoder().values() if token.special}
        # Those that are special already stay as they are: whether they take spaces beside them is part of them.
        new = [token for token in self._names.values() if token is not None and token not in special]
        inner.add_special_tokens([_special(token) for token in new])
        ids = {role: inner.token_to_id(token) for role, token in self._names.items() if token is not None}
        self.bos_id, self.eos_id, self.pad_id = (ids.get(role) for role in ROLES)
        self.cls_id, self.sep_id, self.mask_id = (ids.get(role) for role in ENCODER_ROLES)
        self.begins = self._config.get("add_bos_token") is not False
        """Whether a text begins with the bos token; False where the folder says that it does not."""
        self.end_id = self.sep_id if self.eos_id is None else self.eos_id
        """What ends a document: eos, else sep."""
        plan = json.loads(inner.to_str())
        self.rule = ByteRule.read(plan["decoder"], where)
        added = inner.get_added_tokens_decoder()
        self.special_ids = frozenset(id for id, token in added.items() if token.special)
        self._bytes = {id: self.rule.bytes_of(token) for token, id in inner.get_vocab(with_added_tokens=True).items()}
        self._bytes |= {id: token.content.encode() for id, token in added.items()}
        self._shown = self._bytes | dict.fromkeys(self.special_ids, b"")
        if not self._bytes:
            raise UserError(f"{where}: the vocabulary is empty; copy or download it again")
        self.vocab = max(self._bytes) + 1
        """Rows that an embedding needs: the greatest id + 1."""
        self.kind = _kind(plan, self.rule)
        self.cut = _cut_of(plan, self.kind)
        self._encoder = Encoder(inner, self.cut)
        self.is_known = self.cut is not whole
        """Whether it is of a form that gives back every text, and reads a text in parts, cut by `cut` or where
        `data.pieces` cuts, as it reads the whole. Of others neither is known."""

    @classmethod
    def load(cls, path: Path | str) -> "Tokenizer":
        """Open a folder with `tokenizer.json`, with `vocab.json` and `merges.txt` as GPT-2's, or with `vocab.txt` as
        BERT's, or such a JSON file.

        BERT's loses spaces, mostly capitals and accents too (see `lossless_on`); `decode` gives what is left. The
        special tokens are those of `tokenizer_config.json`, else of `special_tokens_map.json`, else the ids of
        `config.json`. Raises `UserError` where a file is missing or broken.
        """
        path = Path(path)
        folder = path if path.is_dir() else path.parent
        file = path / "tokenizer.json" if path.is_dir() else path
        if file.is_file():
            inner = _open(file)
        elif path.is_dir() and (path / "vocab.json").is_file() and (path / "merges.txt").is_file():
            inner = _open_gpt2(path)
        elif path.is_dir() and (path / "vocab.txt").is_file():
            inner = open_bert(path / "vocab.txt", _read_json(folder / "tokenizer_config.json"))
        else:
            raise UserError(
                f"no tokenizer at {path}: expected tokenizer.json, or vocab.json and merges.txt, or vocab.txt"
            )
        config = _read_json(folder / "tokenizer_config.json")
        check_case(inner, config, path)
        if config.get("bos_token", "") is None:  # said outright, not merely left out
            config["add_bos_token"] = False
        template = folder / "chat_template.jinja"
        if template.is_file():
            config["chat_template"] = template.read_text(encoding="utf-8")
        return cls(inner, **_special_names(folder, config, inner), config=config, where=str(path))

    def save(self, folder: Path | str) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, which Transformers opens with the same ids."""
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **self._config}
        config |= {f"{role}_token": token for role, token in self._names.items() if token is not None}
        if self.cls_id is not None:  # a BERT there is told which of two texts a token is of
            config["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
        atomic_write(Path(folder) / "tokenizer.json", self._inner.to_str(pretty=True))
        atomic_write(Path(folder) / "tokenizer_config.json", json.dumps(config, ensure_ascii=False, indent=2) + "\n")

    def __reduce__(self):
        return _restore, (self._inner.to_str(), self._names, self._config)

    @cached_property
    def fingerprint(self) -> str:
        """Hex sha256 of the tokenizer's canonical JSON and its special tokens: equal means equal ids."""
        body = {"tokenizer": json.loads(self._inner.to_str()), **self._names}
        return hashlib.sha256(json.dumps(body, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """The ids of a text, no special tokens added. A lone surrogate raises `UserError`."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of every text, on all cores; the same as `encode` one by one."""
        return [ids.tolist() for ids in self.encode_arrays(texts)]

    def encode_arrays(self, texts: Sequence[str]) -> list[np.ndarray]:
        """`encode_batch` with arrays, uint32 [tokens], not to be written to, instead of lists."""
        return self._encoder(texts)

    @property
    def chat_template(self) -> Any:
        """What the folder says how conversations are written (Jinja); None where it says nothing."""
        return self._config.get("chat_template")

    def role_token(self, role: str) -> str | None:
        """The special token with the role bos, eos or pad."""
        return self._names[role]

    def copy_of_library(self) -> tokenizers.Tokenizer:
        """The library's tokenizer beneath, to be set otherwise; special tokens in a text are text."""
        inner = tokenizers.Tokenizer.from_str(self._inner.to_str())
        inner.encode_special_tokens = True
        return inner

    def extended(self, tokens: Sequence[str] = (), *, chat_template: str = "", **roles: str) -> "Tokenizer":
        """With more special tokens (new ids follow the old), another chat template, or others for `eos`, `pad`."""
        inner = self.copy_of_library()
        inner.add_special_tokens([_special(token) for token in tokens])
        config = self._config | ({"chat_template": chat_template} if chat_template else {})
        return Tokenizer(inner, **(self._names | roles), config=config)

    def pieces(self, ids: Iterable[int], skip_special: bool = True) -> list[bytes]:
        """The bytes that each id brings to the text of all of them; a skipped special token brings none."""
        table = self._shown if skip_special else self._bytes
        try:
            pieces = [table[id] for id in ids]
        except KeyError as error:
            raise self._unknown(error.args[0]) from None
        if self.rule.leading != "keep":
            start = next((i for i, piece in enumerate(pieces) if piece), None)
            if start is not None:
                pieces[start] = self.rule.first(pieces[start])
        return pieces

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of the ids; bytes that are not UTF-8 become U+FFFD, as many as the Unicode standard recommends."""
        return b"".join(self.pieces(ids, skip_special)).decode("utf-8", "replace")

    def __contains__(self, id: int) -> bool:
        """Whether a token has this id."""
        return id in self._bytes

    def token_bytes(self, id: int) -> bytes:
        """The bytes that one token stands for (a special token: its name's)."""
        try:
            return self._bytes[id]
        except KeyError:
            raise self._unknown(id) from None

    @cached_property
    def byte_counts(self) -> np.ndarray:
        """How many bytes of text each id brings, int64 [vocab]; special tokens and ids without a token bring none."""
        counts = np.zeros(self.vocab, dtype=np.int64)
        counts[list(self._shown)] = [len(piece) for piece in self._shown.values()]
        return counts

    def _unknown(self, id: int) -> UserError:
        return UserError(f"no token has the id {id}: this tokenizer's ids lie in 0 to {self.vocab - 1}")

    def stream(self, skip_special: bool = True) -> "TextStream":
        """Decode ids one at a time."""
        return TextStream(self, skip_special)

    def lossless_on(self, text: str) -> bool:
        """Whether decoding gives back exactly this text, as bits per byte need."""
        return self.decode(self.encode(text)) == text


class TextStream:
    """Ids in, text out as soon as it is certain: all that was given out is `decode` of all ids, at O(1) a token.

    A character is given out whole. To continue a prompt, push the prompt's ids first and drop what they give: a
    tokenizer that puts a space before a text takes one off its start.
    """

    def __init__(self, tokenizer: Tokenizer, skip_special: bool = True):
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._started = False

    def push(self, id: int) -> str:
        """The text that became certain with this id, often empty."""
        if self._skip_special and id in self._tokenizer.special_ids:
            return ""
        piece = self._tokenizer.token_bytes(id)
        if not self._started and piece:
            self._started = True
            piece = self._tokenizer.rule.first(piece)
        return self._utf8.decode(piece)

    def flush(self) -> str:
        """The end of the text: U+FFFD where its last character is incomplete, else nothing."""
        return self._utf8.decode(b"", final=True)


def _cut_of(plan: dict[str, Any], kind: Kind) -> Cut:
    if plan["normalizer"] is not None or not all(token["special"] for token in plan["added_tokens"]):
        return whole
    match plan["pre_tokenizer"]:
        case None if kind == "char":
            return cut_anywhere
        case {"type": "ByteLevel", "add_prefix_space": False} if kind == "byte":
            return cut_anywhere
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}:
            return cut_at_spaces
        case {"type": "Split"} if kind == "unigram":
            return cut_at_spaces
    return whole


def _kind(plan: dict[str, Any], rule: ByteRule) -> Kind:
    model = plan["model"]
    if model["type"] == "WordPiece":
        return "wordpiece"
    if model["type"] == "BPE" and rule.byte_level:
        return "bpe" if model["merges"] else "byte"
    if model["type"] == "Unigram" and rule.byte_fallback and plan["normalizer"] is None:
        match plan["pre_tokenizer"]:
            case {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}:
                return "unigram" if regex == EXPRESSION and rule.leading == "keep" else "other"
    bare = plan["normalizer"] is None and plan["pre_tokenizer"] is None and rule.leading == "keep"
    return "char" if model["type"] == "BPE" and rule.byte_fallback and bare and not model["merges"] else "other"


def _restore(plan: str, names: dict[str, str | None], config: dict[str, Any]) -> Tokenizer:
    return Tokenizer(tokenizers.Tokenizer.from_str(plan), **names, config=config)


def _open(file: Path) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises bare Exceptions
        raise UserError(f"{file} is not a tokenizer that can be read ({error}): copy or download it again") from error


def _open_gpt2(folder: Path) -> tokenizers.Tokenizer:
    try:
        model = models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    except Exception as error:  # the library raises bare Exceptions
        raise UserError(f"vocab.json and merges.txt in {folder} cannot be read ({error}): copy them again") from error
    inner = byte_level(model)
    if inner.token_to_id(END_OF_TEXT) is not None:
        inner.add_special_tokens([_special(END_OF_TEXT)])
    return inner


def _special(token: str) -> AddedToken:
    return AddedToken(token, special=True, normalized=False)


def byte_level(model: models.BPE, *, use_regex: bool = True) -> tokenizers.Tokenizer:
    """A tokenizer whose characters are bytes, splitting with GPT-2's expression or (use_regex=False) not at all."""
    inner = tokenizers.Tokenizer(model)
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    inner.decoder = decoders.ByteLevel()
    return inner


def _read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file; an absent file is an empty one."""
    if not file.is_file():
        return {}
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file} is not JSON ({error}): copy or download it again") from error
    if not isinstance(body, dict):
        raise UserError(f"{file} must hold a JSON object, not {type(body).__name__}: copy or download it again")
    return body


def _special_names(folder: Path, config: dict[str, Any], inner: tokenizers.Tokenizer) -> dict[str, str | None]:
    """Role → token, from the files beside a tokenizer; GPT-2's two files alone mean `<|endoftext|>` for bos and eos."""
    special_map = _read_json(folder / "special_tokens_map.json")
    model = _read_json(folder / "config.json")
    names: dict[str, str | None] = {}
    if config.get("bos_token", "") is None:
        model = {**model, "bos_token_id": None}
    for role in (*ROLES, *ENCODER_ROLES):
        token = config.get(f"{role}_token") or special_map.get(f"{role}_token")
        id = model.get(f"{role}_token_id")
        id = id[0] if isinstance(id, list) and id else id
        if isinstance(token, dict):
            token = token.get("content")
        if token is None and isinstance(id, int) and id >= 0:
            token = inner.id_to_token(id)
        names[role] = token or (named_by_bert(role, inner) if role not in ("bos", "eos") else None)
    bare_gpt2 = not (config or special_map or model) and not (folder / "tokenizer.json").is_file()
    if bare_gpt2 and inner.token_to_id(END_OF_TEXT) is not None:
        names |= {"bos": END_OF_TEXT, "eos": END_OF_TEXT}
    return names
