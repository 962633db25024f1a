"""Prompts as ids: through the folder's chat format, with one beginning."""

import pytest
from transformers import AutoTokenizer

from wenlu.base.errors import UserError
from wenlu.hub.folder import load, save
from wenlu.inference.generator import Generator
from wenlu.inference.score import Scorer
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.prompting.examples import Example
from wenlu.prompting.rendering import Renderer
from wenlu.prompting.template import Template, as_chat
from wenlu.tokenization.chat_format import with_template
from wenlu.tokenization.learn import learn

TEMPLATE = Template(question="the {{ x }} 在", instruction="on the mat. 垫子")
CAT = Example("c", {"x": "cat"}, ("sat", "猫"), 0)
SAT = Example("s", {"x": "mat"}, ("sat", "猫"), 1)


def folder(path, shaken, chat=True, begins=True):
    tokenizer = learn("char", ["the cat sat on the mat. 猫坐在垫子上。你好"])
    if begins:
        tokenizer = tokenizer.extended(("<s>",), bos="<s>")
    tokenizer = with_template(tokenizer)[0] if chat else tokenizer
    config = ModelConfig(
        "llama", dim=16, layers=1, heads=2, context=128, vocab=tokenizer.vocab, eos_id=tokenizer.eos_id
    )
    save(shaken(build(config, 0)), tokenizer, path)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory, shaken):
    return folder(tmp_path_factory.mktemp("render") / "run", shaken)


def test_a_conversation_has_the_ids_of_transformers_and_one_beginning(run):
    model, tokenizer = load(run)
    prompt = as_chat(TEMPLATE).render(CAT, [SAT])
    found = Renderer(model, tokenizer).render(prompt)
    reference = AutoTokenizer.from_pretrained(run)
    theirs = reference.apply_chat_template(list(prompt), add_generation_prompt=True, return_dict=False)
    assert list(found.ids) == theirs and found.ids.count(tokenizer.bos_id) == 1
    assert found.text == reference.apply_chat_template(list(prompt), add_generation_prompt=True, tokenize=False)


@pytest.mark.parametrize("text", ["the cat", "<s>the 猫"])
def test_a_text_has_the_generators_ids_and_one_beginning(run, text):
    model, tokenizer = load(run)
    ids = list(Renderer(model, tokenizer).render(text).ids)
    assert ids == Generator(model, tokenizer).prompt_ids(text)
    assert ids[0] == tokenizer.bos_id and ids.count(tokenizer.bos_id) == 1


def test_queries_are_scored_alike_by_text_and_ids(run):
    model, tokenizer = load(run)
    renderer, scorer = Renderer(model, tokenizer), Scorer(model, tokenizer)
    prompt, texts = TEMPLATE.render(CAT), TEMPLATE.continuations(CAT)
    by_text = scorer.score_all([renderer.query(prompt, texts)])
    assert by_text == [scorer.score(renderer.render(prompt).ids, texts)]
    chat = renderer.query(as_chat(TEMPLATE).render(CAT), as_chat(TEMPLATE).continuations(CAT))
    assert chat.prefix[0] == tokenizer.bos_id and chat.continuations == ("sat", "猫")


def test_refused(tmp_path, shaken):
    model, tokenizer = load(folder(tmp_path / "bare", shaken, chat=False))
    with pytest.raises(UserError, match="the prompt is a conversation, but the model's folder has no chat template"):
        Renderer(model, tokenizer).render(as_chat(TEMPLATE).render(CAT))
    assert Renderer(model, tokenizer).render("").ids == (tokenizer.bos_id,)
    with pytest.raises(UserError, match="the model's folder holds no tokenizer"):
        Renderer(model, None)
    tokenizer.begins = False
    with pytest.raises(UserError, match="the prompt is empty, and this tokenizer has no token that begins a text"):
        Renderer(model, tokenizer).render("")
