"""Scores of continuations: those of reading each text by itself, with every shared beginning read once."""

import functools
import math
from array import array

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wenlu.base.errors import UserError
from wenlu.inference import encoded, trie
from wenlu.inference.score import Pair, Query, Scorer
from wenlu.inference.trie import Trie
from wenlu.models import attention
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.tokenization.learn import learn
from wenlu.tokenization.tokenizer import Tokenizer

from small_models import BYTES as TOKENIZER
from small_models import random_model

READERS = ("lstm", "gpt2", "llama", "mistral", "qwen2", "qwen3")
ASKED = "问：二加二是多少？ Question: what is two and two?\n"
QUERIES = [
    Query(ASKED + begin, continuations)
    for begin in ("答：", "Answer:", "Answer: It", "")
    for continuations in (("四。", "五。"), (" four", " four, of course", " five"))
]
TEXTS = st.lists(
    st.tuples(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(1, 5)), min_size=1, max_size=12
)

cached_model = functools.cache(random_model)


def naive(model, prefix, continuation):
    """Log-probabilities of a continuation's tokens, by a reading of the whole text alone, and the likeliest ids."""
    with torch.inference_mode():
        if model.config.family == "t5":
            written = torch.tensor([[model.begin_id, *continuation[:-1]]])
            logits = model(torch.tensor([prefix]), written)[0]
        else:
            logits = model(torch.tensor([[*prefix, *continuation]]))[0, len(prefix) - 1 : -1]
        logits = logits[:, : TOKENIZER.vocab].double()
        best = logits.argmax(-1).tolist()
        return logits.log_softmax(-1)[range(len(continuation)), continuation].tolist(), best


def check(scorer, model, queries):
    scores = [score for of_query in scorer.score_all(queries) for score in of_query]
    pairs = scorer.pairs(queries)
    assert len(scores) == len(pairs)
    for score, (prefix, continuation, *_) in zip(scores, pairs, strict=True):
        values, best = naive(model, prefix, continuation)
        assert score.log_probabilities == pytest.approx(values, abs=1e-4)
        assert score.log_probability == pytest.approx(sum(values), abs=1e-4)
        assert score.greedy == (best == continuation)


@pytest.mark.parametrize("family", [*READERS, "t5"])
@pytest.mark.parametrize("at_once", [3, 16, 512])
def test_scores_are_those_of_each_text_alone(family, at_once, monkeypatch):
    monkeypatch.setattr(trie, "AT_ONCE", at_once)
    monkeypatch.setattr(encoded, "AT_ONCE", 8 * at_once)
    model = random_model(family, context=128)
    check(Scorer(model, TOKENIZER), model, QUERIES)


@given(texts=TEXTS, at_once=st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_any_texts_as_a_tree_are_those_texts(texts, at_once):
    given_out = [(ids, min(first, len(ids))) for ids, first in texts]
    tree = Trie.of(given_out)
    for (ids, first), nodes in zip(given_out, tree.nodes, strict=True):
        assert tree.ids[nodes].tolist() == ids[first:]
        for node in nodes:
            whole = [*trie._way(tree.parents, int(node)), node]
            assert tree.ids[whole].tolist() == ids[: len(whole)]
    beginnings = {tuple(ids[:length]) for ids, _ in texts for length in range(1, len(ids) + 1)}
    assert len(tree.ids) == len(beginnings), "every beginning is there once"
    inner = {begin[:-1] for begin in beginnings if len(begin) > 1}
    assert len(tree.read) == len(inner), "what nothing follows is not read"


@given(texts=TEXTS, at_once=st.integers(1, 9), family=st.sampled_from(["llama", "mistral", "gpt2", "lstm"]))
@settings(max_examples=40, deadline=None)
def test_a_tree_is_read_as_its_texts_are(texts, at_once, family):
    model = cached_model(family)
    given_out = [(ids, min(first, len(ids) - 1)) for ids, first in texts if len(ids) > 1]
    if not given_out:
        return
    before, trie.AT_ONCE = trie.AT_ONCE, at_once
    try:
        tree = Trie.of(given_out)
        with torch.inference_mode():
            values, best = trie.log_probabilities(model, tree)
    finally:
        trie.AT_ONCE = before
    for (ids, first), nodes in zip(given_out, tree.nodes, strict=True):
        expected, likeliest = naive(model, ids[:first], ids[first:])
        assert values[nodes].tolist() == pytest.approx(expected, abs=1e-4)
        assert best[nodes].tolist() == [a == b for a, b in zip(likeliest, ids[first:], strict=True)]


def test_an_lstm_reads_unrelated_texts_of_any_lengths_side_by_side(monkeypatch):
    model, steps = random_model("lstm"), []
    hidden = model.hidden
    monkeypatch.setattr(model, "hidden", lambda ids, **more: steps.append(ids.shape) or hidden(ids, **more))
    queries = [Query(chr(97 + n) * (5 + n), (" b", " c")) for n in range(20)]
    scorer = Scorer(model, TOKENIZER)
    check(scorer, model, queries)
    read = steps[: -2 * len(queries)]  # without those of the texts alone
    assert sum(rows * length for rows, length in read) == scorer.tokens_read, "nothing is padding"
    assert sum(length for _, length in read) <= 1 + 5 + 20 + 1, "as many steps as the longest text has"


def test_what_a_tree_hides_is_a_bias_that_all_layers_share(monkeypatch):
    model, masks, attend = random_model("llama"), [], attention.attend
    monkeypatch.setattr(
        attention, "attend", lambda q, k, v, mask, *more: masks.append(mask) or attend(q, k, v, mask, *more)
    )
    Scorer(model, TOKENIZER).score_all(QUERIES)
    layers = model.config.layers
    assert masks and all(mask.is_floating_point() for mask in masks)
    assert all(mask is masks[place - place % layers] for place, mask in enumerate(masks))


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "qwen3"])
def test_long_texts_that_share_little_are_read_in_rows_of_their_own(family, monkeypatch):
    model, read = random_model(family, context=128), []
    hidden = model.hidden
    monkeypatch.setattr(model, "hidden", lambda ids, **more: read.append((ids, more)) or hidden(ids, **more))
    queries = [Query(chr(97 + n) * (20 + n % 7), (" b",)) for n in range(20)] + [Query("aa?", (" b", " c"))]
    scorer, told = Scorer(model, TOKENIZER), []
    scorer.score_all(queries, told.append)
    rows = [ids.shape for ids, more in read if not more]
    assert sum(count for count, _ in rows) == 19 and len(rows) == 2, "the first shares too much with the last"
    assert len(read) == len(rows) + 1 and sum(told) == len(queries)
    monkeypatch.undo()
    check(Scorer(model, TOKENIZER), model, queries)


def test_every_shared_beginning_is_read_once():
    model = random_model("llama", context=200)
    scorer = Scorer(model, TOKENIZER)
    scorer.score_all([Query("a" * 100 + str(n), (" b", " c")) for n in range(9)])
    # What begins a document, 100 of a, 9 numbers, each with a space; the last tokens are not read.
    assert scorer.tokens_read == 1 + 100 + 9 + 9
    assert scorer.tokens_given == 18 * (1 + 100 + 1 + 2)


@pytest.mark.parametrize("family", ["llama", "lstm", "t5"])
def test_nothing_asked_is_nothing_found(family):
    scorer = Scorer(random_model(family), TOKENIZER)
    assert scorer.score_all([]) == [] and scorer.score("a", []) == []
    assert [len(found) for found in scorer.score_all([Query("a", ()), Query("b", ("四",))])] == [0, 1]
    assert scorer.tokens_read > 0


def test_a_prefix_of_ids_is_read_as_it_stands():
    model = random_model("llama")
    scorer = Scorer(model, TOKENIZER)
    ids = (5, 9, 9, 20)
    (score,) = scorer.score(ids, ["好"])
    assert scorer.pairs([Query(ids, ("好",))]) == [([*ids], TOKENIZER.encode("好"), 3, False)]
    assert score.log_probabilities == pytest.approx(naive(model, list(ids), TOKENIZER.encode("好"))[0], abs=1e-4)


def test_what_greedy_decoding_writes_is_greedy():
    from wenlu.inference.generate import generate
    from wenlu.inference.sample import GREEDY

    model = random_model("qwen3")
    prefix = [TOKENIZER.bos_id if TOKENIZER.bos_id is not None else TOKENIZER.eos_id, *TOKENIZER.encode("一二三")]
    written = TOKENIZER.decode(list(generate(model, prefix, GREEDY, 6)))
    if TOKENIZER.encode(written) and "\ufffd" not in written:
        assert Scorer(model, TOKENIZER).score(tuple(prefix), [written])[0].greedy
    letters = "".join(map(chr, range(97, 123)))
    scores = Scorer(model, TOKENIZER).score("一二三", [*letters])
    assert sum(score.greedy for score in scores) <= 1


def test_space_at_the_end_of_a_prefix_belongs_to_what_follows():
    tokenizer = learn("bpe", ["the cat sat on the mat. " * 50], 300)
    model = random_model("llama", vocab=tokenizer.vocab)
    scorer = Scorer(model, tokenizer)
    (spaced,), (plain,) = (scorer.pairs([Query(*q)]) for q in (("the cat ", ("sat",)), ("the cat", (" sat",))))
    assert spaced[:2] == plain[:2] and spaced.continuation == tokenizer.encode(" sat")


def test_where_a_token_spans_the_border_both_are_encoded_apart():
    tokenizer = learn("bpe", ["something " * 50], 300)
    model = random_model("llama", vocab=tokenizer.vocab)
    ((prefix, continuation, _, apart),) = Scorer(model, tokenizer).pairs([Query("someth", ("ing",))])
    assert tokenizer.decode(prefix[-len(tokenizer.encode("someth")) :] + continuation) == "something"
    assert continuation == tokenizer.encode("ing") and apart
    assert not Scorer(model, tokenizer).pairs([Query("something", (" something",))])[0].apart


@pytest.mark.parametrize("kind", ["bpe", "unigram", "char", "byte"])
def test_what_texts_begin_with_alike_is_encoded_once(kind, monkeypatch):
    text = "The cat sat on the mat; 猫坐在垫子上。 " * 20
    tokenizer = learn(kind, [text * 20], 400 if kind in ("bpe", "unigram") else None)
    scorer = Scorer(random_model("llama", vocab=tokenizer.vocab), tokenizer)
    queries = [Query(text + end, (" on the mat", "坐在垫子上", "mat")) for end in ("The cat", "猫 ", "\n\nmat; ")]
    read, encode = [], tokenizer.encode_batch
    monkeypatch.setattr(tokenizer, "encode_batch", lambda texts: read.extend(texts) or encode(texts))
    pairs = scorer.pairs(queries)
    assert sum(map(len, read)) < 3 * len(text)
    monkeypatch.setattr("wenlu.inference.score.PART", 1 << 20)
    assert scorer.pairs(queries) == pairs and sum(map(len, read)) > 12 * len(text)


WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] the cat sat on mat ##s 猫 坐 在".split()


@pytest.fixture
def words(tmp_path):
    """A tokenizer of BERT's."""
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return Tokenizer.load(tmp_path)


def bert(tokenizer, head="tokens", **more):
    config = ModelConfig("bert", dim=32, layers=2, heads=4, context=24, vocab=tokenizer.vocab, head=head, **more)
    return build(config, 0).eval()


def test_a_bert_restores_each_token_from_all_others(words):
    model, tokenizer = bert(words), words
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(len(parameter)))
    scorer = Scorer(model, tokenizer)
    query = Query("the cat", (" sat on the mat", "坐在"))
    for score, (prefix, continuation, *_) in zip(scorer.score_all([query])[0], scorer.pairs([query]), strict=True):
        whole = [tokenizer.cls_id, *prefix, *continuation, tokenizer.sep_id]
        for place, value in enumerate(score.log_probabilities, 1 + len(prefix)):
            masked = [*whole]
            masked[place] = tokenizer.mask_id
            with torch.inference_mode():
                logits = model.head(model.hidden(torch.tensor([masked])))[0, place]
            assert value == pytest.approx(logits.log_softmax(-1)[whole[place]].item(), abs=1e-4)


def test_what_a_t5_writes_is_bounded_by_its_logits(monkeypatch):
    """Many choices after short sources would be one product of all of them by the vocabulary."""
    model, sizes = random_model("t5", context=128), []
    queries = [Query(f"问{n}", ("四。", "五。五。", "a")) for n in range(9)]
    whole = Scorer(model, TOKENIZER).score_all(queries)
    head = model.head
    monkeypatch.setattr(model, "head", lambda hidden: sizes.append(hidden.shape[:-1].numel()) or head(hidden))
    monkeypatch.setattr(encoded, "WHOLE_LOGITS", 80 * TOKENIZER.vocab)
    parts = Scorer(model, TOKENIZER).score_all(queries)
    assert max(sizes) <= 80
    for one, other in zip(whole, parts, strict=True):
        assert [s.log_probability for s in one] == pytest.approx([s.log_probability for s in other], abs=1e-4)


@pytest.mark.parametrize("family", ["llama", "lstm", "t5"])
def test_pairs_are_scored_as_the_queries_that_they_are_of(family):
    scorer = Scorer(random_model(family, context=128), TOKENIZER)
    pairs = scorer.pairs(QUERIES)
    assert pairs[0].prefix is pairs[1].prefix, "of one query it is held once"
    told = []
    compact = [Pair(array("i", a), array("i", b), *rest) for a, b, *rest in pairs]
    scores = scorer.score_pairs(compact, 3, told.append)
    assert scores == [score for of_query in scorer.score_all(QUERIES) for score in of_query] and sum(told) == 3


def test_bytes_and_tokens_are_those_of_the_continuation():
    (score,) = Scorer(random_model("llama"), TOKENIZER).score("a", ["四。"])
    assert (score.bytes, score.tokens) == (6, 6)
    assert math.isfinite(score.log_probability) and score.log_probability < 0


@pytest.mark.parametrize("family", ["llama", "lstm", "t5"])
def test_progress_ends_at_all_queries(family, monkeypatch):
    monkeypatch.setattr(trie, "AT_ONCE", 8)
    told = []
    Scorer(random_model(family, context=128), TOKENIZER).score_all(QUERIES, told.append)
    assert sum(told) == len(QUERIES) and all(n > 0 for n in told)


def test_texts_beyond_what_a_rotary_model_was_trained_on_are_counted():
    scorer = Scorer(random_model("llama", context=16), TOKENIZER)
    scorer.score("a" * 15, ["b", "bb"])
    assert scorer.beyond_context == 1


REFUSED = [
    ("llama", Query("a b " * 50 + "\ud800", ("c",)), "a lone surrogate U\\+D800 at character 200"),
    ("llama", Query("a", ("",)), "a continuation is empty: there is nothing to score"),
    ("llama", Query((), ("a",)), "a model cannot begin from nothing"),
    ("llama", Query((1, 4000), ("a",)), "the prompt holds the id 4000, but this model knows 0 to"),
    ("gpt2", Query("a" * 90, ("b" * 9,)), "a text has 100 tokens, but this gpt2 reads at most 96: shorten the prompt"),
]


@pytest.mark.parametrize(("family", "query", "message"), REFUSED, ids=range(len(REFUSED)))
def test_refusals(family, query, message):
    with pytest.raises(UserError, match=message):
        Scorer(random_model(family), TOKENIZER).score_all([query])


def test_models_that_score_nothing_are_refused(words):
    with pytest.raises(UserError, match="this bert's head is 'classify', which foretells no tokens"):
        Scorer(bert(words, "classify", labels=("a", "b")), words)
    with pytest.raises(UserError, match="holds no tokenizer"):
        Scorer(random_model("llama"), None)
    with pytest.raises(UserError, match="reads at most 24: shorten the prompt"):
        Scorer(bert(words), words).score("the cat sat on the mat " * 6, ["猫"])
    diverged = random_model("llama")
    with torch.no_grad():
        diverged.norm.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="logits are not finite"):
        Scorer(diverged, TOKENIZER).score("a", ["b"])
