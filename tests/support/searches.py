"""A small search for a prompt, and a model that counts what it is asked, for tests."""

from wenlu.base.log import read_rows
from wenlu.prompting.artifact import Artifact
from wenlu.prompting.backend import FolderBackend
from wenlu.prompting.calibrate import Scoring
from wenlu.prompting.examples import Example
from wenlu.prompting.search.optimize import Search
from wenlu.prompting.template import Template

EXAMPLES = [Example(f"e{n}", {"text": f"炉子{n} is warm"}, ("four", "热的"), n % 2) for n in range(60)]
BASELINE = Artifact(
    name="plain",
    template=Template(instruction="Read it. Say what fits. 看仔细。", question="Text: {{ text }}\nAnswer:"),
    scoring=Scoring("sum"),
)
SEARCH = Search(candidates=7, keep=2)


class Counting(FolderBackend):
    """Counts what it is asked, dies after so many calls, and takes a second for each query."""

    calls, asked, dies_at = 0, 0, 1 << 60

    def score(self, queries, advance=None):
        self.calls += 1
        if self.calls > self.dies_at:
            raise KeyboardInterrupt
        self.asked += len(queries)
        return super().score(queries, advance)


def planned(folder):
    """What a search has written down to try."""
    return next(row for row in read_rows(folder / "search.jsonl") if row["event"] == "planned")


def same(one, other):
    """The same in all that a search comes to, what it has cost too."""
    return (
        one.best.sha256 == other.best.sha256
        and one.verdict == other.verdict
        and one.luck == other.luck
        and [(f.prompt.name, f.right) for f in one.finalists] == [(f.prompt.name, f.right) for f in other.finalists]
        and (one.evaluations, one.tokens) == (other.evaluations, other.tokens)
    )


EVERY_SCORE = ("sum", "per_token", "per_byte", "pmi", "contextual", "batch", "channel")
LIMITED = Search(candidates=4, keep=1, scores=EVERY_SCORE)
