"""Prompts that a search begins with: the baseline, edits of it, other forms, demonstrations, a writer's own."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any

from wenlu.base.errors import UserError
from wenlu.base.log import JsonLines, counted, say
from wenlu.prompting.artifact import Artifact, Shown
from wenlu.prompting.backend import Written
from wenlu.prompting.demonstrations import Demonstrations
from wenlu.prompting.examples import Example
from wenlu.prompting.literal import is_chinese
from wenlu.prompting.search.candidates import grammar_of
from wenlu.prompting.search.instructions import some_edits
from wenlu.prompting.search.own import SHOTS, placed
from wenlu.prompting.spending import Tally
from wenlu.prompting.strategies import STEP_BY_STEP_ZH, STRATEGIES, ReasonThenConstrain, write_strategy
from wenlu.prompting.template import common_fields
from wenlu.prompting.writing import Terms, question

if TYPE_CHECKING:
    from wenlu.prompting.backend import Backend
    from wenlu.prompting.similarity import Embed

REWRITE = {
    "en": "Rewrite this instruction in other words. Keep what it asks for. Answer with the instruction alone.\n\n{}",
    "zh": "请用别的话改写下面的指令，意思不变，只回答改写后的指令。\n\n{}",
}
"""What a writer is asked."""


def propose(
    baseline: Artifact,
    pool: Sequence[Example],
    count: int,
    seed: int,
    *,
    fits: Callable[[Artifact], bool] = lambda prompt: True,
    writer: Backend | None = None,
    strategies: Sequence[str] = (),
    own: Sequence[Artifact] = (),
) -> list[Artifact]:
    """So many prompts (fewer where there are no more), the baseline first, all different, each with a name.

    pool: the search examples, among which demonstrations are chosen. fits: whether the model can read a prompt; those
    that it cannot are counted, said, and others come in their place. writer: a backend that words the instruction anew.
    strategies: other ways to write the answer, which are tried first. own: prompts that the model had a part in making.
    Always the same for the same seed, but for what a writer writes. Raises UserError for fewer than two.
    """
    if count < 2:
        raise UserError(f"a search wants at least 2 candidates, the baseline among them, not {count}")
    kinds = [iter(own), _shots(baseline, pool, seed), _edits(baseline, seed), _forms(baseline, pool, seed)]
    if writer is not None:
        kinds.insert(0, iter(_written(baseline, writer, count // 2, seed)))
    found, known, names, left_out = [baseline], {_content(baseline)}, Counter([baseline.name]), 0
    by_turns = (one for several in zip_longest(*kinds) for one in several if one is not None)
    for proposal in chain(ways_of(baseline, pool[0], strategies), by_turns):
        if len(found) == count:
            break
        proposal = replace(proposal, prior=None)  # What batch calibration has learned of the baseline is its alone.
        if _content(proposal) not in known:
            known.add(_content(proposal))
            if fits(proposal):
                names[proposal.name] += 1
                again = f" ({names[proposal.name]})" * (names[proposal.name] > 1)
                found.append(replace(proposal, name=proposal.name + again))
            else:
                left_out += 1
    if left_out:
        say(f"{counted(left_out, 'prompt')} left out, longer than the model reads")
    if len(found) < 2:
        raise UserError(
            "nothing to try beside the baseline: give it an instruction of some sentences, or more examples"
        )
    return found


class Room:
    """Whether a model reads a prompt with each of the examples, and an answer after it (`inference.reading`).

    Of an endpoint everything fits: how much it reads it does not say, and lengths are told in characters.
    """

    def __init__(self, backend: Backend, examples: Sequence[Example], embed: Embed | None = None):
        self.backend, self.embed, self._examples = backend, embed, examples
        self._known: dict[str, list[int]] = {}

    def __call__(self, prompt: Artifact) -> bool:
        if (model := getattr(self.backend, "model", None)) is None:
            return True
        from wenlu.inference.reading import most_tokens

        most = most_tokens(model.config, written=prompt.scoring is None)
        return most is None or self.needed(prompt) <= most

    def needed(self, prompt: Artifact) -> int:
        """Tokens of prompt and answer, at most."""
        return max(self.lengths(prompt))

    def lengths(self, prompt: Artifact) -> list[int]:
        """Tokens of prompt and answer, for each of the examples."""
        key = prompt.sha256
        if key not in self._known:
            choose = prompt.chooser(self.embed)
            self._known[key] = [self._needed(prompt, one, choose(one)) for one in self._examples]
        return self._known[key]

    def _needed(self, prompt: Artifact, example: Example, before: Sequence[Example]) -> int:
        text, model = prompt.template.render(example, before), getattr(self.backend, "model", None)
        if model is None:
            length, encode = len(str(text)), tuple
        else:
            encode = self.backend.tokenizer.encode_batch
            # A bert reads both ways: no token begins a text, and none is written.
            both = model.config.family == "bert" and isinstance(text, str)
            length = len(encode([text])[0] if both else self.backend.prompt_ids(text))
        if prompt.scoring is None:
            return length + prompt.decoding.max_tokens
        return length + max(map(len, encode(prompt.template.continuations(example))))

    def refuse_long(self, baseline: Artifact) -> None:
        """Raises UserError for a baseline that is too long."""
        if not self(baseline):
            raise UserError(
                f"the baseline comes to {self.needed(baseline)} tokens with its answer, but the model reads "
                f"{self.backend.model.config.context}: shorten it, or lower decoding.max_tokens"
            )


class Recorded:
    """A writer whose texts are kept in the log with what they cost: none is paid for twice, and none is forgotten."""

    def __init__(self, writer: Backend, rows: Sequence[dict], log: JsonLines, tally: Tally):
        self.name, self._writer, self._log, self._tally = writer.name, writer, log, tally
        self._known = {row["seed"]: row["text"] for row in rows if row["event"] == "wrote"}

    def generate(self, prompts: Sequence[Any], settings: Any) -> list[Written]:
        """The one text of a seed."""
        if settings.seed not in self._known:
            with self._tally.counted(self._writer, self._log, by="writer"):
                (written,) = self._writer.generate(prompts, settings)
            if written.error:
                return [written]
            self._log.write(event="wrote", seed=settings.seed, text=written.text)
            self._log.sync()
            self._known[settings.seed] = written.text
        return [Written(self._known[settings.seed], "stop", None, None)]


def _content(prompt: Artifact) -> str:
    return replace(prompt, name="-").sha256


def _shots(baseline: Artifact, pool: Sequence[Example], seed: int) -> Iterator[Artifact]:
    """The baseline with demonstrations, few and many, by several ways of choosing them; in a conversation without a
    place for them, before its last part."""
    template = placed(baseline.template)
    shown = tuple(map(Shown.of, pool))
    labelled = bool(pool[0].choices) and len({one.choices for one in pool}) == 1
    fields = common_fields(pool, baseline.template)
    for turn in range(16):
        for kind in ("balanced" if labelled else "random", "bm25"):
            for number in SHOTS:
                alike = kind == "bm25"
                if number < len(pool) and (not alike or (fields and not turn)):
                    told = {"fields": fields} if alike else {"seed": seed + turn}
                    ways = Demonstrations(kind, number, **told)
                    name = f"{number} {kind} examples" + (f", draw {turn + 1}" if turn else "")
                    yield replace(baseline, name=name, template=template, demonstrations=ways, pool=shown)


def _edits(baseline: Artifact, seed: int) -> Iterator[Artifact]:
    if baseline.template.instruction.strip():
        for edit in some_edits(baseline.template.instruction, 64, seed):
            template = replace(baseline.template, instruction=edit.text)
            yield replace(baseline, name=edit.description, template=template)


def _forms(baseline: Artifact, pool: Sequence[Example], seed: int) -> Iterator[Artifact]:
    """Templates of the grammar over the fields that the baseline names, every second one with demonstrations."""
    template = baseline.template
    fields = common_fields(pool, template)
    if hidden := [name for name in common_fields(pool) if name not in fields]:
        say(f"other forms do not show what the baseline does not name: {', '.join(hidden)}")
    if not fields:
        say("no other forms are tried: the baseline names no field of text or number that all examples have")
        return
    grammar = grammar_of(pool, fields, letters=template.choices == "letters", chat=bool(template.chat))
    chance, shown = random.Random(seed), tuple(map(Shown.of, pool))
    labelled = bool(pool[0].choices) and len({one.choices for one in pool}) == 1
    ends = () if baseline.scoring else baseline.decoding.stop
    forms = [form for form in grammar.draw(min(grammar.size, 128), seed) if not form.stopped_at_once(ends)]
    for number, form in enumerate(forms, 1):
        other = replace(baseline, name=f"form {number}", template=replace(form, letters=template.letters))
        if number % 2 and len(pool) > 1:
            shots = chance.choice([shots for shots in SHOTS if shots < len(pool)])
            ways = Demonstrations("balanced" if labelled else "random", shots, seed=chance.randrange(1000))
            other = replace(other, name=f"form {number}, {shots} examples", demonstrations=ways, pool=shown)
        yield other


def ways_of(baseline: Artifact, example: Example, strategies: Sequence[str]) -> list[Artifact]:
    """The baseline answered in these ways, all within its budget. Raises UserError where it scores choices, and where
    the budget is too little for one."""
    if strategies and baseline.scoring is not None:
        raise UserError("strategies write their answers, but the baseline scores choices: leave out scoring, or them")
    found = []
    for name in strategies:
        trigger = {"trigger": STEP_BY_STEP_ZH} if is_chinese(baseline.template.instruction) else {}
        thinks = "trigger" in STRATEGIES[name].__dataclass_fields__
        way = STRATEGIES[name](**trigger if thinks else {})
        way.answer(None, (), Terms(baseline.decoding.max_tokens))  # Asks nothing; what the budget is too little for.
        if isinstance(way, ReasonThenConstrain):
            way.form.constraint(
                question(baseline.template, example)
            )  # One of the choices, of which there must be some.
        found.append(replace(baseline, name=name, strategy=write_strategy(way)))
    return found


def _written(baseline: Artifact, writer: Backend, count: int, seed: int) -> list[Artifact]:
    """The baseline's instruction in a writer's words; what is empty or too long to be one is counted and left out."""
    from wenlu.inference.generator import Settings

    instruction = baseline.template.instruction.strip()
    if not instruction:
        raise UserError("a writer words an instruction anew, but the baseline has none: give it one, or no writer")
    asked = REWRITE["zh" if is_chinese(instruction) else "en"].format(instruction)
    texts, usable = [], []
    for number in range(count):
        settings = Settings(max_tokens=200, temperature=1.0, seed=seed + number)
        texts += [one.text.strip() for one in writer.generate([({"role": "user", "content": asked},)], settings)]
    for text in dict.fromkeys(texts):
        if text and text != instruction and len(text) < 4 * len(instruction) + 200 and "{" not in text:
            template = replace(baseline.template, instruction=text)
            usable.append(replace(baseline, name=f"written {len(usable) + 1}", template=template))
    if len(usable) < count:
        say(f"of {count} instructions that {writer.name} wrote, {len(usable)} are new and of use")
    return usable
