"""Translation: Multi30k (English, German, French) and Tatoeba (English, Chinese), judged by sacreBLEU."""

from __future__ import annotations

from wenlu.base.errors import UserError
from wenlu.evaluation.task import Task
from wenlu.evaluation.tasks.source import Source, lines_of, wanted
from wenlu.evaluation.writing import Writing
from wenlu.prompting.examples import Example
from wenlu.prompting.template import Template

LANGUAGES = {"en": "English", "de": "German", "fr": "French", "zh": "中文"}
NAMES = tuple(
    [f"multi30k.{a}-{b}" for a in ("en", "de", "fr") for b in ("en", "de", "fr") if a != b]
    + ["tatoeba.en-zh", "tatoeba.zh-en"]
)
TEST = "test_2016_flickr"
HELD_OUT = 1000
"""Of Tatoeba's pairs, every twentieth up to so many is asked; the others are there for shots."""
KIND = Writing("translation", max_tokens=96)


def read(source: Source, name: str) -> Task:
    """One direction, such as multi30k.en-de. Its shots come from the training part."""
    corpus, _, direction = name.partition(".")
    first, second = direction.split("-")
    parts = _tatoeba(source, name) if corpus == "tatoeba" else _multi30k(source, name, (first, second))
    turned = corpus == "tatoeba" and first == "zh"
    template = Template(f"{LANGUAGES[first]}: {{{{ source }}}}\n{LANGUAGES[second]}:")
    made = [
        tuple(
            Example(f"{part}-{n}", {"source": pair[turned]}, answers=(pair[not turned],))
            for n, pair in enumerate(pairs)
        )
        for part, pairs in zip(("test", "train"), parts, strict=True)
    ]
    return Task(name, KIND, made[0], template, made[1])


def _multi30k(source: Source, name: str, sides: tuple[str, str]) -> list[list[tuple[str, str]]]:
    if source.folder is None:
        hubs = (f"bentrevett/multi30k:{split}" for split in ("test", "train"))
        return [
            [tuple(wanted(row, sides, f"{hub}, row {n}")) for n, row in enumerate(source.rows(name, "", "", hub))]
            for hub in hubs
        ]
    parts = []
    for part in (TEST, "train"):
        both = [lines_of(source.read(name, f"{part}.{side}")) for side in sides]
        if len(both[0]) != len(both[1]):
            raise UserError(
                f"task {name}: {part}.{sides[0]} has {len(both[0])} lines, {part}.{sides[1]} {len(both[1])}"
            )
        parts.append(list(zip(*both, strict=True)))
    return parts


def _tatoeba(source: Source, name: str) -> list[list[tuple[str, str]]]:
    if source.folder is None:
        raise UserError(f"task {name} is not on the hub as it is known here: give its files by --data FOLDER")
    lines = [line.split("\t") for line in lines_of(source.read(name, "cmn.txt")) if line.strip()]
    pairs = [(cells[0], cells[1]) for cells in lines if len(cells) > 1]
    asked = set(range(0, len(pairs), 20)[:HELD_OUT])
    # A sentence that is asked is no shot, whatever its other translations.
    known = {side for n in asked for side in pairs[n]}
    rest = [pair for pair in pairs if not known & set(pair)]
    return [[pairs[n] for n in sorted(asked)], rest]
