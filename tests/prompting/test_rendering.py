"""Prompts as ids: through the folder's chat format, with one beginning."""

import pytest
from transformers import AutoTokenizer

from wenlu.base.errors import UserError
from wenlu.hub.folder import save
from wenlu.inference.generator import Generator
from wenlu.inference.score import Scorer
from wenlu.models.build import build
from wenlu.models.config import ModelConfig
from wenlu.prompting.backend import FolderBackend
from wenlu.prompting.examples import Example
from wenlu.prompting.rendering import query, render
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
    backend = FolderBackend(run)
    prompt = as_chat(TEMPLATE).render(CAT, [SAT])
    found = render(prompt, backend)
    reference = AutoTokenizer.from_pretrained(run)
    theirs = reference.apply_chat_template(list(prompt), add_generation_prompt=True, return_dict=False)
    assert list(found.ids) == theirs and found.ids.count(backend.tokenizer.bos_id) == 1
    assert found.text == reference.apply_chat_template(list(prompt), add_generation_prompt=True, tokenize=False)


@pytest.mark.parametrize("text", ["the cat", "<s>the 猫"])
def test_a_text_has_the_generators_ids_and_one_beginning(run, text):
    backend = FolderBackend(run)
    found = render(text, backend)
    assert list(found.ids) == Generator(backend.model, backend.tokenizer).prompt_ids(text) and found.text == text
    assert found.ids[0] == backend.tokenizer.bos_id and found.ids.count(backend.tokenizer.bos_id) == 1


def test_queries_are_scored_alike_by_text_and_ids(run):
    backend = FolderBackend(run)
    prompt, texts = TEMPLATE.render(CAT), TEMPLATE.continuations(CAT)
    by_text = backend.score([query(prompt, texts, backend)])
    by_ids = Scorer(backend.model, backend.tokenizer).score(render(prompt, backend).ids, texts)
    assert [s.log_probability for s in by_text[0]] == pytest.approx([s.log_probability for s in by_ids], abs=1e-4)
    chat = query(as_chat(TEMPLATE).render(CAT), as_chat(TEMPLATE).continuations(CAT), backend)
    assert chat.prefix[0] == backend.tokenizer.bos_id and chat.continuations == ("sat", "猫")


class Remote:
    name = "http://somewhere"


def test_refused(tmp_path, shaken):
    backend = FolderBackend(folder(tmp_path / "bare", shaken, chat=False))
    with pytest.raises(UserError, match="has no chat template: write the prompts as text"):
        render(as_chat(TEMPLATE).render(CAT), backend)
    assert render("", backend).ids == (backend.tokenizer.bos_id,)
    assert query("the", ("x",), Remote()).prefix == "the"
    with pytest.raises(UserError, match="somewhere is an endpoint, which cannot score what follows a conversation"):
        query(as_chat(TEMPLATE).render(CAT), ("x",), Remote())
