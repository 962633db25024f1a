"""Which examples stand before a question: never itself, nor one of its group; by chance, words or states."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wenlu.base.errors import UserError
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.prompting.demonstrations import Demonstrations, global_entropy, may_precede, most_even, spread
from wenlu.prompting.examples import Example
from wenlu.prompting.similarity import FolderEmbedder, Words, terms
from wenlu.tokenization.learn import learn


def example(id, text, gold=0, group=""):
    return Example(id, {"text": text}, ("no", "yes"), gold, group=group)


POOL = [
    example("a", "the cat sat on the mat", 0),
    example("b", "the dog sat on the log", 1),
    example("c", "stocks fell in London", 0),
    example("d", "shares rose in Paris today", 0),
    example("e", "猫坐在垫子上", 1),
    example("f", "股票在伦敦下跌", 0, group="g"),
    example("g", "股票在巴黎上涨", 0, group="g"),
    example("h", "a cat on a mat", 1),
]


TEXT = ("text",)


def embed(texts):
    """Which letters a text has."""
    return np.array([[text.count(chr(97 + n)) for n in range(26)] + [len(text)] for text in texts], float)


def ids(chosen):
    return [one.id for one in chosen]


KINDS = [
    Demonstrations("random", 3, seed=1),
    Demonstrations("balanced", 4, seed=1),
    Demonstrations("bm25", 3, fields=TEXT),
    Demonstrations("nearest", 3, fields=TEXT),
    Demonstrations("mmr", 3, fields=TEXT),
]


@pytest.mark.parametrize("plan", KINDS, ids=lambda plan: plan.kind)
def test_never_the_question_itself_nor_one_of_its_group(plan):
    choose = plan.over(POOL, embed)
    for question in [*POOL, example("again", POOL[0].fields["text"]), example("new", "股票", group="g")]:
        found = choose(question)
        assert len(found) == plan.shots == len(set(ids(found))) and found == choose(question)
        assert all(may_precede(one, question) for one in found)
        assert question.id != "again" or "a" not in ids(found), "the same content under another id"
        assert question.group != "g" or not {"f", "g"} & set(ids(found))


@given(st.permutations(POOL), st.integers(0, 5))
def test_draws_do_not_depend_on_the_order_of_the_pool(pool, seed):
    question = example("q", "?")
    for kind in ("random", "balanced"):
        plan = Demonstrations(kind, 4, seed=seed)
        assert plan.over(pool)(question) == plan.over(POOL)(question)


def test_a_draw_is_the_same_for_all_questions_that_it_may_stand_before():
    choose = Demonstrations("random", 3).over(POOL)
    common = set(ids(choose(example("q", "?"))))
    for question in POOL:
        assert len(common - set(ids(choose(question)))) <= 1 + bool(question.group)


@pytest.mark.parametrize("seed", range(4))
def test_balanced_has_as_many_of_each(seed):
    found = Demonstrations("balanced", 4, seed=seed).over(POOL)(example("q", "?"))
    assert sorted(one.gold for one in found) == [0, 0, 1, 1]
    assert len({tuple(o.gold for o in Demonstrations("balanced", 4, seed=s).over(POOL)(POOL[2])) for s in range(9)}) > 1


def test_fixed_is_as_named():
    assert ids(Demonstrations("fixed", ids=("d", "a")).over(POOL)(POOL[1])) == ["d", "a"]
    assert Demonstrations().over(POOL)(POOL[0]) == ()


def test_words_in_both_languages():
    assert terms("The CAT 坐在垫") == ["the", "cat", "坐", "在", "垫", "坐在", "在垫"]
    bm25 = Demonstrations("bm25", 2, fields=TEXT).over(POOL)
    assert ids(bm25(example("q", "cat mat"))) == ["a", "h"], "the likest stands last"
    assert ids(bm25(example("q", "伦敦股票")))[-1] == "f"
    assert Words(["a b", "c"]).to("zz").tolist() == [0, 0]
    likeness = Words([one.fields["text"] for one in POOL]).between()
    assert np.allclose(likeness, likeness.T) and np.allclose(np.diagonal(likeness), 1)


def test_bm25_is_that_of_the_books():
    """Lucene's form: idf = log(1 + (N - n + .5) / (n + .5)), tf / (tf + k1 (1 - b + b len / mean))."""
    found = Words(["stove stove fire", "fire"]).to("stove")
    idf, tf = math.log(1 + (2 - 1 + 0.5) / (1 + 0.5)), 2 / (2 + 1.5 * (1 - 0.75 + 0.75 * 3 / 2))
    assert found.tolist() == pytest.approx([idf * tf, 0])


def test_mmr_between_likeness_and_difference():
    likeness, between = np.array([1.0, 0.9, 0.5]), np.array([[1, 0.95, 0], [0.95, 1, 0], [0, 0, 1.0]])
    assert spread(likeness, between, range(3), 2, 1.0) == [0, 1]
    assert spread(likeness, between, range(3), 2, 0.5) == [0, 2]
    words = Demonstrations("mmr", 2, fields=TEXT, trade=1.0).over(POOL)(example("q", "cat mat"))
    assert ids(words) == ["a", "h"], "with trade 1 what BM25 gives"


@pytest.mark.parametrize("family", ["llama", "lstm", "bert", "t5"])
def test_a_models_own_states(family):
    tokenizer = learn(
        "bpe", ["the cat sat on the mat. 猫坐在垫子上。"] * 3, 300, {"bert": "bert", "t5": "t5"}.get(family, "text")
    )
    names = {name: getattr(tokenizer, name) for name in ("bos_id", "eos_id", "pad_id")}
    model = build(ModelConfig(family, dim=16, layers=1, heads=2, context=16, vocab=tokenizer.vocab, **names), 0)
    embedder = FolderEmbedder(model, tokenizer)
    vectors = embedder(["the cat", "猫", "the cat sat on the mat " * 9])
    assert vectors.shape == (3, 16) and embedder.notes == (
        "of 1 text only the first 16 tokens were read to choose demonstrations by",
    )
    assert embedder(["the cat sat on the mat " * 9]).shape == (1, 16) and embedder.cut == 1, "the same text again"
    assert np.allclose(vectors[1], embedder(["猫"])[0]), "each text alone"
    found = Demonstrations("nearest", 1, fields=TEXT).over(
        [example("x", "the cat sat"), example("y", "猫坐")], embedder
    )
    assert len(found(example("q", "the cat"))) == 1 and embedder([]).shape == (0, 16)


def test_the_order_that_tells_inputs_apart():
    assert global_entropy([0, 0, 0]) == 0 and global_entropy("ab") == pytest.approx(math.log(2))
    predicted = {"a": [0, 0, 0, 1], "b": [0, 1, 0, 1], "c": [1, 1, 1, 1]}
    orders = list(itertools.permutations(POOL[:3]))
    best = most_even(orders, lambda order: predicted[order[-1].id])
    assert best[-1].id == "b" and ids(best) == ids(next(order for order in orders if order[-1].id == "b"))


@pytest.mark.parametrize(
    "act, message",
    [
        (lambda: Demonstrations("random"), "of kind 'random' need a count of at least 1"),
        (lambda: Demonstrations("random", -1), "demonstrations.count must be at least 0, not -1"),
        (lambda: Demonstrations(count=2), "2 demonstrations of no kind: set kind"),
        (lambda: Demonstrations("fixed"), "ids belong to kind = 'fixed', which needs some"),
        (lambda: Demonstrations("bm25", 2, ids=("a",)), "ids belong to kind = 'fixed'"),
        (lambda: Demonstrations("fixed", ids=("a", "a")), "names an example twice"),
        (lambda: Demonstrations("fixed", 3, ids=("a",)), "count is 3, but 1 ids are given"),
        (lambda: Demonstrations("mmr", 2, trade=1.5), r"trade must lie in \[0, 1\], not 1.5"),
        (lambda: Demonstrations("fixed", ids=("aa",)).over(POOL), "no example 'aa' in the pool. Did you mean 'a'"),
        (
            lambda: Demonstrations("fixed", ids=("f",)).over(POOL)(POOL[6]),
            "fixed demonstration f is example g itself",
        ),
        (
            lambda: Demonstrations("random", 8).over(POOL)(POOL[6]),
            "8 demonstrations are wanted, but only 6 may",
        ),
        (lambda: Demonstrations("nearest", 2, fields=TEXT).over(POOL), "nearest demonstrations need vectors of texts"),
        (
            lambda: Demonstrations("bm25", 1, fields=("txt",)).over(POOL),
            "no field 'txt' to compare by. Did",
        ),
        (
            lambda: Demonstrations("bm25", 1, fields=TEXT).over([example("x", "?!")]),
            "BM25 finds no words in the pool's examples",
        ),
        (
            lambda: Demonstrations("nearest", 1, fields=TEXT).over(POOL, lambda texts: np.zeros(3)),
            "must give a vector of",
        ),
        (
            lambda: Demonstrations("mmr", 1).over(POOL),
            "mmr demonstrations compare by fields: name those that",
        ),
        (
            lambda: Demonstrations("bm25", 1, fields=TEXT).over([Example("x", {"text": ["a"]}, answers=("b",))]),
            "the field 'text' of example x is no text to compare by",
        ),
        (lambda: Demonstrations("random", 1).over([POOL[0], POOL[0]]), "two examples have the id 'a'"),
    ],
)
def test_refused(act, message):
    with pytest.raises(UserError, match=message):
        act()


def test_a_text_without_tokens_has_no_embedding():
    tokenizer = learn("char", ["abc"])
    model = build(ModelConfig("llama", dim=16, layers=1, heads=2, context=16, vocab=tokenizer.vocab), 0)
    tokenizer.begins = False
    with pytest.raises(UserError, match="a text without tokens has no embedding"):
        FolderEmbedder(model, tokenizer)([""])
