"""The report of a search among prompts, as one HTML page."""

from __future__ import annotations

from pathlib import Path

from wenlu.base.log import read_rows
from wenlu.base.page import Page, figure
from wenlu.prompting.artifact import diff
from wenlu.prompting.search.optimize import Optimizer
from wenlu.prompting.search.outcome import Outcome
from wenlu.prompting.template import Prompt

SHOWN = 8
"""Candidates that have a colour and a name in the plot."""


def write_page(path: Path, optimizer: Optimizer, outcome: Outcome) -> None:
    """Write the report of a search that has come to its end."""
    page = Page(
        f"Search for a prompt: {path.parent.name}", f"{optimizer.backend.name}, {len(optimizer.examples)} examples"
    )
    _verdict(page, outcome)
    page.heading("The last prompts, on the select examples").table(
        [
            (one.prompt.name, f"{sum(one.right) / len(one.right):.3f}", f"{part:.0%}")
            for one, part in sorted(
                zip(outcome.finalists, outcome.luck.chosen, strict=True), key=lambda pair: -sum(pair[0].right)
            )
        ],
        ("prompt", "accuracy", "best in so many resamples"),
    )
    page.text(
        f"The best reads {outcome.luck.apparent:.3f} there. Chosen on resamples and scored on what these left out, "
        f"it comes to {outcome.luck.out_of_bag:.3f}: the difference is the luck of being the best of several."
    )
    log = read_rows(path.parent / "search.jsonl")
    rows = [row["told"] for row in log if row["event"] == "told"]
    names = [prompt["name"] for prompt in next(row for row in log if "prompts" in row)["prompts"]]
    page.heading("The halving").plot(_plot(rows, names))
    page.text(
        "Mean accuracy of each prompt over the search examples that it has met; the worse half leaves at each turn."
    )
    example = optimizer.examples[optimizer.parts.search[0]]
    for title, prompt in (("Baseline", outcome.baseline), ("Chosen", outcome.best)):
        page.heading(f"{title}: {prompt.name}").preformatted(_shown(prompt.prompt(example, optimizer.embed)))
        page.text(f"scored by {prompt.scoring.kind}" if prompt.scoring else f"written: {prompt.way.name}")
    if outcome.verdict is not None or outcome.unjudged:
        page.heading("In what they differ").preformatted("\n".join(diff(outcome.baseline, outcome.best)[:200]))
    page.heading("Examples and cost").table(
        [
            *(
                (f"{split.name} part", f"{split.examples} examples, {split.sha256[:16]}")
                for split in outcome.best.splits
            ),
            ("answers before the test", f"{outcome.evaluations:,}"),
            ("tokens before the test", f"{outcome.tokens:,}"),
            *([("of them by the writer", f"{outcome.writer_tokens:,}")] if outcome.writer_tokens else []),
            ("looks at the test part", outcome.look or "none"),
            ("candidates", len(names)),
        ]
    )
    page.save(path)


def constant(outcome: Outcome) -> list[str]:
    """Which prompts tell no example from another, a line for each answer."""
    told = "gives every example the answer"
    lines = [f"{name} {told} {answer!r}: whatever it is asked" for name, answer in outcome.always]
    alike: dict[str, list[str]] = {}
    for one in outcome.finalists:
        if one.always is not None and one.prompt.name not in dict(outcome.always):
            alike.setdefault(one.always, []).append(one.prompt.name)
    for answer, names in alike.items():
        they = "it is" if len(names) == 1 else "they are"
        lines.append(f"{'; '.join(names)} gave every select example the answer {answer!r}: whatever {they} asked")
    return lines


def _verdict(page: Page, outcome: Outcome) -> None:
    page.heading("Verdict, on the test examples")
    _told(page, outcome)
    for line in constant(outcome):
        page.text(line)


def _told(page: Page, outcome: Outcome) -> None:
    if outcome.unjudged:
        page.text(f"{outcome.best.name} was chosen, but has no verdict: {outcome.unjudged}")
        return
    if outcome.verdict is None:
        page.text(
            "The baseline was chosen: nothing tried was better on the select examples. The test was not looked at."
        )
        return
    page.text(f"{outcome.best.name}: {outcome.verdict}")
    cells = []
    for name, estimate in ((outcome.baseline.name, outcome.of_baseline), (outcome.best.name, outcome.of_best)):
        ends = estimate.interval
        cells.append((name, f"{estimate.value:.3f}", f"{ends.low:.3f} to {ends.high:.3f}" if ends else "-"))
    page.table(cells, ("prompt", "accuracy", "95 % interval"))
    if outcome.look > 1:
        page.text(f"This was look {outcome.look} at this test part: less than fresh evidence.")


def _plot(rows: list[dict], names: list[str]):
    drawing, axes = figure(height=3.8)
    sums: dict[int, list[float]] = {}
    tracks: dict[int, list[tuple[int, float]]] = {}
    for row in rows:
        if row["stage"] == "search":
            for candidate, scores in zip(row["candidates"], row["scores"], strict=True):
                seen = sums.setdefault(candidate, [])
                seen += [score for score in scores if score is not None]
                tracks.setdefault(candidate, []).append((len(seen), sum(seen) / len(seen)))
    order = sorted(tracks, key=lambda one: (-len(tracks[one]), -tracks[one][-1][1]))
    for place, candidate in enumerate(order):
        shown = place < SHOWN or candidate == 0
        style = {"color": "black" if candidate == 0 else f"C{place % 10}" if shown else "0.8"}
        label = names[candidate][:44] if shown else None
        axes.plot(
            *zip(*tracks[candidate], strict=True), "o-", markersize=4, label=label, zorder=3 if shown else 2, **style
        )
    axes.set_xlabel("search examples met")
    axes.set_ylabel("accuracy")
    if order:
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return drawing


def _shown(prompt: Prompt) -> str:
    if isinstance(prompt, str):
        return prompt
    return "\n\n".join(f"[{message['role']}]\n{message['content']}" for message in prompt)
