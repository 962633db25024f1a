"""Text in, text out: a prompt is continued by a model, whole or piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from wenlu.base.errors import UserError
from wenlu.inference.adjust import UNCHANGED, Adjustments
from wenlu.inference.batch import Engine, Options
from wenlu.inference.beam import Beams, Hypothesis, beam_search
from wenlu.inference.constrain import Constrainer, Constraint, Matcher
from wenlu.inference.draws import Draws
from wenlu.inference.reading import check_prompt
from wenlu.inference.sample import Strategy, row_generator, strategy
from wenlu.inference.stream import Result, Row, Stream
from wenlu.inference.text import Request
from wenlu.models.config import ROTARY
from wenlu.tokenization.chat_format import ChatFormat
from wenlu.tokenization.tokenizer import Tokenizer


@dataclass(frozen=True)
class Settings(Draws):
    """How to continue a prompt. Raises UserError for a value of another kind, or out of its range."""

    beams: int = 1
    """More than 1: the most probable texts that a search with so many beams finds; nothing is drawn."""
    length_penalty: float = 0.6
    """Of that search; 0 = none, which favours short texts (`beam.Beams`)."""
    adjustments: Adjustments = UNCHANGED
    """Penalties of repetition, and tokens favoured or barred."""
    constraint: Constraint | None = None
    """A form that the whole text must have."""
    alternatives: int | None = None
    """Give log-probabilities of the tokens made, and of so many likeliest ones at each place."""

    def __post_init__(self):
        self._check_kinds()
        if self.max_tokens < 1:
            raise UserError(f"max_tokens must be at least 1, not {self.max_tokens}")
        if self.seed < 0:
            raise UserError(f"seed must not be negative, not {self.seed}")
        _ = self.strategy, Beams(self.beams, self.length_penalty)
        if self.beams > 1 and (self.top_k, self.top_p, self.min_p) != (0, 1.0, 0.0):
            raise UserError(f"{self.beams} beams draw nothing: leave out top_k, top_p and min_p")
        if self.beams > 1 and (self.temperature not in (0, Settings.temperature) or self.seed):
            raise UserError(f"{self.beams} beams draw nothing: leave out temperature and seed")
        if self.beams == 1 and self.length_penalty != Settings.length_penalty:
            raise UserError("length_penalty is for beams: give more than one, or leave it out")
        if self.beams > 1 and self.stop:
            raise UserError(f"{self.beams} beams end at end tokens only: leave out stop")
        if self.constraint is not None and (self.stop or self.beams > 1):
            raise UserError("a constraint says where a text ends: leave out stop and beams")
        if self.alternatives is not None and self.alternatives < 0:
            raise UserError(f"alternatives must be 0 (the tokens made) or more, not {self.alternatives}")
        if self.beams > 1 and (self.alternatives is not None or not self.adjustments.none):
            raise UserError(
                f"{self.beams} beams search by the model's own logits: leave out penalties, biases and alternatives"
            )

    def _check_kinds(self) -> None:
        for name in ("max_tokens", "top_k", "seed", "beams", "alternatives"):
            value = getattr(self, name)
            if type(value) is not int and (name, value) != ("alternatives", None):
                raise UserError(f"{name} must be a whole number, not {value!r}")
        for name in ("temperature", "top_p", "min_p", "length_penalty"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or isinstance(value, bool):
                raise UserError(f"{name} must be a number, not {value!r}")
        if not isinstance(self.stop, tuple) or not all(isinstance(text, str) and text for text in self.stop):
            raise UserError(f"stop must be a tuple of texts, none of them empty, not {self.stop!r}")

    def check_samples(self, samples: int) -> None:
        """Raises UserError for a number of continuations that cannot be made."""
        if samples < 1:
            raise UserError(f"samples must be at least 1, not {samples}")
        if 1 < self.beams < samples:
            raise UserError(f"{self.beams} beams find as many texts: samples must be no more, not {samples}")

    @property
    def strategy(self) -> Strategy:
        """The same choice as an object."""
        return strategy(self.temperature, self.top_k, self.top_p, self.min_p)


class Generator:
    """A model and its tokenizer as a writer of text.

    >>> model, tokenizer = load("runs/book")
    >>> print(Generator(model, tokenizer).generate("It was", Settings(temperature=0))[0].text)
    """

    def __init__(
        self, model: nn.Module, tokenizer: Tokenizer | None, *, chat: bool = False, options: Options | None = None
    ):
        """`chat`: a prompt is what a user says, and is answered, by the chat template of the model's folder. `options`:
        of the engine that writes.

        Raises UserError where they do not belong together, where the model cannot write, and for `chat` without a
        template.
        """
        if model.config.family == "bert":
            raise UserError("a bert reads both ways and cannot write on: take a gpt2, llama, qwen3 or t5 for that")
        check_together(model, tokenizer)
        self._model, self._tokenizer = model, tokenizer
        t5 = model.config.family == "t5"
        if chat and (t5 or tokenizer.chat_template is None):
            why = "a t5 answers every prompt as it stands" if t5 else "the model's folder has no chat template"
            raise UserError(f"{why}: leave chat out" + ("" if t5 else ", or tune the model on conversations first"))
        self._format = ChatFormat(tokenizer) if chat else None
        self.options = options or Options()
        self._gaps = tuple(id for id in range(tokenizer.vocab) if id not in tokenizer)
        """Ids among the tokenizer's that no token has: the model has rows for them, but they are no text."""
        self.engine = Engine(model, tokenizer.vocab, self.options, self._gaps)
        self.answers = t5 or chat
        """Whether the model answers a prompt with a text of its own, instead of continuing it."""

    def prompt_ids(self, prompt: str) -> list[int]:
        """The prompt as tokens after the one that begins a document, where the model has such a token.

        That is bos; for tokenizers learned here it is the separator of documents. A bos written in the prompt is
        text, so there is never a second one. Raises UserError for an empty prompt where there is no bos. t5's encoder
        reads the prompt and the token that ends a text; in a chat the prompt is a message of the user's, after which
        the assistant's part has begun.
        """
        if self._format is not None:
            return self._format.prompt([{"role": "user", "content": prompt}])
        if self.answers:
            return self._tokenizer.encode(prompt) + end_ids(self._model, self._tokenizer)
        bos = begin_id(self._model, self._tokenizer)
        if not prompt and bos is None:
            raise UserError("an empty prompt begins at the bos token, but this tokenizer has none: give a prompt")
        return ([] if bos is None else [bos]) + (self._tokenizer.encode(prompt) if prompt else [])

    def check(self, prompt: str) -> None:
        """Raises UserError for a prompt that the model cannot read."""
        check_prompt(self._model.config, self.prompt_ids(prompt))

    def stream(self, prompt: str | Sequence[int], settings: Settings | None = None, *, sample: int = 0) -> Stream:
        """One continuation of a text or of ids, in pieces that never tear a character and never show part of a stop
        text; the draws are those of that sample of the seed. It is written once its first piece is asked for, beside
        all that this Generator is writing."""
        settings = settings or Settings()
        if settings.beams > 1:
            raise UserError("beams know a text only when they are done with it: use generate, not stream")
        ids = self.prompt_ids(prompt) if isinstance(prompt, str) else list(prompt)
        request = Request(
            tuple(ids), settings.strategy, settings.max_tokens, frozenset(self._ends()),
            row_generator(settings.seed, sample), settings.adjustments, self._matcher(ids, settings),
            settings.alternatives,
        )  # fmt: skip
        return Stream(self.engine, self.engine.add(request), self._row(ids, settings))

    def generate(
        self, prompt: str | Sequence[int], settings: Settings | None = None, *, samples: int = 1
    ) -> list[Result]:
        """`samples` continuations of a text or of ids, made side by side; the first is what `stream` gives.

        With beams, the `samples` best ones.
        """
        settings = settings or Settings()
        settings.check_samples(samples)
        if settings.beams > 1:
            ids = self.prompt_ids(prompt) if isinstance(prompt, str) else list(prompt)
            return self._search([ids], settings)[0][:samples]
        return self._finished([self.stream(prompt, settings, sample=sample) for sample in range(samples)])

    def answer(self, prompts: Sequence[str], settings: Settings | None = None) -> list[Result]:
        """The answer to each of the prompts; each is what it would be alone (law 8).

        They are written side by side; by beams, t5 reads them so, others those that are equally long. Raises UserError
        for a model that goes on with texts, without `chat`.
        """
        settings = settings or Settings()
        if not self.answers:
            raise UserError("this model goes on with texts: to be answered, make the Generator with chat=True")
        if settings.beams == 1:
            return self._finished([self.stream(prompt, settings) for prompt in prompts])
        ids = [self.prompt_ids(prompt) for prompt in prompts]
        results: dict[int, Result] = {}
        lengths = [0 if self._format is None else len(one) for one in ids]
        for length in dict.fromkeys(lengths):
            members = [number for number, known in enumerate(lengths) if known == length]
            found = self._search([ids[number] for number in members], settings)
            results |= {number: hypotheses[0] for number, hypotheses in zip(members, found, strict=True)}
        return [results[number] for number in range(len(prompts))]

    def _finished(self, streams: list[Stream]) -> list[Result]:
        """All of them, written side by side."""
        while not all(stream.done for stream in streams):
            self.engine.step()
            for stream in streams:
                stream.pull()
        return [stream.result for stream in streams]

    def _search(self, ids: list[list[int]], settings: Settings) -> list[list[Result]]:
        """What beams find for each of the prompts, the best first."""
        beams = Beams(settings.beams, settings.length_penalty)
        known = self._tokenizer.vocab
        found = beam_search(self._model, ids, beams, settings.max_tokens, self._ends(), known, self._gaps)
        return [
            [self._found(one, hypothesis) for hypothesis in hypotheses]
            for one, hypotheses in zip(ids, found, strict=True)
        ]

    def _found(self, ids: list[int], hypothesis: Hypothesis) -> Result:
        row, config = self._row(ids, Settings()), self._model.config
        for token in hypothesis.ids:
            row.push(token)
        row.flush()
        beyond = config.family in ROTARY and len(ids) + len(hypothesis.ids) - 1 > config.context
        return Result(row.text, hypothesis.ids, hypothesis.finish, len(ids), beyond, hypothesis.log_probability)

    @cached_property
    def _constrainer(self) -> Constrainer:
        return Constrainer(self._tokenizer, self._tokenizer.vocab, self._ends())

    def _matcher(self, ids: list[int], settings: Settings) -> Matcher | None:
        if settings.constraint is None:
            return None
        return self._constrainer.matcher(settings.constraint, [] if self.answers else ids)

    def _ends(self) -> set[int]:
        config = self._model.config
        return {self._tokenizer.eos_id, config.eos_id, *config.other_eos_ids} - {None}

    def _row(self, ids: list[int], settings: Settings) -> Row:
        """t5 begins a text of its own, the others continue their prompt."""
        return Row(self._tokenizer, [] if self.answers else ids, settings.stop)


def begin_id(model: nn.Module, tokenizer: Tokenizer) -> int | None:
    """The token that stands before a document: the tokenizer's bos, else the model's; None where there is none, or
    where the tokenizer's folder says that texts begin without."""
    if not tokenizer.begins:
        return None
    return model.config.bos_id if tokenizer.bos_id is None else tokenizer.bos_id


def end_ids(model: nn.Module, tokenizer: Tokenizer) -> list[int]:
    """The token that ends what t5's encoder reads: the model's eos, else the tokenizer's; none where there is none."""
    end = tokenizer.eos_id if model.config.eos_id is None else model.config.eos_id
    return [] if end is None else [end]


def check_together(model: nn.Module, tokenizer: Tokenizer | None) -> None:
    """Raises UserError where there is no tokenizer, or one with ids that the model has no row for."""
    if tokenizer is None:
        raise UserError("the model's folder holds no tokenizer: put its tokenizer.json there")
    if tokenizer.vocab > model.config.vocab:
        raise UserError(
            f"the tokenizer has {tokenizer.vocab} ids, but the model only {model.config.vocab}: "
            "they do not belong together"
        )
