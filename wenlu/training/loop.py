"""The one training loop: stopped at any instant and resumed, it ends with the same weights as if never stopped."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wenlu.base.device import machine, out_of_memory, peak_memory
from wenlu.base.errors import UserError
from wenlu.base.log import JsonLines, counted, read_rows, say
from wenlu.hub import folder as hub_folder
from wenlu.models.size import parameters
from wenlu.training.checkpoint import Progress, load_checkpoint, newest_whole, restore_weights, save_checkpoint
from wenlu.training.nonfinite import blame
from wenlu.training.pacing import Pacing
from wenlu.training.recipe import Recipe, TuningRecipe, resolve
from wenlu.training.report import write_report
from wenlu.training.run_folder import RunFolder
from wenlu.training.schedules import factor
from wenlu.training.setup import Setup, announce, compile_hidden, deterministic, eager, set_up, with_less
from wenlu.training.tuning import set_up_tuning
from wenlu.training.update import Gradients, Updates, arithmetic, kernels_for
from wenlu.training.watch import Watch

CHECKPOINT_SECONDS = 60.0
CALMER = "Begin anew with a lower --optimizer.lr and --optimizer.muon-lr, or a longer --schedule.warmup"


@dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended."""

    run: Path
    finished: str
    """steps, patience, or interrupted."""
    step: int
    held_out: float | None
    """Loss of the weights at the root of the run, in `unit`."""
    seconds: float
    unit: str = "nats/token"
    objective: str = "next token"
    bits_per_byte: float | None = None
    """The same loss, where that is known."""


def train(
    recipe: Recipe | None,
    out: Path | str,
    *,
    resume: bool = False,
    inexact: bool = False,
    began: float | None = None,
    report: bool = True,
    look: Callable[[Setup], None] | None = None,
) -> Outcome:
    """Train what `recipe` says into the folder `out`, or go on with the run there (`recipe` may then be None).

    A recipe with `training.minutes` is planned for this machine and ends in that time, counted from `began`, a moment
    of `time.monotonic()`; from this call on by default. Without `report`, no HTML is written at the end.
    `look` is shown what the run works with before it begins.

    Raises `UserError` for whatever the user can mend, before the first step where that is possible.
    """
    began = time.monotonic() if began is None else began
    folder = RunFolder(out)
    if resume:
        saved = folder.recipe()
        _same_recipe(saved, recipe, folder.chosen() or {})
        recipe = saved
    elif recipe is None:
        raise UserError("nothing to train: give a recipe, or --resume with the --out of a run")
    else:
        folder.create(recipe)
    with ExitStack() as stack:
        folder.lock()
        stack.callback(folder.unlock)
        if folder.recipe() != recipe:
            raise UserError(f"another process has just begun a run in {folder.root}: choose another --out")
        stack.enter_context(deterministic())
        stack.enter_context(out_of_memory(with_less(recipe)))
        begin = set_up_tuning if isinstance(recipe, TuningRecipe) else set_up
        try:
            setup = begin(recipe, folder, began, verify=resume)
        except (Exception, KeyboardInterrupt):  # so that the same command can be given again
            folder.take_back()
            raise
        if look:
            look(setup)
        loop = Loop(setup, folder, began, report)
        stack.callback(loop.close)
        if resume:
            loop.restore(inexact)
            if loop.progress.finished:
                loop.conclude()
                say(f"{folder.root} is finished: {counted(loop.progress.step, 'step')}; nothing to resume")
                return loop.outcome()
        return loop.run()


def _same_recipe(saved: Recipe, given: Recipe | None, chosen: dict[str, dict[str, Any]]) -> None:
    """Refuse another recipe than the run's; one that leaves open what a plan chose is the same."""
    if given is None or given == saved:
        return
    if type(given) is not type(saved):
        raise UserError(f"the run was begun by wenlu {saved.command}: go on with it by that command")
    saved, standard = resolve(saved, chosen), type(saved)()
    for section in (field.name for field in dataclasses.fields(saved)):
        old, new, open_ = (vars(getattr(recipe, section)) for recipe in (saved, given, standard))
        for name in old:
            left_open = name in chosen.get(section, {}) and new[name] == open_[name]
            if old[name] != new[name] and not left_open:
                raise UserError(
                    f"the run was begun with {section}.{name} = {old[name]!r}, not {new[name]!r}: "
                    "leave that out to resume, or begin a new run with another --out"
                )


def _apart(name: str, before: dict[str, Any], now: dict[str, Any]) -> str:
    """In what respect a machine is another one, in words."""
    old, new = before[name], now.get(name)
    if not isinstance(old, list) or not isinstance(new, list):
        return f"with {name} = {old!r}, here it is {new!r}"
    gone, come = (", ".join(sorted(set(one) - set(other))) for one, other in ((old, new), (new, old)))
    return " and ".join([f"with {gone}, not there now"] * bool(gone) + [f"without {come}, there now"] * bool(come))


class Loop:
    """One run in one process."""

    def __init__(self, setup: Setup, folder: RunFolder, began: float, report: bool = True):
        self.setup, self.folder, self._report = setup, folder, report
        self.recipe, self.model = setup.recipe, setup.model
        self.updates = Updates(setup.recipe, setup.model, setup.material, setup.objective, setup.device, setup.bf16)
        self.progress = Progress()
        self.events = JsonLines(folder.events_file)
        self.metrics = JsonLines(folder.metrics_file)
        self._began, self._saved_at = began, time.monotonic()
        self.pacing = self._pacing()

    def _pacing(self) -> Pacing:
        training = self.recipe.training
        return Pacing(training.minutes, training.steps, self._began, self.progress, self.events)

    def close(self) -> None:
        self.events.close()
        self.metrics.close()

    def restore(self, inexact: bool) -> None:
        """Take up the newest whole checkpoint (none: step 0), refusing another machine or other data."""
        self.folder.sweep()
        events = read_rows(self.folder.events_file)
        begun = next((row for row in events if row["event"] == "start"), None)
        if begun:  # before weights are put into a model whose size follows from the data
            self._same_data(begun)
        path, damaged = newest_whole(self.folder.checkpoints)
        for problem in damaged:
            say(f"{problem}; looking for an older one", "yellow")
        if damaged and path is None:
            raise UserError(
                f"no checkpoint in {self.folder.checkpoints} is whole: remove that folder to begin again at step 0"
            )
        if path:
            self.progress, tensors = load_checkpoint(path)
            restore_weights(self.model, tensors["weights"])
            self.updates.optimizer.load(tensors.get("optimizer", {}))
        if begun and not self.progress.finished:  # by what is there: the last checkpoint may be gone
            self._same_ground(begun, [row["machine"] for row in events if "machine" in row][-1], inexact)
        step = self.progress.step
        rows = [*read_rows(self.folder.metrics_file), *(row for row in events if "step" in row)]
        reached = max((row.get("reached", row["step"]) for row in rows), default=0)
        self.pacing = self._pacing()
        self.pacing.replay([[row["step"], row["steps"]] for row in events if row["event"] == "turn"], reached)
        self.events.write(event="resume", step=step, reached=reached, damaged=damaged)
        self.events.sync()  # before the rows go that tell how far the run had come
        self.metrics.keep_while(lambda row: row["step"] <= step)
        if not self.progress.finished:
            say(f"resuming {self.folder.root} at step {step:,}")

    def _same_data(self, begun: dict) -> None:
        """Refuse other data than the run was begun with."""
        if begun["data"] != self.setup.material.fingerprint:
            raise UserError(
                "the data differ from those the run was begun with (their fingerprint changed): "
                "restore them, or begin a new run with another --out"
            )

    def _same_ground(self, begun: dict, machine_before: dict, inexact: bool) -> None:
        """Refuse other data, and another machine than the last; with `inexact` the machine is noted as the new one.

        Machines are compared by what was noted of the last one: an older run noted less.
        """
        self._same_data(begun)
        self.setup.compile, self.setup.bf16 = begun["compile"], begun["bf16"]
        self.updates.bf16 = begun["bf16"]
        had_kernels = machine_before.get("kernels")
        self.setup.kernels = kernels_for(self.setup.device, begun["compile"]) if had_kernels else None
        now = self._ground()
        changed = [name for name, before in machine_before.items() if now.get(name) != before]
        if changed and not inexact:
            raise UserError(
                f"the run was begun {_apart(changed[0], machine_before, now)}, so the bits would differ: "
                "add --inexact to go on all the same"
            )
        if changed:
            self.events.write(event="inexact", changed=changed, machine=now)

    def _ground(self) -> dict[str, Any]:
        """What the bits of this run depend on."""
        kernels = self.setup.kernels
        return {**machine(self.setup.device), "kernels": kernels and kernels.identity}

    def run(self) -> Outcome:
        """Step until the recipe's steps are done, patience ends, or the user interrupts."""
        if not any(row["event"] == "start" for row in read_rows(self.folder.events_file)):
            self.events.write(
                event="start",
                machine=self._ground(),
                data=self.setup.material.fingerprint,
                objective=self.setup.objective.name,
                unit=self.setup.objective.unit,
                compile=self.setup.compile,
                bf16=self.setup.bf16,
                parameters=parameters(self.model.config),
            )
            self.events.sync()
        announce(self.setup, parameters(self.model.config))
        if self.setup.compile:
            compile_hidden(self.model)
        watching = Watch(self.setup, self.folder, self.progress, self.pacing)
        self.pacing.start()
        with arithmetic(self.setup.bf16, self.setup.kernels), interruption() as stopped, watching as watch:
            while not self.progress.finished:
                self._step(watch)
                self._after_step(watch)
                if self.pacing.after_step():
                    watch.turned()
                if stopped.is_set() and not self.progress.finished:
                    self._checkpoint()
                    return self._interrupted()
        self.conclude()
        return self.outcome()

    def _step(self, watch: Watch) -> None:
        progress, before = self.progress, self.progress.tokens
        loss, scale, norm = self.update()
        if progress.step % self.recipe.training.log_every == 0 or progress.step == self.pacing.steps:
            row = watch.row(scale, norm)
            self.metrics.write(**row)
            progress.loss_sum, progress.loss_count = 0.0, 0
        watch.advance(loss, progress.tokens - before)

    def update(self) -> tuple[float, float, float]:
        """One update; the loss in nats per token, the learning rate as a factor of its peak, the gradient's norm."""
        progress = self.progress
        began = time.monotonic()
        found = self.updates.gradients(progress.step)
        if not np.isfinite(found.loss + found.norm):
            self._stop_nonfinite(found)
        scale = factor(self.recipe.schedule, self.pacing.place, self.pacing.steps)
        self.updates.apply(found.count, found.norm, scale)
        samples = self.setup.material.order.batch_at(progress.step)
        progress.step += 1
        progress.tokens += found.tokens
        progress.loss_sum += found.loss
        progress.loss_count += found.count
        progress.order = hashlib.sha256(progress.order.encode() + samples.tobytes()).hexdigest()[:16]
        progress.seconds += time.monotonic() - began
        return found.loss / found.count, scale, found.norm

    def _after_step(self, watch: Watch) -> None:
        training, progress = self.recipe.training, self.progress
        last, began = progress.step == self.pacing.steps, time.monotonic()
        evaluating = self.setup.material.holds_out and training.eval_every
        if evaluating and (last or progress.step % training.eval_every == 0):
            self._evaluate(watch)
            if training.patience and progress.evaluations_since_best >= training.patience:
                progress.finished = "patience"
        if last:
            progress.finished = "steps"
        every = training.checkpoint_every
        due = progress.step % every == 0 if every else time.monotonic() - self._saved_at > CHECKPOINT_SECONDS
        if due or progress.finished:
            self._checkpoint()
        if evaluating and (last or progress.step % training.eval_every == 0):
            self.pacing.ending = time.monotonic() - began

    def _evaluate(self, watch: Watch) -> None:
        progress = self.progress
        figures = self.updates.held_out()
        progress.held_out = figures["held_out"]
        if not math.isfinite(progress.held_out):
            self.events.write(event="nonfinite", step=progress.step, where="held-out loss")
            raise UserError(
                f"the held-out loss after step {progress.step} is {progress.held_out}; these weights were not saved. "
                f"{CALMER}"
            )
        if progress.best_loss is None or progress.held_out < progress.best_loss:
            progress.best_loss, progress.best_step = progress.held_out, progress.step
            progress.evaluations_since_best = 0
            self._save_root()
        else:
            progress.evaluations_since_best += 1
        sample = watch.sample(self.model, self.setup.material.tokenizer)
        self.metrics.write(**watch.held_out_row(figures, sample))

    def _save_root(self) -> None:
        hub_folder.save(self.model, self.setup.material.tokenizer, self.folder.root)

    def _checkpoint(self) -> None:
        if self.progress.best_loss is None:
            self._save_root()
        self.metrics.sync()
        self.progress.clock = self.pacing.clock()
        weights = dict(self.model.named_parameters())
        groups = {"weights": weights, "optimizer": self.updates.optimizer.state()}
        path = save_checkpoint(self.folder.checkpoints, self.progress, groups, self.recipe.training.keep)
        self.events.write(event="checkpoint", step=self.progress.step, path=path.name)
        self._saved_at = time.monotonic()

    def _stop_nonfinite(self, found: Gradients) -> None:
        """A loss or gradient that is not finite: the update is not made; weights are kept if they are finite."""
        finite = self.updates.finite()
        if finite:
            self._checkpoint()
        with eager(self.model), self.updates.precision():
            where = blame(self.model, self.updates.batches(self.progress.step), self.setup.objective.loss)
        figures = {"loss": repr(found.loss), "norm": repr(found.norm)}
        self.events.write(event="nonfinite", step=self.progress.step, **figures, where=where)
        kept = f"the weights before it are kept in {self.folder.root}" if finite else "these weights were not saved"
        raise UserError(
            f"step {self.progress.step + 1}: {where} (loss {found.loss}, gradient norm {found.norm}); "
            f"the update was not made, {kept}. {CALMER}"
        )

    def _interrupted(self) -> Outcome:
        self.events.write(event="interrupted", step=self.progress.step)
        if self._report:
            write_report(self.folder)
        say(
            f"stopped after step {self.progress.step:,}, everything saved. Go on with:\n"
            f"  wenlu {self.recipe.command} --resume --out {self.folder.root}"
        )
        return self.outcome("interrupted")

    def conclude(self) -> None:
        """Note the end and write the report; a resume does so again, a kill may have come just before."""
        if not any(row["event"] == "finished" for row in read_rows(self.folder.events_file)):
            peak = peak_memory(self.setup.device)
            facts = {"why": self.progress.finished, "peak": peak, "clock": round(self.pacing.clock(), 3)}
            self.events.write(event="finished", step=self.progress.step, **facts)
        if self._report:
            write_report(self.folder)

    def outcome(self, finished: str = "") -> Outcome:
        progress = self.progress
        evaluations = [row for row in read_rows(self.folder.metrics_file) if "held_out" in row]
        best = min(evaluations, key=lambda row: row["held_out"], default={})
        return Outcome(
            self.folder.root,
            finished or progress.finished,
            progress.step,
            progress.best_loss,
            round(progress.seconds, 3),
            self.setup.objective.unit,
            self.setup.objective.name,
            best.get("bits_per_byte"),
        )


@contextmanager
def interruption():
    """An event that Ctrl-C or SIGTERM sets, so that the step at hand ends first; a second Ctrl-C ends at once."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def note(number, frame):
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()
        say("ending this step, then saving (once more to end at once, without saving)")

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
