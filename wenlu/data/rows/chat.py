"""Conversations for tuning a chat model: records of the usual forms → messages → ids and loss mask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wenlu.base.errors import UserError
from wenlu.data.reading.extras import extra
from wenlu.data.reading.records import Record, kind_of, records_of
from wenlu.data.rows.config import Example, RowsConfig
from wenlu.data.rows.tally import Tally
from wenlu.tokenization.chat_format import ChatFormat, Message

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
}
"""Names of speakers in records → the roles of chat templates."""
QUESTIONS = (("prompt", "response"), ("prompt", "completion"), ("question", "answer"))
UNKNOWN = "of no known form"
SHAPES = "messages, conversations, instruction and output, prompt and response"


class Malformed(Exception):
    """Why a record is left out."""


def read(files: list[Path], config: RowsConfig, tally: Tally) -> Iterator[Example]:
    """The conversations of files; what is malformed is counted."""
    for file in files:
        found, before = False, tally.records
        for line, record in _records(file, tally):
            where = f"{file}:{line}"
            tally.records += 1
            try:
                kind, talks = recognised(record)
            except Malformed as error:
                tally.drop(where, str(error))
                found = found or str(error) != UNKNOWN
                continue
            found = True
            tally.kinds[kind] += 1
            turns = record.get("messages")
            tally.noted["thoughts beside a message (reasoning_content) left out"] += isinstance(turns, list) and any(
                turn.get("reasoning_content") for turn in turns
            )
            tally.records += len(talks) - 1
            for talk in talks:
                try:
                    messages = checked(talk, tally, joined=kind == "transcript")
                except Malformed as error:
                    tally.drop(where, str(error))
                else:
                    asked = next(n for n, message in enumerate(messages) if message["role"] == "user")
                    yield Example(where, messages, messages[: asked + 1])
        tally.noted = +tally.noted
        if not found and tally.records > before:
            raise UserError(f"{file} holds no record of a known form: it wants {SHAPES}")


def _records(file: Path, tally: Tally) -> Iterator[Record]:
    if kind_of(file) not in (".yml", ".yaml"):
        yield from records_of(file, tally.source)
        return
    yaml = extra("yaml", "yaml", str(file))
    tally.source.begin(file)
    try:
        body = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{file} is no YAML ({' '.join(str(error).split())[:100]}): mend it") from None
    if not isinstance(body, dict) or not isinstance(body.get("conversations"), list):
        raise UserError(f"{file} holds no list under 'conversations'")
    for number, turns in enumerate(body["conversations"], start=1):
        yield number, {"turns": turns}


def recognised(record: dict[str, Any]) -> tuple[str, list[list[dict[str, Any]]]]:
    """(name of the form, its conversations as messages yet to be checked). Raises `Malformed` where it is of none."""
    for name in ("messages", "conversations", "conversation"):
        if isinstance(turns := record.get(name), list):
            return _turns(turns, record)
    if isinstance(turns := record.get("utterances"), list):
        if not all(isinstance(turn, dict) for turn in turns):
            raise Malformed("a turn that is no object")
        return "transcript", [[{"role": turn.get("speaker"), "content": turn.get("text")} for turn in turns]]
    if isinstance(turns := record.get("turns"), list):
        return "list of turns", [_alternating(turns)]
    if "instruction" in record:
        return _alpaca(record)
    for question, answer in QUESTIONS:
        if question in record and answer in record:
            return f"{question} and {answer}", [[_user(record[question]), _assistant(record[answer])]]
    raise Malformed(UNKNOWN)


def _turns(turns: list[Any], record: dict[str, Any]) -> tuple[str, list[list[dict[str, Any]]]]:
    if not all(isinstance(turn, dict) for turn in turns):
        raise Malformed("a turn that is no object")
    sharegpt = any("from" in turn for turn in turns)
    if sharegpt and any("role" in turn for turn in turns):
        raise Malformed("turns of two forms in one record")
    role, content = ("from", "value") if sharegpt else ("role", "content")
    if any(turn.get("tool_calls") or turn.get("function_call") for turn in turns):
        raise Malformed("calls of tools, which are not read")
    messages = [{"role": turn.get(role), "content": turn.get(content)} for turn in turns]
    if isinstance(system := record.get("system"), str) and system.strip():
        messages.insert(0, {"role": "system", "content": system})
    return ("ShareGPT" if sharegpt else "messages"), [messages]


def _alpaca(record: dict[str, Any]) -> tuple[str, list[list[dict[str, Any]]]]:
    """Instruction, input and output; with `instances` of several inputs and outputs, as Self-Instruct's seed tasks."""
    system = [{"role": "system", "content": record["system"]}] if record.get("system") else []
    instances = record.get("instances")
    if isinstance(instances, list):
        if not instances or not all(isinstance(instance, dict) for instance in instances):
            raise Malformed("an instance that is no object" if instances else "no instances")
        return "Self-Instruct", [[*system, *_instructed(record["instruction"], one)] for one in instances]
    history = record.get("history") or []
    if not isinstance(history, list) or not all(isinstance(turn, list) and len(turn) == 2 for turn in history):
        raise Malformed("a history that is no list of question and answer")
    before = [turn for question, answer in history for turn in (_user(question), _assistant(answer))]
    return "Alpaca", [[*system, *before, *_instructed(record["instruction"], record)]]


def _instructed(instruction: Any, given: dict[str, Any]) -> list[dict[str, Any]]:
    more = given.get("input", given.get("context"))
    if more is not None and not isinstance(more, str):
        raise Malformed("an input that is no text")
    if isinstance(instruction, str) and more and more.strip():
        instruction = f"{instruction}\n\n{more}"
    return [_user(instruction), _assistant(given.get("output", given.get("response")))]


def _user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def _assistant(content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def _alternating(turns: list[Any]) -> list[dict[str, Any]]:
    """A question and its answers, turn by turn."""
    return [(_assistant if number % 2 else _user)(turn) for number, turn in enumerate(turns)]


def checked(talk: list[dict[str, Any]], tally: Tally, joined: bool = False) -> list[Message]:
    """Messages as chat templates want them: perhaps a system's, then user and assistant by turns, an answer last.

    `joined`: turns of one speaker that follow each other become one. Raises `Malformed` with the reason.
    """
    messages: list[Message] = []
    for turn in talk:
        role = ROLES.get(turn["role"]) if isinstance(turn["role"], str) else None
        if role is None:
            raise Malformed(f"an unknown speaker {str(turn['role'])[:40]!r}")
        content = _text(turn["content"])
        if not content.strip():
            if role != "system":
                raise Malformed(f"an empty turn of the {role}")
            tally.noted["empty system messages left out"] += 1
            continue
        if role == "system" and messages:
            raise Malformed("a system message after the beginning")
        if messages and messages[-1]["role"] == role:
            if not joined:
                raise Malformed(f"two turns of the {role} in a row")
            messages[-1]["content"] += f"\n{content}"
            tally.noted["turns joined to the one before, by the same speaker"] += 1
            continue
        messages.append({"role": role, "content": content})
    if messages and messages[-1]["role"] == "user":
        messages.pop()
        tally.noted["last questions without an answer left out"] += 1
    if not any(message["role"] == "assistant" for message in messages):
        raise Malformed("no turn of the assistant: nothing to learn")
    first = next(message for message in messages if message["role"] != "system")
    if first["role"] == "assistant":
        if not joined:
            raise Malformed("the assistant speaks first")
        messages.remove(first)
        tally.noted["greetings of the assistant before any question left out"] += 1
        if not messages or messages[-1]["role"] != "assistant":
            raise Malformed("no turn of the assistant: nothing to learn")
    return messages


def _text(content: Any) -> str:
    """Content that is text, or a list of parts that are."""
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        content = "".join(str(part.get("text", "")) for part in content)
    if not isinstance(content, str):
        raise Malformed("a turn without text")
    return content


def encoded(example: Example, form: ChatFormat, context: int, tally: Tally) -> dict[str, Any] | None:
    """`ids` and `mask` of a conversation, at most `context` + 1 of them; None where nothing is left to learn."""
    try:
        talk = form.encode(example.content)
    except UserError as error:
        tally.drop(example.where, str(error))
        return None
    ids, mask = talk.ids[: context + 1], talk.mask[: context + 1]
    if not any(mask[1:]):
        tally.drop(example.where, "no target within the context (--rows.context)")
        return None
    tally.truncated += len(talk.ids) > context + 1
    return {"ids": ids, "mask": mask}
