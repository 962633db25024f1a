"""Multiple choice, cloze and short answers in the form of Mosaic's Eval Gauntlet, or as their sets are on the hub."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from wenlu.base.errors import UserError
from wenlu.evaluation.kinds import Choice, Cloze, Contexts, Kind
from wenlu.evaluation.task import Task
from wenlu.evaluation.tasks.source import Source, wanted
from wenlu.evaluation.writing import Writing
from wenlu.prompting.examples import Example
from wenlu.prompting.template import Template

ARCHIVE = "eval_gauntlet.tar.xz"
Fields = dict[str, Any]


@dataclass(frozen=True)
class Form:
    """How a set's rows are asked."""

    kind: Kind
    question: str = "{{ query }}"
    delimiter: str = " "
    hub: str = ""
    from_hub: Callable[[Fields], Fields] | None = None
    """A row of the hub's in the gauntlet's form."""
    part: str = ""
    train: str = ""
    """The split on the hub that shots come from."""


def _lettered(query: str) -> Callable[[Fields], Fields]:
    """Choices with labels and the label of the right one, as ARC's and OpenBookQA's."""

    def convert(row: Fields) -> Fields:
        choices = row["choices"]
        return {
            "query": query.format(**row),
            "choices": choices["text"],
            "gold": choices["label"].index(row["answerKey"]),
        }

    return convert


def _copa(row: Fields) -> Fields:
    word = {"cause": "because", "effect": "therefore"}[row["question"]]
    choices = [row[name][:1].lower() + row[name][1:] for name in ("choice1", "choice2")]
    return {"query": f"{row['premise'].strip().removesuffix('.')}, {word}", "choices": choices, "gold": row["label"]}


def _winogrande(row: Fields) -> Fields:
    before, after = row["sentence"].split("_", 1)
    options = [before + row[name] for name in ("option1", "option2")]
    return {"context_options": options, "continuation": after.strip(), "gold": int(row["answer"]) - 1}


def _boolq(row: Fields) -> Fields:
    query = f"Passage: {row['passage']}\nQuestion: {row['question']}?"
    return {"query": query, "choices": ["no", "yes"], "gold": int(row["label"])}


def _piqa(row: Fields) -> Fields:
    return {"query": f"Question: {row['goal']}\n", "choices": [row["sol1"], row["sol2"]], "gold": row["label"]}


def _lambada(row: Fields) -> Fields:
    context, _, last = row["text"].rpartition(" ")
    return {"context": context, "continuation": last}


def _trivia(row: Fields) -> Fields:
    answer = row["answer"]
    return {"context": f"Question: {row['question']}\nAnswer:", "answer": answer["value"], "aliases": answer["aliases"]}


ANSWER = "{{ query.rstrip() }}\nAnswer:"
SPLITS = {"arc_easy": "allenai/ai2_arc/ARC-Easy", "arc_challenge": "allenai/ai2_arc/ARC-Challenge"}
FORMS = {
    **{
        name: Form(Choice(), ANSWER, " ", f"{hub}:test", _lettered("Question: {question}"), train=f"{hub}:train")
        for name, hub in SPLITS.items()
    },
    "boolq": Form(Choice(), ANSWER, " ", "aps/super_glue/boolq:validation", _boolq, train="aps/super_glue/boolq:train"),
    "copa": Form(Choice(), hub="aps/super_glue/copa:validation", from_hub=_copa, train="aps/super_glue/copa:train"),
    "openbook_qa": Form(
        Choice(), hub="allenai/openbookqa/main:test", from_hub=_lettered("{question_stem}"),
        train="allenai/openbookqa/main:train",
    ),
    "piqa": Form(Choice(), ANSWER, " ", "baber/piqa:validation", _piqa, train="baber/piqa:train"),
    "bigbench_strategy_qa": Form(Choice()),
    "winogender_mc_female": Form(Choice()),
    "winogender_mc_male": Form(Choice()),
    "winogrande": Form(
        Contexts(), hub="allenai/winogrande/winogrande_xl:validation", from_hub=_winogrande,
        train="allenai/winogrande/winogrande_xl:train",
    ),
    "winograd_wsc": Form(Contexts()),
    "lambada_openai": Form(
        Cloze(), "{{ context }}", " ", "EleutherAI/lambada_openai/default:test", _lambada
    ),
    "jeopardy_all": Form(Cloze(), "{{ context }}\nAnswer:", " ", part="category"),
    "simple_arithmetic_nospaces": Form(Cloze(), "{{ context }}", ""),
    "simple_arithmetic_withspaces": Form(Cloze(), "{{ context }}", ""),
    "triviaqa_sm_sub": Form(
        Writing(stop=("\n", ".", ","), max_tokens=24), "{{ context }}", " ",
        "mandarjoshi/trivia_qa/rc.nocontext:validation", _trivia, train="mandarjoshi/trivia_qa/rc.nocontext:train",
    ),
}  # fmt: skip
OTHER_NAMES = {"lambada": "lambada_openai", "openbookqa": "openbook_qa", "triviaqa": "triviaqa_sm_sub"}
"""As lm-evaluation-harness and others call them."""


def read(source: Source, name: str) -> Task:
    """One of these sets; its shots come from the hub's training split there, else from its own first examples."""
    name = OTHER_NAMES.get(name, name)
    form = FORMS[name]
    rows = source.rows(name, f"{name}.jsonl", ARCHIVE, form.hub)
    pool = source.rows(name, "", "", form.train) if source.folder is None and form.train else []
    if source.folder is None and form.from_hub is not None:
        rows, pool = _converted(form.from_hub, rows, form.hub), _converted(form.from_hub, pool, form.train)
    template = None if isinstance(form.kind, Contexts) else Template(question=form.question, delimiter=form.delimiter)
    examples = tuple(_example(name, number, row) for number, row in enumerate(rows))
    shots = tuple(_example(name, f"train-{number}", row) for number, row in enumerate(pool))
    return Task(name, form.kind, examples, template, shots, part=form.part)


def _converted(convert: Callable[[Fields], Fields], rows: list[Fields], hub: str) -> list[Fields]:
    """The hub's rows in the gauntlet's form."""
    found = []
    for number, row in enumerate(rows):
        try:
            found.append(convert(row))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            why = f"nothing under {error}" if isinstance(error, KeyError) else str(error)
            raise UserError(f"{hub}, row {number}: not as this set is known here ({why}): {str(row)[:120]}") from None
    return found


def _example(task: str, id: int | str, row: Fields) -> Example:
    """A row in the gauntlet's form: query, choices and gold; contexts and a continuation; or context and answers."""
    fields = {key: value for key, value in row.items() if key not in ("choices", "gold")}
    where = f"task {task}, row {id}"
    for name in ("context_options", "choices"):
        if name in row:
            (choices,) = wanted(row, (name,), where, list)
            wanted(dict(enumerate(choices)), range(len(choices)), f"{where}, {name}")
            gold = None if row.get("gold") is None else wanted(row, ("gold",), where, int)[0]
            return Example(str(id), fields, tuple(choices), gold)
    if "continuation" in row:
        return Example(str(id), fields, answers=tuple(wanted(row, ("continuation",), where)))
    if "answer" in row:
        return Example(str(id), fields, answers=(*wanted(row, ("answer",), where), *(row.get("aliases") or ())))
    raise UserError(f"{where}: neither choices nor an answer; there are {', '.join(row)}")
