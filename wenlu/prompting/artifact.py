"""A prompt as it is kept: one versioned JSON file with all that its answers depend on, and what it is worth."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wenlu.base.config import from_dict, to_dict
from wenlu.base.errors import UserError, did_you_mean
from wenlu.base.files import atomic_write
from wenlu.base.log import counted, say
from wenlu.inference.draws import Draws
from wenlu.prompting.answers import WHOLE_TEXT, Extractor
from wenlu.prompting.backend import Spent
from wenlu.prompting.calibrate import Prior, Scoring
from wenlu.prompting.demonstrations import ALIKE, Chooser, Demonstrations
from wenlu.prompting.examples import Example, content_id
from wenlu.prompting.strategies import Direct, Strategy, read_strategy, write_strategy
from wenlu.prompting.template import Prompt, Template, common_fields

if TYPE_CHECKING:
    from wenlu.inference.generator import Settings
    from wenlu.prompting.backend import Backend
    from wenlu.prompting.similarity import Embed

VERSION = 1
"""Of the file's form."""


@dataclass(frozen=True)
class Shown:
    """An example as it is kept for demonstrations."""

    id: str = ""
    fields: dict[str, Any] = field(default_factory=dict)
    choices: tuple[str, ...] = ()
    gold: int | None = None
    answers: tuple[str, ...] = ()
    group: str = ""

    @classmethod
    def of(cls, example: Example) -> Shown:
        """What is kept of an example: all."""
        fields = json.loads(json.dumps(dict(example.fields), ensure_ascii=False))
        return cls(example.id, fields, example.choices, example.gold, example.answers, example.group)

    @property
    def example(self) -> Example:
        """The example again."""
        return Example(self.id, self.fields, self.choices, self.gold, self.answers, self.group)


@dataclass(frozen=True)
class Decoding(Draws):
    """How texts are drawn, greedily unless told otherwise. Raises UserError as `inference.generator.Settings`."""

    temperature: float = 0.0

    def __post_init__(self):
        _ = self.settings

    @property
    def settings(self) -> Settings:
        """The same for a backend."""
        from wenlu.inference.generator import Settings

        return Settings(**{name: getattr(self, name) for name in self.__dataclass_fields__})


@dataclass(frozen=True)
class ModelMark:
    """For what model the prompt was made."""

    name: str = ""
    backend: str = ""
    """The backend's fingerprint."""
    tokenizer: str | None = None
    """Its fingerprint; None of an endpoint, which does not show it."""
    chat_template: str | None = None
    """Hex sha256; None where there is none."""

    @classmethod
    def of(cls, backend: Backend) -> ModelMark:
        """Of a backend as it is now."""
        tokenizer = getattr(backend, "tokenizer", None)
        template = None if tokenizer is None else tokenizer.chat_template
        return cls(
            backend.name, backend.fingerprint, None if tokenizer is None else tokenizer.fingerprint,
            None if template is None else _sha256(template),
        )  # fmt: skip


@dataclass(frozen=True)
class SplitMark:
    """Which examples the prompt was made or judged on."""

    name: str = ""
    """Such as train, selection, test."""
    examples: int = 0
    sha256: str = ""
    """Of their ids and contents, whatever their order."""

    @classmethod
    def of(cls, name: str, examples: Sequence[Example]) -> SplitMark:
        """Of a split as it is now."""
        return cls(name, len(examples), _sha256(sorted(content_id(to_dict(Shown.of(one))) for one in examples)))


@dataclass(frozen=True)
class Verdict:
    """What the prompt was found to be worth, once, on examples that had no part in finding it."""

    said: str = ""
    """In words, such as: better than the prompt it began with."""
    metric: str = ""
    value: float = 0.0
    low: float | None = None
    """Of its 95 % interval."""
    high: float | None = None
    examples: int = 0
    against: str = ""
    """What the difference is to; empty where there is none."""
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None


@dataclass(frozen=True)
class Artifact:
    """Everything a prompt's answers depend on. Raises UserError for parts that do not go together."""

    name: str = ""
    template: Template = field(default_factory=lambda: Template(question="{{ question }}"))
    demonstrations: Demonstrations = field(default_factory=Demonstrations)
    """How they are chosen among `pool`."""
    pool: tuple[Shown, ...] = ()
    scoring: Scoring | None = None
    """By which score a choice is made; None: the answer is written."""
    prior: Prior | None = None
    """Of batch calibration, as it was kept."""
    strategy: dict[str, Any] = field(default_factory=lambda: write_strategy(Direct()))
    """How the answer is written, and in what form: as `strategies.read_strategy` reads it."""
    extractor: Extractor = WHOLE_TEXT
    decoding: Decoding = field(default_factory=Decoding)
    model: ModelMark = field(default_factory=ModelMark)
    splits: tuple[SplitMark, ...] = ()
    spent: Spent = field(default_factory=Spent)
    """What finding it has cost, before it was judged."""
    verdict: Verdict | None = None

    def __post_init__(self):
        if not self.name:
            raise UserError("a prompt that is kept needs a name")
        _ = self.way
        if self.demonstrations.kind == "none" and self.pool:
            raise UserError("a pool of examples without demonstrations is of no use: set demonstrations.kind")
        if self.demonstrations.kind != "none" and not self.pool:
            raise UserError(
                f"the prompt wants {counted(self.demonstrations.shots, 'demonstration')}, but has no pool to choose "
                "among: give it examples, each as [[pool]] with id, fields, choices and gold (or answers)"
            )
        if self.prior is not None and (self.scoring is None or self.scoring.kind != "batch"):
            raise UserError("a prior belongs to the score batch: leave it out, or set scoring.kind")
        at_once = self.scoring is None and self.template.stopped_at_once(self.stop)
        if at_once and self.decoding.stop:
            raise UserError(
                f"the delimiter {self.template.delimiter!r} holds {at_once!r} of decoding.stop, which ends a written "
                "answer before it begins: give another of them"
            )
        if at_once:
            raise UserError(
                f"the delimiter {self.template.delimiter!r} holds the separator {self.template.separator!r}, which ends"
                " a written answer before it begins: give another of them, or decoding.stop"
            )
        self._check_letters()
        self._check_fields()
        self.chooser(lambda texts: [[1.0]] * len(texts))

    def _check_letters(self) -> None:
        """A letter that is looked for must be one that the template gives the choice."""
        if self.scoring is not None or self.extractor.kind != "letter" or not self.template.shows_letters:
            return
        given, wanted = self.template.letters, self.extractor.letters
        if not given.startswith(wanted) and not wanted.startswith(given):
            raise UserError(
                f"the template gives choices the letters {given!r}, but the extractor looks for {wanted!r}: set "
                "extractor.letters to those of the template"
            )

    def _check_fields(self) -> None:
        """What chooses the demonstrations before a question must be on show in it: all else may be its answer."""
        if self.demonstrations.kind not in ALIKE:
            return
        asked = self.template.asked
        if hidden := next((name for name in self.demonstrations.fields if name not in asked), None):
            shown = ", ".join(common_fields([one.example for one in self.pool], self.template))
            raise UserError(
                f"demonstrations may not be chosen by {hidden!r}, which the question does not show and which may be "
                f"the answer: compare by {shown or 'what it shows'}"
            )
        if not self.compared.fields:
            raise UserError(
                f"{self.demonstrations.kind} demonstrations compare by what the question shows, but it names no field "
                "of text or number that all examples of the pool have: name one in the question"
            )

    @property
    def compared(self) -> Demonstrations:
        """How demonstrations are chosen, with the fields they are compared by: where none are named, those of text or
        number that the question shows and all of the pool have."""
        if self.demonstrations.kind not in ALIKE or self.demonstrations.fields:
            return self.demonstrations
        return replace(self.demonstrations, fields=common_fields([one.example for one in self.pool], self.template))

    def chooser(self, embed: Embed | None = None) -> Chooser:
        """Chooses what stands before a question; embed: for nearest and mmr, as when it was made."""
        return self.compared.over([shown.example for shown in self.pool], embed)

    @property
    def way(self) -> Strategy:
        """The strategy itself."""
        return read_strategy(self.strategy)

    @property
    def stop(self) -> tuple[str, ...]:
        """What ends a written text: the decoding's own stop, else the separator, after which a model would ask itself
        the next question. An answer of a form ends by itself."""
        way = self.way
        held = isinstance(way, Direct) and way.form.kind != "free"
        return () if held else self.decoding.stop or self.template.stop

    @property
    def sha256(self) -> str:
        """Hex, of all that the answers depend on and what is noted of them: the file's hash."""
        return _sha256(to_dict(self))

    def shown_before(self, example: Example, embed: Embed | None = None) -> tuple[Example, ...]:
        """The demonstrations before an example; embed: for nearest and mmr, as when it was made."""
        return self.chooser(embed)(example)

    def prompt(self, example: Example, embed: Embed | None = None) -> Prompt:
        """What a model reads for an example."""
        return self.template.render(example, self.shown_before(example, embed))

    def write(self, path: Path | str) -> None:
        """To one JSON file, whole or not at all."""
        body = {"wenlu_prompt": VERSION, "sha256": self.sha256, **to_dict(self)}
        atomic_write(path, json.dumps(body, ensure_ascii=False, indent=1, allow_nan=False) + "\n")

    def differs_from(self, backend: Backend) -> list[str]:
        """In what a backend is another than the one the prompt was made for, in words; nothing where it is the same."""
        now, names = (
            ModelMark.of(backend),
            {"backend": "model", "tokenizer": "tokenizer", "chat_template": "chat template"},
        )
        parts = [said for name, said in names.items() if getattr(now, name) != getattr(self.model, name)]
        return [f"the {part} is not that of {self.model.name}, for which the prompt was made" for part in parts]


def read_artifact(path: Path | str) -> Artifact:
    """A prompt that was kept.

    Raises UserError for a file that is none, is of a newer version, has an unknown setting, or was changed since.
    """
    try:
        body = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({error}): mend it, or write the prompt anew") from None
    if not isinstance(body, dict) or "wenlu_prompt" not in body:
        raise UserError(f"{path} is no prompt of wenlu's: its JSON has no wenlu_prompt with a version")
    version = body.pop("wenlu_prompt")
    if version != VERSION:
        raise UserError(
            f"{path} is of version {version!r}, but this wenlu reads {VERSION}: write it anew, or update wenlu"
        )
    noted = body.pop("sha256", None)
    try:
        found = from_dict(Artifact, body)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if noted is None:
        say(f"{path} has no sha256: it may have been changed since its verdict", style="yellow")
    elif noted != found.sha256:
        raise UserError(
            f"{path} was changed since it was written, so that its verdict is no longer its own: take the original, or "
            "remove the line sha256 to use it as it is"
        )
    return found


def diff(first: Artifact, second: Artifact) -> list[str]:
    """In what two prompts differ, in lines: the setting, what it was (-), what it is (+); none where they are equal.

    What a model reads comes first, in an artifact's own order; how the prompt came about (`_ORIGIN`) after it.
    """
    before, after = dict(_leaves(to_dict(first))), dict(_leaves(to_dict(second)))
    lines = []
    for name in sorted({**before, **after}, key=lambda name: re.split(r"[.\[ ]", name)[0] in _ORIGIN):
        if before.get(name, _ABSENT) == after.get(name, _ABSENT):
            continue
        lines.append(f"{name}:")
        for sign, side in (("-", before), ("+", after)):
            if name in side:
                lines += [f"  {sign} {line}" for line in _shown(side[name])]
    return lines


_ABSENT = object()
_ORIGIN = ("name", "model", "splits", "spent", "verdict")


def _leaves(value: Mapping[str, Any], name: str = "") -> list[tuple[str, Any]]:
    """(dotted name, value) of each setting; entries of lists by their id or name, where they have one."""
    found = []
    for key, item in value.items():
        place = f"{name}.{key}" if name else key
        if isinstance(item, dict):
            found += _leaves(item, place)
        elif isinstance(item, list) and item and all(isinstance(one, dict) for one in item):
            for number, one in enumerate(item):
                found += _leaves(one, f"{place}[{one.get('id') or one.get('name') or number}]")
            found.append((f"{place} in order", [one.get("id") or one.get("name") or n for n, one in enumerate(item)]))
        else:
            found.append((place, item))
    return found


def _shown(value: Any) -> list[str]:
    written = isinstance(value, str) and "\n" in value and not value.isspace()
    return value.split("\n") if written else [json.dumps(value, ensure_ascii=False)]


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def known_split(artifact: Artifact, name: str) -> SplitMark:
    """One of an artifact's splits. Raises UserError for a name that is none."""
    found = {split.name: split for split in artifact.splits}
    if name not in found:
        raise UserError(f"the prompt {artifact.name} notes no split {name!r}.{did_you_mean(name, found)}")
    return found[name]
