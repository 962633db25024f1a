"""Prompts whose demonstrations the model itself has written or chosen, asked for before a search begins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from wenlu.base.errors import UserError
from wenlu.base.log import say
from wenlu.prompting.artifact import Artifact, Shown
from wenlu.prompting.calibrate import Scoring
from wenlu.prompting.demonstrations import Demonstrations, most_even, shuffled
from wenlu.prompting.examples import Example
from wenlu.prompting.literal import is_chinese
from wenlu.prompting.search.bootstrap import FIELD, bootstrap, showing
from wenlu.prompting.search.settings import Search
from wenlu.prompting.strategies import (
    STEP_BY_STEP,
    STEP_BY_STEP_ZH,
    STRATEGIES,
    ChainOfThought,
    SelfConsistency,
    write_strategy,
)
from wenlu.prompting.template import Part, Template
from wenlu.prompting.trial import try_on
from wenlu.prompting.writing import Terms

if TYPE_CHECKING:
    from wenlu.prompting.backend import Backend
    from wenlu.prompting.similarity import Embed

SHOTS = (1, 2, 4, 8)
"""Numbers of demonstrations that are tried."""
ANSWERED = 24
"""Search examples that the model answers, so that its right answers may stand before questions."""
PROBES = 8
"""Search examples that the draws of demonstrations are told apart by; their right answers are not used."""
THINKING = (ChainOfThought, SelfConsistency)
"""Strategies whose written texts hold the thoughts and the answer."""


def asked_for(baseline: Artifact, search: Search, pool: Sequence[Example]) -> int:
    """Answers that these prompts cost, at most."""
    thoughts = min(ANSWERED, len(pool)) if _thinking(baseline, search) else 0
    return thoughts + search.draws * min(PROBES, len(pool))


def refuse_draws(search: Search, examples: Sequence[Example]) -> None:
    """Raises UserError for draws where examples have no choices in common."""
    if search.draws and (not examples[0].choices or len({one.choices for one in examples}) > 1):
        raise UserError(
            "draws are told apart by how evenly they spread the answers, but the examples have not the same choices: "
            "leave out --draws"
        )


def own_prompts(
    backend: Backend, baseline: Artifact, search: Search, pool: Sequence[Example], embed: Embed | None = None
) -> list[Artifact]:
    """Those that think, with thoughts of the model's own that came out right; and the evenest of some draws.

    pool: the search examples, for their answers decide.
    """
    return [*_with_thoughts(backend, baseline, search, pool), *_evenest(backend, baseline, search, pool, embed)]


def placed(template: Template) -> Template:
    """The template with a place for demonstrations: in a conversation without one, before its last part."""
    if template.shows_demonstrations:
        return template
    return replace(template, chat=(*template.chat[:-1], Part("demonstrations"), template.chat[-1]))


def _thinking(baseline: Artifact, search: Search) -> list[ChainOfThought | SelfConsistency]:
    """The ways to answer, among the baseline's and those that are tried, that think in writing."""
    if baseline.scoring is not None:
        return []
    trigger = STEP_BY_STEP_ZH if is_chinese(baseline.template.instruction) else STEP_BY_STEP
    kinds = [STRATEGIES[name] for name in search.strategies]
    ways = [baseline.way, *(kind(trigger=trigger) for kind in kinds if kind in THINKING)]
    return [way for way in ways if isinstance(way, THINKING)]


def _with_thoughts(backend: Backend, baseline: Artifact, search: Search, pool: Sequence[Example]) -> list[Artifact]:
    ways = _thinking(baseline, search)
    if not ways:
        return []
    if any(FIELD in one.fields for one in pool):
        say(f"no thoughts of the model's own are shown: the examples have a field {FIELD!r} already")
        return []
    decoding = baseline.decoding
    settings = replace(decoding, stop=decoding.stop or baseline.template.stop).settings
    terms = Terms(decoding.max_tokens, baseline.extractor, settings)
    asked = shuffled(pool, search.seed)[:ANSWERED]
    found = bootstrap(backend, ChainOfThought(ways[0].trigger), baseline.template, asked, terms)
    say(f"{len(found.examples)} of {found.tried} answers that the model wrote are right, and are shown before others")
    shown, template = tuple(map(Shown.of, found.examples)), showing(placed(baseline.template))
    return [
        replace(
            baseline, name=f"{number} of the model's own thoughts, {way.name}", template=template, pool=shown,
            demonstrations=Demonstrations("random", number, seed=search.seed),
            strategy=write_strategy(replace(way, trigger="")),
        )
        for number in SHOTS
        for way in ways
        if _suffices(number, found.examples)
    ]  # fmt: skip


def _evenest(
    backend: Backend, baseline: Artifact, search: Search, pool: Sequence[Example], embed: Embed | None
) -> list[Artifact]:
    number = max((one for one in SHOTS[:3] if _suffices(one, pool)), default=0)
    if not search.draws or not number:
        return []
    probes, shown = shuffled(pool, search.seed + 1)[:PROBES], tuple(map(Shown.of, pool))
    found = [
        replace(
            baseline, name=f"{number} balanced examples, the evenest of {search.draws} draws", prior=None, pool=shown,
            template=placed(baseline.template), demonstrations=Demonstrations("balanced", number, seed=seed),
        )
        for seed in range(search.seed, search.seed + search.draws)
    ]  # fmt: skip

    def answers(prompt: Artifact) -> list[str | None]:
        if prompt.scoring is not None and prompt.scoring.kind == "batch":
            prompt = replace(prompt, scoring=Scoring("sum"))  # Means would even out what is to be told apart.
        return [cell.answer for cell in try_on(prompt, backend, probes, embed) if not cell.failed]

    return [most_even(found, answers)]


def _suffices(number: int, examples: Sequence[Example]) -> bool:
    """Whether so many may stand before each of the examples: not itself, one that asks the same, nor one of its
    group."""
    asked = [repr(sorted((name, repr(one.fields[name])) for name in one.fields if name != FIELD)) for one in examples]
    same, groups = Counter(asked), Counter(one.group for one in examples if one.group)
    together = (same[what] + groups[one.group] - bool(one.group) for what, one in zip(asked, examples, strict=True))
    return number + max(together, default=1) <= len(examples)
