"""The audit: what was made, what the rules did, and everything that was left out, on stderr."""

from typing import Any

from rich.table import Table

from wenlu.base.log import console, counted
from wenlu.data.cleaning.rules import RULES
from wenlu.data.reading import counts


def notes(description: dict[str, Any]) -> list[str]:
    """Everything that was left out or looks wrong, a line each."""
    read = [description[name] for name in ("sources", "validation_sources") if name in description]
    figures = {
        "documents that repeat another": description["duplicates"],
        "held-out documents that are also in the training text": description["overlap"],
        "bytes left out between training and held-out text": description["gap_bytes"],
        "documents that the tokenizer does not give back exactly, so that bits per byte are not told": description[
            "lossy"
        ],
    }
    lines = [*counts.notes(*read), *(_said(count, what) for what, count in figures.items() if count)]
    sides = [description[side]["bytes"] for side in ("train", "validation") if side in description]
    asked = description["config"]["validation"] if description["split"] != "given" else 0.0
    if len(sides) == 2 and sides[1] < asked / 4 * sum(sides):
        lines.append(
            f"held out are {sides[1] / sum(sides):.2%} of the bytes, of {asked:.0%} that were asked for, since "
            "documents differ much in length: name held-out texts by --validation-paths"
        )
    profile = description.get("profile", {})
    lines += [f"{found['times']:,} {name}" for name, found in profile.get("damage", {}).items()]
    if count := profile.get("documents_without_commas"):
        example = " ".join(profile["without_commas_examples"][0]["text"].split())
        lines.append(f"{counted(count, 'document')} almost without commas, which may be lost: {example[:30]} …")
    if found := description.get("contamination"):
        looked_for, short = counted(found["examples"] - found["too_short"], "example"), found["too_short"]
        too_short = f"; {short:,} more {'was' if short == 1 else 'were'} too short to look for" if short else ""
        lines.append(
            f"{found['found']:,} of {looked_for} of the evaluation set stand in "
            f"{counted(found['documents'], 'training document')} ({found['ngrams']:,} different "
            f"{found['n']}-grams{too_short})"
        )
    return lines


def _said(count: int, what: str) -> str:
    """`2 documents that repeat another`, `1 document that repeats another`."""
    one = {"documents": "document", "bytes": "byte", "that are": "that is", "that repeat": "that repeats"}
    for many, single in one.items() if count == 1 else ():
        what = what.replace(many, single)
    return f"{count:,} {what}"


def rule_rows(cleaning: dict[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """(rule, documents changed, documents dropped, bytes removed, their share) of every rule that did something."""
    rows = []
    for name in RULES:
        if found := cleaning["rules"].get(name):
            share = found["bytes"] / max(1, cleaning["bytes"])
            figures = (f"{found[key]:,}" for key in ("documents", "dropped", "bytes"))
            rows.append((name, *figures, "< 0.01%" if 0 < share < 5e-5 else f"{share:.2%}"))
    return rows


def say(description: dict[str, Any], out: Any) -> None:
    """What was made (in the folder `out`, unless it will not last), what the rules did, and all that was left out, on
    stderr."""
    table = Table(box=None, pad_edge=False)
    for name in ("", "documents", "bytes", "tokens", "bytes/token"):
        table.add_column(name, justify="right" if name else "left")
    for side in ("train", "validation"):
        if side in description:
            part = description[side]
            figures = (f"{part[key]:,}" for key in ("documents", "bytes", "tokens"))
            table.add_row(side, *figures, f"{part['bytes'] / max(1, part['tokens']):.2f}")
    console.print(table)
    if "cleaning" in description:
        say_rules(description["cleaning"])
    console.print(
        f"split: {description['split']}; vocabulary {description['vocab']:,}{f'; in {out}' if out else ''}",
        markup=False,
        soft_wrap=True,
    )
    for line in notes(description):
        console.print(line, style="yellow", markup=False, soft_wrap=True)


def say_rules(cleaning: dict[str, Any]) -> None:
    """What each rule did, as a table on stderr."""
    rows = rule_rows(cleaning)
    if not rows:
        console.print("the rules found nothing to clean")
        return
    table = Table(box=None, pad_edge=False)
    for name in ("rule", "documents changed", "dropped", "bytes removed", "of all"):
        table.add_column(name, justify="left" if name == "rule" else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)
