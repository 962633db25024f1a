"""A length of time → model, batch, learning rates, dropout and steps: what `--minutes` means on this machine."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from wenlu.base.device import available_memory, held_memory
from wenlu.base.errors import UserError
from wenlu.base.log import counted, say
from wenlu.data.corrupt import RATE
from wenlu.data.shards import Data
from wenlu.models.size import flops_per_token, parameters
from wenlu.training import bigrams
from wenlu.training.law import OBJECTIVE, Text, bits_per_byte, dropout_for, error_of, level_of
from wenlu.training.material import text_material
from wenlu.training.objectives import objective_of
from wenlu.training.pacing import AIM, REPORT_SECONDS
from wenlu.training.recipe import Recipe, TrainingConfig
from wenlu.training.timing import Machine, key, work

TRANSFORMERS = ((64, 2), (96, 2), (96, 3), (128, 3), (160, 4), (192, 4), (256, 4), (256, 6), (320, 6), (384, 6))
TRANSFORMERS += ((512, 8), (640, 10), (768, 12), (1024, 16), (1536, 20), (2048, 24))
LSTMS = ((128, 1), (192, 1), (256, 1), (256, 2), (384, 2), (512, 2), (768, 2), (1024, 2), (1536, 2), (2048, 2))
"""Widths and layers that come into question."""
CONTEXTS = (64, 128, 256)
"""Longer ones lie beyond what the law was fitted on."""
CORRUPTED = ("bert", "t5")
"""Families that learn a part of the tokens only each time they read a text, and another part the next time."""
BATCH_TOKENS = tuple(1 << n for n in range(10, 20))
FEWEST_STEPS = 200
MOST_CHOICES = 4
"""How often what was chosen is timed before the choice is among what was timed."""
MEASURING = 0.2
"""The part of the time after which it is among those too: a machine with much else to do measures slowly."""
FEWER = 0.9
"""Of the time of an update, what it must take at most with half the threads for those to be taken."""
MEMORY = 0.8
"""Of what is free, the part that a plan may count on."""
RATES = {"lr": 0.02, "muon_lr": 0.025, "momentum": 0.9}
RATES_FROM_BIGRAMS = {"lr": 0.03, "muon_lr": 0.03, "momentum": 0.9}
SCHEDULE = {"warmup": 0.0, "decay": 1.0}
"""What short runs like (found on the novels of benchmarks/dial_fit.py); but a bert or a t5 takes the recipe's."""
EVALUATION = 0.04
"""Of the time, about what evaluations may take."""
START_SECONDS = 0.5
"""Between the plan and the first update."""
PROBE_SECONDS, LONGEST_PROBE = 0.3, 0.7
"""How long one shape is timed, for each minute of the run and at most. A step of a large shape may take as long, if
large shapes are no better at operations than the smallest; they are."""


@dataclass(frozen=True)
class Plan:
    """What was chosen, and what is expected of it."""

    minutes: float
    chosen: dict[str, dict[str, Any]]
    """Section of the recipe → field → value."""
    measured: list[dict[str, float]]
    """Shapes that were timed: width, layers, context, batch, dropout, threads (0: all), seconds a step."""
    considered: int
    parameters: int
    steps: int
    tokens: int
    epochs: float
    flops: float
    memory_bytes: int
    """Predicted for the peak, beside what is held already."""
    held_bytes: int
    """Held when the plan was made."""
    step_seconds: float
    bits_per_byte: float | None
    """Predicted for held-out text; None for what the law knows nothing of."""
    unforetold: str
    """Why there is no prediction, or empty."""
    error: float
    """Of that prediction, as a factor: two of three novels were foretold as well as that (`law.error_of`)."""
    spent: float
    """Seconds that had passed when the plan was made."""


class Planner:
    """Chooses for one recipe, text and device. What the recipe states otherwise than the defaults stays as it is."""

    def __init__(self, recipe: Recipe, data: Data, device: torch.device, began: float):
        self.recipe, self.data, self.began = recipe, data, began
        self.probe_seconds = min(LONGEST_PROBE, PROBE_SECONDS * recipe.training.minutes)
        self.device, self.threads = device, 0
        self.machine = self._unknown_machine()
        self.room = MEMORY * available_memory(device)
        train = data.description["train"]
        self.text = Text(train["bytes"], train["tokens"], data.tokenizer.vocab, level_of(data))

    def _unknown_machine(self) -> Machine:
        return Machine(partial(text_material, self.data), self.device, self.probe_seconds)

    def plan(self) -> Plan:
        """The choice; made anew where its updates are faster with fewer threads."""
        shapes, best = self._choice()
        if fewer := self._fewer_threads(best):
            self.threads, self.machine = fewer, self._unknown_machine()
            shapes, best = self._choice()
        return self._described(best, len(shapes))

    def _choice(self) -> tuple[list[Recipe], Recipe]:
        """Time a few shapes, choose by the law, time what was chosen, and choose again if that changes the choice."""
        shapes, started = self._shapes(), time.monotonic()
        self._probe(shapes)
        best, choices = self._best(shapes), 1
        while key(best) not in self.machine.timed:
            self.machine.time(best)
            choices += 1
            timed = [recipe for recipe, _ in self.machine.timed.values()]
            early = time.monotonic() - started < MEASURING * 60 * self.recipe.training.minutes
            # One that was timed without dropout may yet need it.
            best = self._best(shapes if choices <= MOST_CHOICES and early else timed)
        return shapes, best

    def _fewer_threads(self, best: Recipe) -> int:
        """Half of the threads, or fewer still, as long as an update is faster for it: where other work goes on, threads
        wait for one another. 0: as many as there are, or as stated."""
        found, threads, fastest = 0, torch.get_num_threads(), self.machine.seconds(best)
        while self.device.type == "cpu" and not self.recipe.training.threads and threads > 1:
            fewer = replace(best, training=replace(best.training, threads=threads // 2))
            self.machine.time(fewer)
            seconds = self.machine.seconds(fewer)
            if seconds > FEWER * fastest:
                break
            say(
                f"an update takes {1e3 * fastest:,.0f} ms with {counted(threads, 'thread')}, "
                f"{1e3 * seconds:,.0f} ms with {threads // 2:,}: as many are taken"
            )
            found, threads, fastest = threads // 2, threads // 2, seconds
        return found

    def _shapes(self) -> list[Recipe]:
        """Every shape that fits into memory and keeps to what the recipe states; steps and dropout come later."""
        family = self.recipe.model.family
        sizes = LSTMS if family == "lstm" else TRANSFORMERS
        found: dict[tuple, Recipe] = {}
        for (dim, layers), context, tokens in itertools.product(sizes, CONTEXTS, BATCH_TOKENS):
            shape = stated(self.recipe.model, dim=dim, layers=layers, context=context)
            shape |= stated(self.recipe.model, heads=1 if family == "lstm" else heads_of(shape["dim"]))
            shape |= stated(self.recipe.model, tied=False) if family in bigrams.FAMILIES else {}
            try:
                model = replace(self.recipe.model, **shape, vocab=self.data.tokenizer.vocab)
            except UserError:  # a width that the stated heads do not divide
                continue
            batch = stated(self.recipe.training, batch=max(1, tokens // model.context), threads=self.threads)
            recipe = replace(self.recipe, model=model, training=replace(self.recipe.training, **batch))
            long = self.text.tokens > 4 * model.context
            if long and key(recipe) not in found and self.machine.bytes(recipe) <= self.room:
                found[key(recipe)] = recipe
        if not found:
            raise UserError(
                "no model that --minutes knows of fits into this memory and text: state a recipe of your own"
            )
        return list(found.values())

    def _probe(self, shapes: list[Recipe]) -> None:
        """Time the smallest shape, then two that are far from it, but not so large that a step would take long here."""
        smallest, *larger = sorted(shapes, key=work)
        self.machine.time(smallest)
        most = work(smallest) * self.probe_seconds / self.machine.seconds(smallest)
        able = [shape for shape in larger if work(shape) <= most]
        for shape in able[len(able) // 2 :: max(1, len(able) - len(able) // 2 - 1)][:2]:
            self.machine.time(shape)

    def _left(self) -> float:
        """Seconds for updates and evaluations; refused where there are none."""
        minutes, spent = self.recipe.training.minutes, time.monotonic() - self.began
        left = AIM * 60 * minutes - spent - REPORT_SECONDS - START_SECONDS
        if left <= 0:
            raise UserError(
                f"{minutes:g} min are over before the first step (text and measuring took {spent:.0f} s): "
                "give more, or prepare the text beforehand by wenlu prepare"
            )
        return left

    def _best(self, shapes: list[Recipe]) -> Recipe:
        """Of the shapes that come to enough updates the one with the least loss to be expected."""
        planned = [self._planned(shape) for shape in shapes]
        planned = [recipe for recipe in planned if self.machine.bytes(recipe) <= self.room] or planned
        able = [recipe for recipe in planned if recipe.training.steps >= FEWEST_STEPS]
        if able:
            return min(able, key=self._expected)
        return max(planned, key=lambda recipe: recipe.training.steps)

    def _expected(self, recipe: Recipe) -> float:
        return bits_per_byte(self.text, recipe.model, recipe.training.batch, recipe.training.steps)

    def _planned(self, recipe: Recipe) -> Recipe:
        """A shape with as many steps as fit into what is left of the time, and what follows from their number."""
        left = self._left()
        for _ in range(2):  # the second time as slow as dropout makes it
            steps = max(1, math.floor((1 - EVALUATION) * left / self.machine.seconds(recipe)))
            tokens = steps * recipe.training.batch * recipe.model.context
            learned = tokens * (RATE if recipe.model.family in CORRUPTED else 1)
            dropout = max(recipe.model.dropout, dropout_for(learned / self.text.tokens))
            recipe = replace(recipe, model=replace(recipe.model, **stated(self.recipe.model, dropout=dropout)))
        return self._with_rest(replace(recipe, training=replace(recipe.training, steps=steps)), tokens)

    def _with_rest(self, recipe: Recipe, tokens: int) -> Recipe:
        """With evaluations that take their part of the time, and the rates that suit."""
        minutes = self.recipe.training.minutes
        evaluations = min(10, max(4, round(2.5 * math.sqrt(minutes))))
        read = max(8192, int(3 * EVALUATION * tokens / evaluations))
        from_bigrams = recipe.model.family in bigrams.FAMILIES and not recipe.model.tied
        on_processor = self.device.type == "cpu"  # measured as it is there, without a compiler's half minute
        training = stated(
            self.recipe.training,
            compile="off" if on_processor else TrainingConfig.compile,
            eval_every=math.ceil(recipe.training.steps / evaluations),
            eval_tokens=min(read, TrainingConfig.eval_tokens),
            sample_tokens=min(TrainingConfig.sample_tokens, max(10, round(50 * minutes))),
            start="bigrams" if from_bigrams else TrainingConfig.start,
        )
        recipe = replace(recipe, training=replace(recipe.training, **training))
        if recipe.model.family in CORRUPTED:
            return recipe
        rates = RATES_FROM_BIGRAMS if from_bigrams else RATES
        return replace(
            recipe,
            optimizer=replace(recipe.optimizer, **stated(self.recipe.optimizer, **rates)),
            schedule=replace(recipe.schedule, **stated(self.recipe.schedule, **SCHEDULE)),
        )

    def _unforetold(self) -> str:
        objective = objective_of(self.recipe.model).name
        if objective != OBJECTIVE:
            return f"shapes were compared as if for the {OBJECTIVE}, and for {objective} no law was fitted"
        return "the tokenizer loses text" if self.data.description.get("lossy") else ""

    def _described(self, best: Recipe, considered: int) -> Plan:
        steps = best.training.steps
        tokens = steps * best.training.batch * best.model.context
        sections = ("model", "training", "optimizer", "schedule")
        chosen = {}
        for section in sections:
            old, new = vars(getattr(self.recipe, section)), vars(getattr(best, section))
            chosen[section] = {name: new[name] for name in old if old[name] != new[name] and name != "vocab"}
        timed = [
            {"dim": r.model.dim, "layers": r.model.layers, "context": r.model.context, "batch": r.training.batch}
            | {"dropout": r.model.dropout, "threads": r.training.threads, "seconds": round(seconds, 6)}
            for r, seconds in self.machine.timed.values()
        ]
        return Plan(
            minutes=self.recipe.training.minutes,
            chosen=chosen,
            measured=timed,
            considered=considered,
            parameters=parameters(best.model),
            steps=steps,
            tokens=tokens,
            epochs=tokens / self.text.tokens,
            flops=flops_per_token(best.model, best.model.context) * tokens,
            memory_bytes=self.machine.bytes(best),
            held_bytes=held_memory(self.device),
            step_seconds=self.machine.seconds(best),
            bits_per_byte=None if self._unforetold() else self._expected(best),
            unforetold=self._unforetold(),
            error=error_of(best.model),
            spent=time.monotonic() - self.began,
        )


def heads_of(dim: int) -> int:
    """As many heads as come nearest to 32 wide each, from a width of 160 on to 64, of those that divide it evenly."""
    most = max(1, dim // (32 if dim <= 160 else 64))
    return next((heads for heads in range(most, 0, -1) if dim % (2 * heads) == 0), 1)


def refuse_steps(recipe: Recipe) -> None:
    """A recipe that is yet to be planned states no number of steps."""
    if recipe.training.steps != TrainingConfig.steps:
        raise UserError("the minutes decide how many steps there are: leave --steps out, or --minutes")


def stated(section: Any, **wanted: Any) -> dict[str, Any]:
    """`wanted`, but for what the recipe's section states otherwise than its defaults."""
    standard = type(section)()
    return {
        name: getattr(section, name) if getattr(section, name) != getattr(standard, name) else value
        for name, value in wanted.items()
    }


def lines(plan: Plan, recipe: Recipe) -> list[tuple[str, str]]:
    """A plan as rows of a table; `recipe` is the one that was resolved by it."""
    model, training, optimizer = recipe.model, recipe.training, recipe.optimizer
    heads = "" if model.family == "lstm" else f", {counted(model.heads, 'head')}"
    shape = f"{model.family}, {counted(model.layers, 'layer')} of {model.dim}{heads}"
    within = f"if the pace holds; two of three novels came within {100 * plan.error:.0f} %"
    bits = (
        f"no prediction: {plan.unforetold}"
        if plan.bits_per_byte is None
        else f"{plan.bits_per_byte:.3f} bits per byte held out ({within})"
    )
    return [
        ("model", f"{shape}: {plan.parameters:,} parameters"),
        ("batch", f"{counted(training.batch, 'sequence')} of {counted(model.context, 'token')}"),
        ("steps", f"about {plan.steps:,}: {plan.tokens:,} tokens, {plan.epochs:.1f} epochs"),
        ("dropout", f"{model.dropout:g}"),
        (
            "rates",
            f"{optimizer.name}, muon_lr {optimizer.muon_rate(model.family):g}, lr {optimizer.rate(model.family):g}",
        ),
        (
            "pace",
            f"{1e3 * plan.step_seconds:.1f} ms a step, {plan.tokens / plan.steps / plan.step_seconds:,.0f} tokens/s",
        ),
        ("held out", f"{counted(training.eval_tokens, 'token')} read at an evaluation, evenly from all"),
        ("work", f"{plan.flops:.2e} FLOPs"),
        ("memory", f"about {plan.memory_bytes / 2**20:,.0f} MiB"),
        ("expected", bits),
    ]


def announce(plan: Plan, recipe: Recipe) -> None:
    """Say a plan before it is carried out."""
    considered = counted(plan.considered, "shape")
    say(f"plan for {plan.minutes:g} min ({considered} considered, {len(plan.measured):,} timed):")
    for name, value in lines(plan, recipe):
        say(f"  {name:<10}{value}")
