"""What a search comes to: what failed and what was spent are part of it, the writer's too, cut off or not."""

from dataclasses import replace

import pytest
from searches import BASELINE, EXAMPLES, LIMITED, SEARCH, Counting, planned, same

from wenlu.base.errors import UserError
from wenlu.base.log import JsonLines, read_rows
from wenlu.prompting.answers import Extractor
from wenlu.prompting.artifact import Decoding
from wenlu.prompting.backend import Failed, FolderBackend, Spent, Written
from wenlu.prompting.search.optimize import Optimizer
from wenlu.prompting.search.outcome import Finalist
from wenlu.prompting.search.page import constant, write_page


class Costly:
    """A writer that counts what it is asked and dies after so many texts."""

    name, spent, dies_at = "a writer", Spent(), 1 << 60

    def generate(self, prompts, settings):
        if settings.seed >= self.dies_at:
            raise KeyboardInterrupt
        self.spent += Spent(1, 20, 4)
        return [Written(f"Choose well, {settings.seed}.", "stop", 20, 4)]


def test_what_a_writer_costs_is_part_of_what_was_spent_however_often_it_was_cut_off(backend, tmp_path):
    wrote = replace(SEARCH, candidates=8)
    whole = Optimizer(backend, BASELINE, EXAMPLES, wrote, tmp_path / "whole", writer=Costly()).run()
    assert whole.writer_tokens == 4 * 24 and whole.best.spent.requests == 4
    noted = [
        row["spent"]
        for name in ("search", "matrix")
        for row in read_rows(tmp_path / "whole" / f"{name}.jsonl")
        if "spent" in row and "event" in row
    ]
    assert whole.tokens == whole.best.spent.all_tokens <= sum(one["prompt_tokens"] + one["tokens"] for one in noted)
    cut, again = Costly(), Costly()
    cut.dies_at = 2
    with pytest.raises(KeyboardInterrupt):
        Optimizer(backend, BASELINE, EXAMPLES, wrote, tmp_path / "cut", writer=cut).run()
    assert same(Optimizer(backend, BASELINE, EXAMPLES, wrote, tmp_path / "cut", writer=again).run(), whole)
    assert (cut.spent.requests, again.spent.requests) == (2, 2), "what was written is not paid for twice"


class Unsure(Counting):
    """Fails on one of the examples, or on all once it is told to."""

    bad, down = "no such text", False

    def score(self, queries, advance=None):
        pairs = zip(queries, super().score(queries, advance), strict=True)
        return [Failed("said 500") if self.down or self.bad in query.prefix else one for query, one in pairs]


@pytest.mark.parametrize("part", ["search", "select", "test"])
def test_a_search_goes_on_without_an_example_that_fails(part, model, tmp_path, capsys):
    backend, examples = Unsure(model), [replace(one, id=f"x{n}") for n, one in enumerate(EXAMPLES)]
    examples += [replace(one, id=f"y{n}", fields={"text": f"炉子 {n} {n} is"}) for n, one in enumerate(EXAMPLES)]
    parts = Optimizer(backend, BASELINE, examples, SEARCH, tmp_path).parts
    backend.bad = f"Text: {examples[getattr(parts, part)[0]].fields['text']}\n"
    plain = replace(BASELINE, template=replace(BASELINE.template, instruction="Read it. Say what fits. 看仔细。"))
    outcome = Optimizer(backend, plain, examples, SEARCH, tmp_path).run()
    assert {len(one.right) for one in outcome.finalists} <= {len(parts.select), len(parts.select) - (part == "select")}
    if part == "select":
        assert {len(one.right) for one in outcome.finalists} == {len(parts.select) - 1}
        assert "examples failed with some prompt and are left out" in capsys.readouterr().err
    if part == "test" and outcome.verdict is not None:
        assert outcome.best.verdict.examples == len(parts.test) - 1
    asked = backend.calls
    assert same(Optimizer(backend, plain, examples, SEARCH, tmp_path).run(), outcome) and backend.calls <= asked + 4


def test_what_failed_when_a_prompt_was_chosen_is_not_asked_again_and_changes_no_choice(model, tmp_path):
    class Writing(Counting):
        bad, written = "no such text", 0

        def generate(self, prompts, settings, advance=None):
            self.written += len(prompts)
            found = super().generate(prompts, settings, advance)
            pairs = zip(prompts, found, strict=True)
            return [replace(one, finish="error", error="said 400") if self.bad in text else one for text, one in pairs]

    free = replace(BASELINE, scoring=None, extractor=Extractor("choice"), decoding=Decoding(max_tokens=3))
    examples = [replace(one, id=f"y{n}", fields={"text": f"炉子 {n} {n} is"}) for n, one in enumerate(EXAMPLES)]
    backend, search = Writing(model), replace(SEARCH, candidates=3)
    parts = Optimizer(backend, free, examples, search, tmp_path).parts
    backend.bad = f"Text: {examples[parts.select[0]].fields['text']}\n"
    outcome = Optimizer(backend, free, examples, search, tmp_path).run()
    assert {len(one.right) for one in outcome.finalists} == {len(parts.select) - 1}
    chosen = next(row for row in read_rows(tmp_path / "search.jsonl") if row["event"] == "chosen")
    assert outcome.finalists[chosen["finalist"]].prompt.name == chosen["name"] == outcome.best.name
    written, backend.bad = backend.written, "no such text"
    assert same(Optimizer(backend, free, examples, search, tmp_path).run(), outcome)
    assert backend.written == written


def test_a_folder_in_which_another_process_searches_is_refused(backend, tmp_path):
    held = JsonLines(tmp_path / "search.jsonl")
    with pytest.raises(
        UserError, match=r"another process is writing .*search.jsonl: wait for it, or give another --out"
    ):
        Optimizer(backend, BASELINE, EXAMPLES, SEARCH, tmp_path).run()
    held.close()
    assert Optimizer(backend, BASELINE, EXAMPLES, SEARCH, tmp_path).run().finalists


def test_a_search_that_fails_ends_and_goes_on_later(model, tmp_path):
    backend = Unsure(model)
    whole = Optimizer(Unsure(model), BASELINE, EXAMPLES, SEARCH, tmp_path / "whole").run()
    backend.down = True
    with pytest.raises(UserError, match=r"examples failed with some prompt, more than 10%, .* said 500"):
        Optimizer(backend, BASELINE, EXAMPLES, SEARCH, tmp_path / "cut").run()
    backend.down = False
    later = Optimizer(backend, BASELINE, EXAMPLES, SEARCH, tmp_path / "cut").run()
    assert [one.right for one in later.finalists] == [one.right for one in whole.finalists]
    assert later.best.sha256 != whole.best.sha256 and later.tokens > whole.tokens, "what has failed cost too"


def test_a_plan_that_leaves_much_of_the_limit_says_so(backend, tmp_path, capsys):
    Optimizer(backend, BASELINE, EXAMPLES, replace(LIMITED, tokens=10_000_000, candidates=3), tmp_path).run()
    assert "answers that the limit allows: by then every prompt that is left has met all" in capsys.readouterr().err


def test_what_is_kept_from_a_measure_cut_off_counts_as_measured(backend, tmp_path, monkeypatch):
    """An endpoint keeps answers of the process before: they cost nothing now, and the rest would seem to."""
    search = replace(LIMITED, tokens=58_000)
    Optimizer(backend, BASELINE, EXAMPLES, search, tmp_path / "whole").run()
    kept = Counting(backend.model and (backend.model, backend.tokenizer))
    monkeypatch.setattr(Counting, "tokens_kept", property(lambda self: self.hidden), raising=False)
    monkeypatch.setattr(Counting, "hidden", 0, raising=False)

    def score(queries, advance=None):
        before = FolderBackend.tokens_used.fget(kept)
        found = Counting.score(kept, queries, advance)
        if kept.calls == 1:
            kept.hidden = FolderBackend.tokens_used.fget(kept) - before
        return found

    kept.score = score
    monkeypatch.setattr(
        Counting, "tokens_used", property(lambda self: FolderBackend.tokens_used.fget(self) - self.hidden)
    )
    Optimizer(kept, BASELINE, EXAMPLES, search, tmp_path / "kept").run()
    assert planned(tmp_path / "kept")["evaluations"] == planned(tmp_path / "whole")["evaluations"]


def test_prompts_that_always_say_the_same_are_told_together_behind_the_verdict(backend, tmp_path):
    optimizer = Optimizer(backend, BASELINE, EXAMPLES, SEARCH, tmp_path)
    outcome = optimizer.run()
    named = [replace(BASELINE, name=name) for name in ("one", "two", "three", "four")]
    right = outcome.finalists[0].right
    said = [Finalist(one, right, always) for one, always in zip(named, ("four", "热的", "four", None), strict=True)]
    told = replace(outcome, finalists=tuple(said), luck=replace(outcome.luck, chosen=(1.0, 0.0, 0.0, 0.0)), always=())
    assert constant(told) == [
        "one; three gave every select example the answer 'four': whatever they are asked",
        "two gave every select example the answer '热的': whatever it is asked",
    ]
    assert constant(replace(told, always=(("one", "four"),))) == [
        "one gives every example the answer 'four': whatever it is asked",
        "two gave every select example the answer '热的': whatever it is asked",
        "three gave every select example the answer 'four': whatever it is asked",
    ]
    write_page(tmp_path / "report.html", optimizer, told)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    judged = told.verdict.word if told.verdict else "The baseline was chosen"
    assert page.index("Verdict, on") < page.index(judged) < page.index("one; three gave every")
