"""Prompts as a model reads them, verbatim, with the tokens on both sides of the border to the answer."""

from __future__ import annotations

from typing import Any

from wenlu.evaluation.candidate import Candidate
from wenlu.evaluation.run import Plan

SIDE = 4
"""Tokens shown on each side of the border."""


def shown(planned: Plan, candidate: Candidate, number: int) -> list[dict[str, Any]]:
    """The first so many examples: each text that is read, and what is scored after it or that an answer is written."""
    found = []
    for example, asks in list(zip(planned.asked.examples, planned.asks, strict=True))[:number]:
        for ask in asks:
            prompt, continuations = ask
            entry: dict[str, Any] = {"id": example.id, "prompt": candidate.text(prompt)}
            if planned.asked.task.kind.whole_texts:
                found.append({**entry, "text": continuations[0]})
                continue
            if not continuations:
                ids = candidate.prompt_ids(prompt)
                found.append({**entry, **_begin(candidate, ids), "before": _tokens(candidate, ids[-SIDE:])})
                continue
            pairs = candidate.scorer.pairs([candidate.query(ask)])
            entry |= _begin(candidate, pairs[0].prefix)
            entry["continuations"] = [
                {
                    "text": continuation,
                    "before": _tokens(candidate, pair.prefix[-SIDE:]),
                    "after": _tokens(candidate, pair.continuation[:SIDE]),
                    "tokens": len(pair.continuation),
                }
                for continuation, pair in zip(continuations, pairs, strict=True)
            ]
            found.append(entry)
    return found


def _begin(candidate: Candidate, ids: list[int]) -> dict[str, Any]:
    """How long a prompt is, and how many of its tokens begin a document: one, or none where there is no such token."""
    begin = candidate.tokenizer.bos_id
    return {"tokens": len(ids), "beginning_tokens": ids.count(begin) if begin is not None else 0}


def _tokens(candidate: Candidate, ids: list[int]) -> list[tuple[int, str]]:
    return [(id, candidate.tokenizer.decode([id], skip_special=False)) for id in ids]


def as_text(entries: list[dict[str, Any]]) -> str:
    """The same for people."""
    lines = []
    for entry in entries:
        about = (
            f", {entry['tokens']} tokens, {entry['beginning_tokens']} of them beginning" if "tokens" in entry else ""
        )
        lines += [f"--- example {entry['id']}{about}", entry["prompt"]]
        for one in entry.get("continuations", ()):
            lines.append(
                f"--> {one['text']!r}: {_side(one['before'])} | {_side(one['after'])} ({one['tokens']} tokens)"
            )
        if "before" in entry:
            lines.append(f"--> written after {_side(entry['before'])} |")
        if "text" in entry:
            lines.append(entry["text"])
    return "\n".join(lines)


def _side(tokens: list[tuple[int, str]]) -> str:
    return " ".join(f"{id} {text!r}" for id, text in tokens)
