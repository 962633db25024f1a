"""Templates: how an example, and others before it, become a text or a conversation that a model goes on with."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property, lru_cache
from typing import Any, Literal

from wenlu.base.errors import UserError, did_you_mean
from wenlu.prompting.examples import Example

Prompt = str | tuple[dict[str, str], ...]
"""A text that a model goes on with, or a conversation (role, content) whose next part is the assistant's."""

OWN = ("choices", "letters", "options", "right", "prompt")
"""Names that templates have beside an example's fields."""


@dataclass(frozen=True)
class Part:
    """One message of a conversation, or the place where demonstrations stand."""

    role: Literal["system", "user", "assistant", "demonstrations"]
    """`demonstrations`: a message of the user's and one of the assistant's for each of them."""
    content: str = ""
    """Jinja over the example's fields and `prompt.instruction`, `prompt.question`, `prompt.demonstrations` (as text). A
    part that comes out empty is left out."""

    def __post_init__(self):
        if (self.role == "demonstrations") != (not self.content):
            raise UserError(
                "a part of role demonstrations has no content of its own, every other needs some: "
                f"not {self.role!r} with {self.content!r}"
            )


CHAT = (Part("system", "{{ prompt.instruction }}"), Part("demonstrations"), Part("user", "{{ prompt.question }}"))
"""A conversation as most models learn it."""


@dataclass(frozen=True)
class Template:
    """The parts of a prompt, each in Jinja. Raises UserError for what is no Jinja, or cannot be put together.

    As text a prompt is the instruction, each demonstration's question and answer, and the question, with separators
    between them. As a conversation it is what `chat` says.
    """

    question: str = ""
    """What is asked, over the example's fields and `choices`, `letters` and `options` (the choices with letters)."""
    answer: str = "{{ right }}"
    """What a demonstration answers, over the same names and `right`: the right choice's text or letter, or the first of
    the right answers."""
    instruction: str = ""
    """Stands before all, over the same names as the question."""
    delimiter: str = " "
    """Between a question and its answer, in texts."""
    separator: str = "\n\n"
    """Between instruction, demonstrations and question, in texts."""
    choices: Literal["text", "letters"] = "text"
    """Whether a choice is answered by what it says or by its letter."""
    letters: str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    option: str = "{{ letter }}. {{ choice }}"
    """One line of `options`, over `letter` and `choice`."""
    option_separator: str = "\n"
    channel_delimiter: str = "\n"
    """Between an answer and the question, where a question is read after its answer (`channel`)."""
    chat: tuple[Part, ...] = ()
    """The messages of a conversation; none: a text."""

    def __post_init__(self):
        if not self.question.strip():
            raise UserError("a template needs a question, such as question = 'Question: {{ question }}\\nAnswer:'")
        if len(set(self.letters)) != len(self.letters) or not self.letters or re.search(r"\s", self.letters):
            raise UserError(f"letters must be different characters without spaces, not {self.letters!r}")
        for name in ("question", "answer", "instruction", "option"):
            compiled(getattr(self, name), f"the template's {name}")
        for part in self.chat:
            compiled(part.content, f"the {part.role}'s part")
        if self.chat and self.chat[-1].role != "user":
            raise UserError(
                f"a conversation must end with the user's part, for the assistant's comes next, not with "
                f"{self.chat[-1].role}"
            )

    def render(self, example: Example, demonstrations: Sequence[Example] = ()) -> Prompt:
        """What a model reads for an example. Raises UserError, with the fields there are, for a name that is none."""
        instruction, question = self._filled("instruction", example), self._filled("question", example)
        shown = [self._filled("question", one) + self.delimiter + self.answered(one) for one in demonstrations]
        if not self.chat:
            return self.separator.join([*([instruction] if instruction else []), *shown, question])
        if demonstrations and not self.shows_demonstrations:
            raise UserError(
                "the conversation has no place for demonstrations: add a part of role demonstrations, or write "
                "{{ prompt.demonstrations }} in one"
            )
        own = {"instruction": instruction, "question": question, "demonstrations": self.separator.join(shown)}
        messages: list[dict[str, str]] = []
        for part in self.chat:
            if part.role == "demonstrations":
                for one in demonstrations:
                    messages.append({"role": "user", "content": self._filled("question", one)})
                    messages.append({"role": "assistant", "content": self.answered(one)})
            elif content := _fill(part.content, f"the {part.role}'s part", example, self._names(example, prompt=own)):
                messages.append({"role": part.role, "content": content})
        return tuple(messages)

    @property
    def stop(self) -> tuple[str, ...]:
        """What ends a written answer: in texts the separator, after which a model asks itself a question of its own."""
        return () if self.chat or not self.separator else (self.separator,)

    @property
    def shows_demonstrations(self) -> bool:
        """Whether there is a place for them: in a text always, in a conversation where a part names them."""
        return not self.chat or any("demonstrations" in (part.role, *_words(part.content)) for part in self.chat)

    def stopped_at_once(self, stop: Sequence[str]) -> str:
        """Which of these texts ends a written answer before it begins, for the delimiter before it holds that; empty
        where none does. In a conversation nothing stands before an answer."""
        return next((text for text in stop if text in self.delimiter and not self.chat), "")

    @property
    def asked(self) -> frozenset[str]:
        """The names that instruction, question and conversation use, fields of examples among them; not the answer's,
        which no question shows."""
        import jinja2.meta

        texts = (self.instruction, self.question, *(part.content for part in self.chat))
        return frozenset().union(*(jinja2.meta.find_undeclared_variables(_environment().parse(one)) for one in texts))

    def continuations(self, example: Example) -> tuple[str, ...]:
        """What may follow the prompt, one text for each choice: after the delimiter in a text, bare in a conversation.

        Raises UserError for an example without choices.
        """
        if not example.choices:
            raise UserError(
                f"example {example.id} has no choices to score: name them by --labels, or "
                "the field that holds them by --choices"
            )
        return tuple(("" if self.chat else self.delimiter) + text for text in self.choice_texts(example))

    def choice_texts(self, example: Example) -> tuple[str, ...]:
        """How the choices are answered: what they say, or their letters."""
        return example.choices if self.choices == "text" else tuple(self._letters(example))

    def as_answered(self, example: Example) -> Example:
        """The example with its choices as they are answered: what a written answer is compared with."""
        return replace(example, choices=self.choice_texts(example)) if example.choices else example

    def answered(self, example: Example, choice: int | None = None) -> str:
        """The answer as a demonstration gives it, or as it would be with another choice."""
        if choice is not None:
            right = self.choice_texts(example)[choice]
        elif example.gold is not None:
            right = self.choice_texts(example)[example.gold]
        else:
            right = example.right
        return _fill(self.answer, "the template's answer", example, self._names(example, right=right))

    def channel(self, example: Example, demonstrations: Sequence[Example], choice: int) -> tuple[str, str]:
        """The other direction: a text that ends with a choice, and the question as its continuation.

        Source: Min et al. 2022, arXiv 2108.04106. Raises UserError for a conversation.
        """
        if self.chat:
            raise UserError("a question is read after its answer in texts only: leave out chat, or the noisy channel")
        instruction = self._filled("instruction", example)
        shown = [self.answered(one) + self.channel_delimiter + self._filled("question", one) for one in demonstrations]
        before = [*([instruction] if instruction else []), *shown, self.answered(example, choice)]
        return self.separator.join(before), self.channel_delimiter + self._filled("question", example)

    def _filled(self, name: str, example: Example) -> str:
        return _fill(getattr(self, name), f"the template's {name}", example, self._names(example))

    def _names(self, example: Example, **more: Any) -> dict[str, Any]:
        own: dict[str, Any] = {"choices": list(example.choices)}
        if example.choices and self.shows_letters:
            letters = self._letters(example)
            lines = [
                _fill(self.option, "the template's option", example, {"letter": letter, "choice": choice})
                for letter, choice in zip(letters, example.choices, strict=True)
            ]
            own |= {"letters": letters, "options": self.option_separator.join(lines)}
        return own | more

    @cached_property
    def shows_letters(self) -> bool:
        """Whether choices have letters, to be answered by or to be seen."""
        texts = (self.question, self.answer, self.instruction, *(part.content for part in self.chat))
        return self.choices == "letters" or any({"options", "letters"} & set(_words(text)) for text in texts)

    def _letters(self, example: Example) -> list[str]:
        if len(example.choices) > len(self.letters):
            raise UserError(
                f"example {example.id} has {len(example.choices)} choices, but the template only {len(self.letters)} "
                "letters: give more letters"
            )
        return list(self.letters[: len(example.choices)])


def common_fields(examples: Sequence[Example], template: Template | None = None) -> tuple[str, ...]:
    """The text and number fields that all examples have; of a template, only those that it asks with.

    What no question names may be the answer in other words, such as a label's text beside its number.
    """
    asked = None if template is None else template.asked
    return tuple(
        name
        for name in (examples[0].fields if examples else ())
        if all(isinstance(one.fields.get(name), str | int | float) for one in examples)
        and (asked is None or name in asked)
    )


def as_chat(template: Template) -> Template:
    """The same as a conversation of the usual form."""
    return replace(template, chat=CHAT)


def as_text(template: Template) -> Template:
    """The same as a text."""
    return replace(template, chat=())


def neutral(example: Example, content: str) -> Example:
    """The example with every text and number in its fields replaced, for content-free inputs; its choices stay."""

    def blank(value: Any) -> Any:
        match value:
            case bool():
                return value
            case str() | int() | float():
                return content
            case list() | tuple():
                return [blank(one) for one in value]
            case dict():
                return {name: blank(one) for name, one in value.items()}
        return value

    fields = {name: value if name == "choices" else blank(value) for name, value in example.fields.items()}
    return replace(example, fields=fields)


def appended(prompt: Prompt, text: str, *, space: str = "\n") -> Prompt:
    """The prompt with more at its end: of the text, or of the conversation's last message."""
    if isinstance(prompt, str):
        return prompt + text
    last = prompt[-1]
    return (*prompt[:-1], {**last, "content": last["content"] + space + text})


@lru_cache(maxsize=4096)
def compiled(source: str, what: str) -> Any:
    """A piece of a template as Jinja, in the sandbox of chat templates, without the clock and chance."""
    import jinja2

    try:
        return _environment().from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise UserError(f"{what} is no Jinja (line {error.lineno}: {error.message})") from None


@cache
def _environment() -> Any:
    import jinja2

    from wenlu.tokenization.chat_format import sandbox

    class Missing(jinja2.StrictUndefined):
        """A name that is not there; what is refused is its name."""

        __slots__ = ()

        @property
        def _undefined_message(self) -> str:
            return str(self._undefined_name)

    environment = sandbox()
    environment.undefined, environment.keep_trailing_newline = Missing, True
    del environment.globals["strftime_now"], environment.filters["random"]
    return environment


def _fill(source: str, what: str, example: Example, own: Mapping[str, Any]) -> str:
    import jinja2.sandbox

    for name in OWN:
        if name in example.fields and not (name == "choices" and list(example.fields[name]) == list(example.choices)):
            raise UserError(f"example {example.id} has a field {name!r}, which is a name of templates' own: rename it")
    names = {**example.fields, **own}
    try:
        return compiled(source, what).render(**names)
    except jinja2.UndefinedError as error:
        near = did_you_mean(str(error), names)
        raise UserError(
            f"{what} asks for {str(error)!r}, which example {example.id} has not.{near} "
            f"There are: {', '.join(sorted(names))}"
        ) from None
    except jinja2.sandbox.SecurityError as error:
        raise UserError(f"{what} asks for {str(error)!r}, which templates may not see: leave it out") from None
    except jinja2.TemplateError as error:
        raise UserError(f"{what} cannot be filled: {error}") from None
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
        raise UserError(f"{what} cannot be filled ({type(error).__name__}: {error})") from None


def _words(source: str) -> list[str]:
    return re.findall(r"\w+", " ".join(re.findall(r"\{[{%].*?[%}]\}", source, re.DOTALL)))


def differing(first: Template, second: Template) -> list[str]:
    """The names of the settings in which two templates differ."""
    return [field.name for field in fields(Template) if getattr(first, field.name) != getattr(second, field.name)]
