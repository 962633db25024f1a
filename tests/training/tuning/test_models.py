"""What comes out of tuning: new tokens, a folder that Transformers opens, a model that can be talked to."""

import dataclasses
import json

import pytest
import torch
from transformers import AutoTokenizer

from wenlu.base.errors import UserError
from wenlu.cli.main import main
from wenlu.hub.folder import load, save
from wenlu.inference.generator import Generator
from wenlu.models.build import build
from wenlu.tokenization.chat_format import ChatFormat
from wenlu.training.finetune import finetune

from tuning_runs import (
    recipe,
    setup_of,
    talk,
)


def test_new_tokens_grow_the_embedding(models, tmp_path, capsys):
    setup = setup_of(recipe(models, "chat"), tmp_path / "run")
    before, _ = load(models / "qwen3")
    said = capsys.readouterr().err
    assert "2 new tokens (<|im_start|>, <|im_end|>): the embedding grows from 300 to 302 rows" in said
    rows = setup.model.embed.weight
    torch.testing.assert_close(rows[:300], before.embed.weight)
    torch.testing.assert_close(rows[300], before.embed.weight.mean(0))
    assert setup.model.config.eos_id == 301 and setup.model.config.other_eos_ids == (0,)
    talking = setup_of(recipe(models, "pairs", "gpt2"), tmp_path / "other")
    assert talking.model.config.vocab == 302


def test_a_tuned_run_opens_in_transformers(models, tmp_path):
    import warnings

    finetune(recipe(models, "chat", steps=3), tmp_path / "chat")
    finetune(recipe(models, "classify", steps=3), tmp_path / "classify")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

        peer, reader = (kind.from_pretrained(tmp_path / "chat") for kind in (AutoModelForCausalLM, AutoTokenizer))
        judge_ = AutoModelForSequenceClassification.from_pretrained(tmp_path / "classify")
    model, tokenizer = load(tmp_path / "chat")
    messages = talk(5)["messages"]
    ids = ChatFormat(tokenizer).encode(messages).ids
    assert reader.apply_chat_template(messages, return_dict=False) == ids
    ids = torch.tensor([ids])
    with torch.no_grad():
        torch.testing.assert_close(peer(ids).logits, model(ids), atol=1e-4, rtol=0)
        ours, _ = load(tmp_path / "classify")
        ids = torch.tensor([[1, 20, 30, 2]])
        torch.testing.assert_close(judge_(ids).logits, ours(ids), atol=1e-4, rtol=0)
    assert judge_.config.id2label == {0: "0", 1: "1"}


def test_a_tuned_model_can_be_tuned_on(models, tmp_path):
    finetune(recipe(models, "classify", steps=2), tmp_path / "one")
    more = recipe(models, "classify", steps=2)
    more = dataclasses.replace(more, tuning=dataclasses.replace(more.tuning, model=str(tmp_path / "one")))
    finetune(more, tmp_path / "two")
    chat = recipe(models, "chat", steps=2)
    finetune(chat, tmp_path / "chat")
    more = dataclasses.replace(chat, tuning=dataclasses.replace(chat.tuning, model=str(tmp_path / "chat")))
    setup = setup_of(more, tmp_path / "again")
    assert setup.model.config.vocab == 302


def test_a_talk_is_had_by_the_template(models, tmp_path, capsys):
    """--chat reads the prompt as Transformers' apply_chat_template does, and is answered."""
    finetune(recipe(models, "chat", steps=2), tmp_path / "run")
    model, tokenizer = load(tmp_path / "run")
    peer = AutoTokenizer.from_pretrained(tmp_path / "run")
    wanted = peer.apply_chat_template([{"role": "user", "content": "who?"}], add_generation_prompt=True)["input_ids"]
    assert Generator(model, tokenizer, chat=True).prompt_ids("who?") == wanted
    line = ["generate", str(tmp_path / "run"), "--prompt", "who?", "--max-tokens", "3", "--device", "cpu"]
    capsys.readouterr()
    assert main([*line, "--chat", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["prompt_tokens"] == len(wanted) and "chat template" not in said.err
    assert main(line) == 0
    assert "has a chat template; add --chat" in " ".join(capsys.readouterr().err.split())
    for name, message in (
        ("qwen3", "has no chat template: leave chat out"),
        ("t5", "answers every prompt as it stands"),
    ):
        with pytest.raises(UserError, match=message):
            Generator(*load(models / name), chat=True)
    with pytest.raises(UserError, match="make the Generator with chat=True"):
        Generator(model, tokenizer).answer(["who?"])


def test_new_tokens_in_rows_to_spare_are_said(models, tmp_path, capsys):
    model, tokenizer = load(models / "qwen3")
    config = dataclasses.replace(model.config, vocab=tokenizer.vocab + 20)
    save(build(config, 0), tokenizer, tmp_path / "padded")
    base = recipe(models, "chat", steps=1)
    base = dataclasses.replace(base, tuning=dataclasses.replace(base.tuning, model=str(tmp_path / "padded")))
    finetune(base, tmp_path / "run")
    said = " ".join(capsys.readouterr().err.split())
    assert "2 new tokens (<|im_start|>, <|im_end|>): in rows that the embedding has to spare" in said
    assert load(tmp_path / "run")[0].config.vocab == config.vocab


def test_longer_rows_than_before_are_what_the_model_was_trained_on(models, tmp_path):
    """So that generate does not warn of them; a gpt2 has no more positions than it has."""
    long = recipe(models, "chat", steps=1, rows={"context": 80})
    finetune(long, tmp_path / "run")
    assert load(tmp_path / "run")[0].config.context == 80
    with pytest.raises(UserError, match="exceeds the positions that the model has, 64"):
        finetune(recipe(models, "chat", "gpt2", steps=1, rows={"context": 80}), tmp_path / "other")
