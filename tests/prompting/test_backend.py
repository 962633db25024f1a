"""A model's folder as a backend: what it writes and how it scores is what the model itself does, for texts and
conversations, alone or beside others."""

import pytest
import torch

from wenlu.base.errors import UserError
from wenlu.hub.folder import load, save
from wenlu.inference.constrain import Constraint
from wenlu.inference.generator import Generator, Settings, begin_id
from wenlu.inference.score import Query, Scorer
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.prompting.backend import FolderBackend, Level
from wenlu.tokenization.chat_format import ChatFormat
from wenlu.tokenization.learn import learn

from small_models import BYTES, model_of, random_model

CONVERSATIONS = [
    ({"role": "user", "content": "炉子热吗？"},),
    ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Is it warm?"}),
]
PROMPTS = ["It was", CONVERSATIONS[0], "二加二等于", CONVERSATIONS[1], ""]
SETTINGS = [
    Settings(max_tokens=6, temperature=0, alternatives=2),
    Settings(max_tokens=6, temperature=1.0, seed=5),
    Settings(max_tokens=6, temperature=0.7, stop=("e", "四")),
    Settings(max_tokens=4, beams=2),
    Settings(max_tokens=6, temperature=0, constraint=Constraint("choices", (" yes", "是的"))),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=["greedy", "drawn", "stops", "beams", "constraint"])
def test_texts_are_the_models_own(pair, here, settings):
    """Side by side as alone; a conversation as by a generator that answers."""
    told = []
    found = here.generate(PROMPTS, settings, told.append)
    assert sum(told) == len(PROMPTS)
    for prompt, written in zip(PROMPTS, found, strict=True):
        if isinstance(prompt, str):
            alone = Generator(*pair).generate(prompt, settings)[0]
        else:
            ids = ChatFormat(pair[1]).prompt(prompt)
            alone = Generator(*pair, chat=True).generate(ids, settings)[0]
        assert (written.text, written.finish) == (alone.text, alone.finish)
        assert (written.tokens, written.prompt_tokens) == (len(alone.ids), alone.prompt_tokens)
        assert written.log_probabilities == pytest.approx(alone.log_probabilities, abs=1e-4)
        assert [len(place) for place in written.alternatives] == [2] * len(alone.alternatives)


def test_texts_beyond_what_a_model_was_trained_on_are_counted():
    backend = FolderBackend((random_model("llama", context=16), BYTES), name="small")
    backend.score([Query("short", (" a",))])
    assert backend.notes == ()
    backend.score([Query("longer than sixteen", (" a", " b"))])
    backend.generate(["longer than sixteen", "a"], Settings(max_tokens=2, temperature=0))
    assert backend.notes == ("3 texts went on beyond the 16 tokens that small was trained on",)


def test_a_question_alone_is_what_a_chat_answers(pair, here):
    question = CONVERSATIONS[0][0]["content"]
    expected = Generator(*pair, chat=True).answer([question], SETTINGS[0])[0]
    assert here.generate(CONVERSATIONS[:1], SETTINGS[0])[0].text == expected.text


def test_a_document_begins_once(pair, here):
    tokenizer = pair[1]
    begin = begin_id(*pair)
    assert begin is not None and here.prompt_ids("炉子") == (begin, *tokenizer.encode("炉子"))
    written = tokenizer.token_bytes(begin).decode()
    assert here.prompt_ids(written).count(begin) == 1, "what is written is text"
    assert list(here.prompt_ids(CONVERSATIONS[1])) == ChatFormat(tokenizer).prompt(CONVERSATIONS[1])


def test_scores_are_the_scorers(pair, here):
    queries = [Query("Two and", (" two", "二")), Query(here.prompt_ids(CONVERSATIONS[0]), ("热", "不"))]
    told = []
    assert here.score(queries, told.append) == Scorer(*pair).score_all(queries) and sum(told) == 2
    assert here.level is Level.A and here.level.scores and here.level.log_probabilities


def failing(char):
    """A model that reads no `char`: logits after it are not finite."""
    model, tokenizer = model_of("char")
    model.lm_head = torch.nn.Linear(32, tokenizer.vocab, bias=False)  # else it would be the embedding
    with torch.no_grad():
        model.embed.weight[tokenizer.encode(char)[0]] = float("nan")
    return model, tokenizer


def test_texts_that_fail_leave_the_others(capsys, kernel_cache):
    pair = failing("炉")
    backend = FolderBackend(pair)
    bad, good, worse = backend.generate(["炉", "It was", "热的炉"], SETTINGS[1])
    assert (bad.text, bad.finish, worse.finish) == ("", "error", "error")
    assert good == FolderBackend(pair).generate(["It was"], SETTINGS[1])[0] and good.finish != "error"
    assert "2 of 3 texts have failed; the first: the model's logits" in capsys.readouterr().err
    with pytest.raises(UserError, match="the model's logits"):
        backend.generate(["炉"], SETTINGS[1])


def test_what_prompts_begin_with_is_read_once(pair):
    backend = FolderBackend(pair, rows=1)
    beginning = "Two and two are four. 二加二等于四。" * 2
    backend.generate([beginning + end for end in ("a", "b", "炉")], SETTINGS[0])
    read_once = len(backend.prompt_ids(beginning)) // 16 * 16
    assert backend._writer("").engine.prefixes.found >= 2 * (read_once - 16)


@pytest.mark.parametrize("kind", ["char"], indirect=True, scope="session")
def test_a_fingerprint_is_the_models_however_it_came(tmp_path, pair, here):
    model, tokenizer = pair
    save(model, tokenizer, tmp_path / "model")
    by_path = FolderBackend(tmp_path / "model")
    assert by_path.name == str(tmp_path / "model") and here.name == "a model of the family llama"
    assert by_path.fingerprint == FolderBackend(load(tmp_path / "model"), name="mine").fingerprint
    other_template = tokenizer.extended(chat_template="{{ messages }}")
    others = [
        model_of("char", seed=1),
        (load(tmp_path / "model")[0].to(torch.bfloat16), by_path.tokenizer),
        (by_path.model, other_template),
    ]
    assert len({by_path.fingerprint, *(FolderBackend(other).fingerprint for other in others)}) == 4


@pytest.mark.parametrize("kind", ["char"], indirect=True, scope="session")
def test_refusals(pair, here):
    plain = learn("byte", ["It was 炉子"], None)
    backend = FolderBackend(
        (build(ModelConfig("gpt2", dim=8, layers=1, heads=1, vocab=plain.vocab), 0), plain), name="x"
    )
    with pytest.raises(UserError, match="x has no chat template: write the prompts as text"):
        backend.generate(["It was", CONVERSATIONS[0]], SETTINGS[0])
    t5 = build(ModelConfig("t5", dim=8, layers=1, heads=1, vocab=pair[1].vocab, pad_id=0), 0)
    with pytest.raises(UserError, match="x is a t5, which reads texts"):
        FolderBackend((t5, pair[1]), name="x").generate(CONVERSATIONS, SETTINGS[0])
    with pytest.raises(UserError, match="needs at least one message"):
        here.generate([()], SETTINGS[0])
    with pytest.raises(UserError, match="holds no tokenizer"):
        FolderBackend((pair[0], None))


def test_levels():
    assert [level.name for level in Level if level.scores] == ["A", "B"]
    assert [level.name for level in Level if level.log_probabilities] == ["A", "B", "C"]
