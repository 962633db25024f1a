"""wenlu chat: a conversation with a model in the terminal."""

from __future__ import annotations

import json as json_format
import math
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from wenlu.base.errors import UserError, did_you_mean
from wenlu.base.log import console, counted, say
from wenlu.cli.flags import parse
from wenlu.cli.writer import Writing

if TYPE_CHECKING:
    from wenlu.inference.conversation import Answer, Conversation
    from wenlu.inference.generator import Settings
    from wenlu.inference.stream import Result
    from wenlu.tokenization.tokenizer import Tokenizer

DESCRIPTION = """A conversation with a model, by the chat template of its folder; in it, /help tells what else can be
said.

example: wenlu chat runs/chat --system "You answer in one sentence." --temperature 0.7
         printf 'Who are you?\\n/why\\n' | wenlu chat runs/chat --json"""

HELP = """/system TEXT      another system message; without TEXT, none
/reset            forget what was said
/regenerate       the last answer again, with another seed
/why              how probable each token of the last answer was, and what else it might have been
/set NAME VALUE   such as /set temperature 0.7; also top_k, top_p, min_p, max_tokens, seed
/save FILE        keep the conversation; /load FILE goes on with it
/quit             or Ctrl-D; Ctrl-C stops an answer
A line that ends in \\ goes on in the next."""

SETTABLE = {"temperature": float, "top_k": int, "top_p": float, "min_p": float, "max_tokens": int, "seed": int}
ALONE = ("help", "reset", "regenerate", "why", "quit", "exit")
"""Commands with nothing after them."""
ALTERNATIVES = 3


@dataclass(frozen=True, kw_only=True)
class Command(Writing):
    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A run's folder, any Transformers folder with a chat template, or a hub id."""
    system: str = ""
    """What the model is told before anything is said."""
    load: Path | None = None
    """A conversation saved with /save, to go on with."""
    max_tokens: int = 400
    """Longest answer, in tokens."""
    temperature: float = 0.7
    """0 = greedy: always the most probable token."""
    json: bool = False
    """Print one JSON object for each answer."""


def main(arguments: list[str]) -> int:
    return run(parse(Command, "chat", arguments, DESCRIPTION))


def run(command: Command) -> int:
    """Carry out the command; what is wrong with its flags and files is said before the model is read."""
    from wenlu.inference.batch import Options
    from wenlu.inference.conversation import Conversation, read_messages
    from wenlu.inference.generator import Settings
    from wenlu.inference.prefix import ROOM

    settings = Settings(**command.sampling, alternatives=ALTERNATIVES)
    command.check()
    messages = None if command.load is None else read_messages(command.load)
    with command.model(command.run) as (model, tokenizer, guesses):
        # What was said is said again with every turn: it is read once.
        options = Options(prefix_bytes=ROOM, guesses=guesses)
        conversation = Conversation(model, tokenizer, system=command.system, options=options)
        if messages is not None:
            conversation.messages = messages
            if command.system:
                conversation.system(command.system)
        Chat(conversation, tokenizer, settings, command.json).run()
    return 0


class Chat:
    """Lines in, answers out."""

    def __init__(self, conversation: Conversation, tokenizer: Tokenizer, settings: Settings, json: bool):
        self._conversation, self._tokenizer, self._settings, self._json = conversation, tokenizer, settings, json
        self._last: Result | None = None
        self._asked = sys.stdin.isatty()
        self._commands = {
            "help": lambda _: console.print(HELP, markup=False, highlight=False),
            "system": self._system,
            "reset": self._reset,
            "regenerate": lambda _: self._regenerate(),
            "why": lambda _: self._why(),
            "set": self._set,
            "save": lambda rest: self._with_file(self._conversation.save, rest),
            "load": self._load,
        }

    def run(self) -> None:
        """Until /quit or the end of what is typed."""
        if self._asked:
            with suppress(ImportError):
                import readline  # noqa: F401 - input() has a history with it
            say("/help tells what can be said besides; Ctrl-D ends", "dim")
        with suppress(AttributeError):  # what is no stream of bytes has none that are wrong
            sys.stdin.reconfigure(errors="surrogateescape")
        while True:
            try:
                text = self._read()
                if text is None or not self._carry_out(text):
                    return
            except UserError as error:
                say(str(error), "red")

    def _carry_out(self, text: str) -> bool:
        """One line; whether the conversation goes on."""
        if not text.startswith("/"):
            if text.strip():
                self._show(self._conversation.ask(text, self._settings))
            return True
        name, _, rest = text[1:].partition(" ")
        if name in ALONE and rest.strip():
            raise UserError(f"/{name} takes nothing after it, but {rest.strip()!r} was given: leave it out")
        if name in ("quit", "exit"):
            return False
        if name not in self._commands:
            raise UserError(f"no command /{name}.{did_you_mean(name, self._commands)} /help lists them")
        self._commands[name](rest.strip())
        return True

    def _read(self) -> str | None:
        """What is typed, several lines where they end in a backslash; None at the end."""
        lines: list[str] = []
        while True:
            try:
                line = input(("… " if lines else "> ") if self._asked else "")
            except EOFError:
                return "\n".join(lines) if lines else None
            except KeyboardInterrupt:
                console.print()
                return "" if lines or self._asked else None
            if any("\udc80" <= character <= "\udcff" for character in line):
                raise UserError("what is typed is not UTF-8: convert it first")
            if not line.endswith("\\"):
                return "\n".join([*lines, line])
            lines.append(line[:-1])

    def _show(self, answer: Answer) -> None:
        if answer.dropped:
            turns = f"{answer.dropped} oldest turns" if answer.dropped > 1 else "oldest turn"
            say(f"the conversation is longer than the model reads: it does not see the {turns}", "yellow")
        try:
            for piece in answer:
                if not self._json:
                    print(piece, end="", flush=True)
        except KeyboardInterrupt:
            answer.stop()
        self._last = result = answer.result
        if self._json:
            found = {"text": result.text, "finish": result.finish, "tokens": len(result.ids)}
            found |= {"guessed": result.guessed, "taken": result.taken} if result.guessed else {}
            found |= {"beyond_context": result.beyond_context, "near_ties": result.near_ties}
            found |= {"dropped_turns": answer.dropped}
            print(json_format.dumps(found, ensure_ascii=False), flush=True)
        else:
            print(flush=True)
            told = {"cancelled": "stopped", "length": "cut at max_tokens", "context": "cut: the context is full"}
            if result.finish in told:
                say(told[result.finish], "dim")
            if result.near_ties:
                say(counted(result.near_ties, "near-tie"), "dim")
        if result.beyond_context:
            read = f"the {self._conversation.context:,} tokens that the model was trained on"
            say(f"note: question and answer are longer than {read}", "yellow")

    def _system(self, text: str) -> None:
        self._conversation.system(text)
        said = len(self._conversation.messages) - bool(text)
        after = f"; the {counted(said, 'message')} so far stay" if said else ""
        say((f"the system's message is now: {text}" if text else "no system's message") + after, "dim")

    def _reset(self, _: str) -> None:
        before = len(self._conversation.messages)
        self._conversation.reset()
        kept = len(self._conversation.messages)
        self._last = None
        say(f"{counted(before - kept, 'message')} forgotten" + ("; the system's message stays" if kept else ""), "dim")

    def _regenerate(self) -> None:
        settings = replace(self._settings, seed=self._settings.seed + 1)
        answer = self._conversation.again(settings)
        say(f"with seed {settings.seed}", "dim")
        self._show(answer)
        self._settings = settings

    def _set(self, rest: str) -> None:
        name, _, value = rest.partition(" ")
        if name not in SETTABLE:
            raise UserError(f"no setting {name!r}.{did_you_mean(name, SETTABLE)} There are: {', '.join(SETTABLE)}")
        try:
            number = SETTABLE[name](value)
        except ValueError:
            kind = "a whole number" if SETTABLE[name] is int else "a number"
            raise UserError(f"{name} must be {kind}, not {value!r}") from None
        before = getattr(self._settings, name)
        self._settings = replace(self._settings, **{name: number})
        say(f"{name} is now {number} (before: {before})", "dim")
        if name == "max_tokens" and number > self._conversation.context:
            read = f"the {self._conversation.context:,} tokens that the model reads, question and answer together"
            say(f"note: that is more than {read}", "yellow")

    def _load(self, name: str) -> None:
        before = len(self._conversation.messages)
        self._with_file(self._conversation.load, name)
        messages = self._conversation.messages
        self._last = None
        if before:
            say(f"they take the place of the {counted(before, 'message')} before", "dim")
        if messages:
            say(f"last, {messages[-1]['role']}: {_shortened(messages[-1]['content'])}", "dim")

    def _with_file(self, act, name: str) -> None:
        if not name:
            raise UserError("name a file: /save FILE, or /load FILE")
        try:
            act(Path(name).expanduser())
        except RuntimeError:
            raise UserError(f"nobody has a home folder called {name}: name the file by its whole path") from None
        except OSError as error:
            raise UserError(f"cannot write {name}: {error.strerror or error}") from None
        say(f"{counted(len(self._conversation.messages), 'message')} in {name}", "dim")

    def _why(self) -> None:
        if self._last is None or not self._last.ids:
            raise UserError("there is no answer yet to explain: ask something first")
        rows = []
        pairs = zip(self._last.ids, self._last.log_probabilities, self._last.alternatives, strict=True)
        for id, log_probability, best in pairs:
            others = [[self._shown(other), math.exp(value)] for other, value in best]
            rows.append({"token": self._shown(id), "probability": math.exp(log_probability), "likeliest": others})
        if self._json:
            print(json_format.dumps({"why": rows}, ensure_ascii=False), flush=True)
            return
        from rich.table import Table

        table = Table("token", "probability", "likeliest", box=None, header_style="dim")
        for row in rows:
            others = ", ".join(f"{quoted(token)} {chance:.0%}" for token, chance in row["likeliest"])
            table.add_row(quoted(row["token"]), f"{row['probability']:.1%}", others)
        console.print(table, markup=False)

    def _shown(self, id: int) -> str:
        # By its bytes: a decoder would take the space off a word that begins a text. Where they are part of a character
        # only, each stands as <0xE6>, as byte tokens are written elsewhere.
        text = self._tokenizer.token_bytes(id).decode("utf-8", "surrogateescape")
        return "".join(f"<0x{ord(c) - 0xDC00:02X}>" if "\udc80" <= c <= "\udcff" else c for c in text)


def quoted(token: str) -> str:
    """In quotes, so that spaces are seen; line ends and the like escaped, all else as it stands."""
    return '"' + "".join(c if c.isprintable() else repr(c)[1:-1] for c in token) + '"'


def _shortened(text: str, width: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 1]}…"
