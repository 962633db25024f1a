"""The profile: what is counted of many pieces at once is what is counted of each character; damage is named."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from wenlu.data.cleaning import profile as module
from wenlu.data.cleaning.profile import Profile
from wenlu.data.reading.sources import Piece
from wenlu.tokenization.survey import script_of

LETTERS = "ab Z1é天。.,，、'!?\n\ufffd*^_\u3000\U0001f600\U00020000炉б"
RUN_ON = "sentences without a space between them, as where line ends were lost"
DOCUMENTS = st.lists(st.lists(st.text(LETTERS, max_size=30), min_size=1, max_size=3), min_size=1, max_size=6)


def profile_of(documents: list[list[str]]) -> dict:
    made = Profile(len(documents))
    for number, parts in enumerate(documents):
        for index, part in enumerate(parts):
            made.add("train", Piece(number, part, index == len(parts) - 1))
    return made.as_dict()


@settings(deadline=None)
@given(documents=DOCUMENTS, at_once=st.integers(1, 60))
def test_many_pieces_are_counted_as_each(documents, at_once):
    whole, module.AT_ONCE = module.AT_ONCE, at_once
    try:
        found = profile_of(documents)
    finally:
        module.AT_ONCE = whole
    texts = ["".join(parts) for parts in documents]
    assert found["characters"] == dict(Counter(map(script_of, "".join(texts))))
    assert found["document_characters"]["longest"] == max(map(len, texts))
    parts = [part for document in documents for part in document]
    damage = {name: sum(len(p.findall(part)) for part in parts) for name, p in module.DAMAGE.items()}
    assert {name: sign["times"] for name, sign in found["damage"].items()} == {k: n for k, n in damage.items() if n}
    longest = sorted((max(map(len, part.split("\n"))) for part in parts), reverse=True)[: module.LINES]
    assert [line["characters"] for line in found["longest_lines"]] == longest


def test_a_document_on_both_sides_of_the_split_is_one():
    lost = "话说唐僧师徒一路西行。" * 300
    made = Profile(2)
    for side, number, text in (("train", 0, lost), ("train", 1, "炉火"), ("validation", 1, lost)):
        made.add(side, Piece(number, text, True))
    found = made.as_dict()
    assert found["documents_without_commas"] == 2 and sum(found["length_histogram"]["documents_by_length"]) == 2
    assert (found["document_characters"]["shortest"], found["document_characters"]["longest"]) == (3300, 3302)
    assert [sample["text"][:2] for sample in found["samples"]] == ["话说", "炉火"]
    assert [example["document"] for example in found["without_commas_examples"]] == [0, 1]


def test_sentences_that_were_run_together_are_noticed():
    found = profile_of([["It ended in socialism.Humans lived on. No more.Was it thus?Yes."]])["damage"]
    assert found[RUN_ON]["times"] == 3 and "socialism.Humans" in found[RUN_ON]["example"]
    fine = "The U.S.A. and e.g.Node. Mr.X said: os.Path! See www.example.com, 3.14 and A.B.C.\nNew lines too.\nYes."
    assert profile_of([[fine]])["damage"] == {}


def test_a_long_piece_is_counted():
    text = "天气。ok " * 400_000
    found = profile_of([[text]])
    assert found["characters"] == {
        "Latin": 800_000,
        "Han": 800_000,
        "punctuation": 400_000,
        "space": 400_000,
    }
