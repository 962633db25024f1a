"""The audit as an HTML page: figures, plots, and examples of everything that was changed or dropped."""

from pathlib import Path
from typing import Any

from wenlu.base.log import counted
from wenlu.base.page import Page, figure
from wenlu.data.cleaning.audit import notes, rule_rows
from wenlu.data.cleaning.rules import RULES


def write_page(description: dict[str, Any], path: Path) -> None:
    """Write the page about a prepared folder; `description` is the contents of its data.json, `profile` among them."""
    paths = ", ".join(Path(name).name or name for name in description["config"]["paths"])
    page = Page(f"Data: {paths}", "made by wenlu prepare; every figure is also in data.json")
    _sizes(page, description)
    page.heading("What to know")
    found = notes(description)
    if found:
        page.table([(line,) for line in found])
    else:
        page.text("Nothing was left out, and nothing looks wrong.")
    _rules(page, description)
    _profile(page, description["profile"])
    page.heading("Settings").table(
        [
            (name, ", ".join(value) if isinstance(value, list) else value)
            for name, value in description["config"].items()
        ]
    )
    page.save(path)


def _sizes(page: Page, description: dict[str, Any]) -> None:
    rows = []
    for side in ("train", "validation"):
        if side in description:
            part = description[side]
            per_token = f"{part['bytes'] / max(1, part['tokens']):.2f}"
            rows.append((side, *(f"{part[key]:,}" for key in ("documents", "bytes", "tokens")), per_token))
    page.table(rows, ("part", "documents", "bytes", "tokens", "bytes a token"))
    tokenizer = description["tokenizer"]["kind"]
    page.text(f"Split: {description['split']}. Tokenizer: {tokenizer}, {description['vocab']:,} tokens.")


def _rules(page: Page, description: dict[str, Any]) -> None:
    page.heading("Cleaning")
    cleaning = description.get("cleaning")
    if not cleaning:
        page.text("All rules were switched off: this is the text as it stands in its sources.")
        return
    page.text(f"Read: {counted(cleaning['documents'], 'document')}, {counted(cleaning['bytes'], 'byte')}.")
    rows = rule_rows(cleaning)
    if not rows:
        page.text("The rules found nothing to clean.")
    else:
        header = ("rule", "documents changed", "dropped", "bytes removed", "of all", "what it is for")
        page.table([(*row, RULES[row[0]]) for row in rows], header)
    for name in RULES:
        found = cleaning["rules"].get(name)
        if found and found["examples"]:
            after = "the one it repeats" if "duplicates" in name else "after" if found["documents"] else ""
            page.heading(f"{name}: examples")
            page.table([(_visible(a), _visible(b)) for a, b in found["examples"]], ("before", after))
    off = [name for name in RULES if name in description["config"]["skip"]]
    if off:
        page.text(f"Switched off: {', '.join(off)}.")
    if found := description.get("contamination"):
        page.heading("Contamination").table([(line,) for line in found["shown"]], ("found in the training text",))


def _profile(page: Page, profile: dict[str, Any]) -> None:
    scripts = profile["characters"]
    total = max(1, sum(scripts.values()))
    page.heading("Scripts")
    page.table(
        [(name, f"{count:,}", f"{count / total:.1%}") for name, count in scripts.items()], ("", "characters", "")
    )
    if scripts:
        drawing, axes = figure(height=0.6 + 0.3 * len(scripts))
        axes.barh(list(scripts), [100 * count / total for count in scripts.values()], color="#3b6ea8")
        axes.invert_yaxis()
        axes.set_xlabel("% of characters")
        page.plot(drawing)
    page.heading("Lengths of documents")
    lengths = profile["document_characters"]
    page.table([tuple(f"{value:,}" for value in lengths.values())], tuple(lengths))
    counts, edges = profile["length_histogram"]["documents_by_length"], profile["length_histogram"]["edges"]
    if sum(counts) > 1:
        drawing, axes = figure()
        axes.stairs(counts, edges, fill=True, color="#3b6ea8")
        axes.set_xscale("log")
        axes.set_xlabel("characters")
        axes.set_ylabel("documents")
        page.plot(drawing)
    if damage := profile["damage"]:
        page.heading("Signs of damage")
        rows = [(name, f"{found['times']:,}", found["example"]) for name, found in damage.items()]
        page.table(rows, ("", "times", "for example"))
    page.heading("Longest lines")
    rows = [(f"{line['characters']:,}", line["document"] + 1, line["text"]) for line in profile["longest_lines"]]
    page.table(rows, ("characters", "document", "beginning"))
    page.heading("Sample documents")
    for sample in profile["samples"]:
        page.text(sample["side"]).preformatted(sample["text"])


def _visible(text: str) -> str:
    """With signs for what cannot be seen."""
    signs = {"\n": "⏎\n", "\t": "⇥", "\xa0": "⍽", "\u200b": "[U+200B]", "\ufeff": "[U+FEFF]"}
    return "".join(signs.get(c, c if c.isprintable() or c == "\u3000" else f"[U+{ord(c):04X}]") for c in text)
