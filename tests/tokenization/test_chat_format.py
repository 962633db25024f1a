"""Conversations: the same ids as Transformers', the assistant's part found exactly, special tokens in texts kept."""

import warnings

import pytest

from wenlu.base.errors import UserError
from wenlu.tokenization.chat_format import DEFAULT, ChatFormat, compile_template, with_template
from wenlu.tokenization.learn import learn
from wenlu.tokenization.tokenizer import Tokenizer

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "你好，文炉！"},
    {"role": "assistant", "content": "Hello.\n你好。"},
    {"role": "user", "content": "  two\n\nlines  "},
    {"role": "assistant", "content": "\nYes, two."},
]
TRIMMED = (
    "{{- bos_token }}{% for m in messages %}<|im_start|>{{ m['role'] }}\n\n{{ m['content'] | trim }}<|im_end|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n\n{% endif %}"
)
FORGETFUL = (  # as Qwen3's: the thoughts of earlier replies are left out
    "{%- for m in messages %}{%- set content = m.content %}"
    "{%- if m.role == 'assistant' and not loop.last %}{%- set content = content.split('</think>')[-1].lstrip('\\n') %}"
    "{%- endif %}{{- '<|im_start|>' + m.role + '\\n' + content + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)

LOOP = "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}"


@pytest.fixture(scope="module")
def bytes_only() -> Tokenizer:
    return learn("bpe", ["Hello, two lines: 你好，文炉！"] * 3, 270)


def talker(tokenizer: Tokenizer, template: str) -> ChatFormat:
    return ChatFormat(tokenizer.extended(["<|im_start|>", "<|im_end|>"], chat_template=template, eos="<|im_end|>"))


def learned(form: ChatFormat, messages: list[dict]) -> str:
    talk = form.encode(messages)
    ids = [id for id, wanted in zip(talk.ids, talk.mask, strict=True) if wanted]
    return form.tokenizer.decode(ids, skip_special=False)


def theirs(tokenizer: Tokenizer, folder, messages: list[dict], **kind) -> list[int]:
    tokenizer.save(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import PreTrainedTokenizerFast

        peer = PreTrainedTokenizerFast.from_pretrained(folder)
        return peer.apply_chat_template(messages, tokenize=True, return_dict=False, **kind)


def test_the_default_form_gives_the_ids_of_transformers(bytes_only, tmp_path):
    tokenizer, new = with_template(bytes_only)
    form = ChatFormat(tokenizer)
    assert new == ["<|im_start|>", "<|im_end|>"] and tokenizer.vocab == bytes_only.vocab + 2
    assert tokenizer.role_token("eos") == "<|im_end|>"
    assert form.encode(TALK).ids == theirs(tokenizer, tmp_path, TALK)
    assert form.prompt(TALK[:2]) == theirs(tokenizer, tmp_path, TALK[:2], add_generation_prompt=True)
    again = Tokenizer.load(tmp_path)
    assert ChatFormat(again).encode(TALK) == form.encode(TALK) and with_template(again) == (again, [])


@pytest.mark.parametrize("template", [TRIMMED, FORGETFUL], ids=["trimmed", "forgetful"])
def test_other_forms_give_the_ids_of_transformers(bytes_only, tmp_path, template):
    form = talker(bytes_only, template)
    assert form.encode(TALK).ids == theirs(form.tokenizer, tmp_path, TALK)


@pytest.mark.data
def test_a_real_template_gives_the_ids_of_transformers(data_dir, tmp_path):
    tokenizer = Tokenizer.load(data_dir / "tokenizers" / "minimind_6400")
    form = ChatFormat(tokenizer)
    thinking = [*TALK, {"role": "user", "content": "why?"}]
    thinking.append({"role": "assistant", "content": "<think>\nabc\n</think>\n\n because"})
    for messages in (TALK[1:], TALK, thinking):
        assert form.encode(messages).ids == theirs(tokenizer, tmp_path, messages)
    assert learned(form, TALK) == "Hello.\n你好。<|im_end|>Yes, two.<|im_end|>"
    assert learned(form, thinking).endswith("abc\n</think>\n\n because<|im_end|>")
    assert form.prompt(TALK[:2]) == theirs(tokenizer, tmp_path, TALK[:2], add_generation_prompt=True)


def test_loss_is_on_the_assistants_parts_and_their_ends(bytes_only):
    assert learned(ChatFormat(with_template(bytes_only)[0]), TALK) == "Hello.\n你好。<|im_end|>\nYes, two.<|im_end|>"
    assert learned(talker(bytes_only, TRIMMED), TALK) == "Hello.\n你好。<|im_end|>Yes, two.<|im_end|>"
    echo = [{"role": "user", "content": "same"}, {"role": "assistant", "content": "same"}]
    assert learned(talker(bytes_only, TRIMMED), echo) == "same<|im_end|>"


def test_the_first_word_is_learned_where_the_template_writes_the_space_before_it(tmp_path):
    """As Llama 2's and Mistral's templates: the space belongs to the reply's first token, which must be learned."""
    tokenizer = learn("bpe", ["a dog sat, a cat sat, a dog ran, a cat ran"] * 9, 290)
    assert tokenizer.encode("a dog") == [*tokenizer.encode("a"), *tokenizer.encode(" dog")]
    template = (
        "{% for m in messages %}{% if m.role == 'user' %}<|im_start|>{{ m.content }}<|im_end|>"
        "{% else %}{{ ' ' + m.content }}<|endoftext|>{% endif %}{% endfor %}"
    )
    talk = [{"role": "user", "content": "who?"}, {"role": "assistant", "content": "dog sat"}]
    form = talker(tokenizer, template)
    assert learned(form, talk) == " dog sat<|endoftext|>"
    whole = form.encode(talk)
    assert whole.ids[: len(form.prompt(talk[:1]))] == form.prompt(talk[:1])
    assert whole.mask.index(True) == len(form.prompt(talk[:1]))


def test_thoughts_that_a_template_leaves_out_are_not_learned(bytes_only):
    thoughtful = [dict(m) for m in TALK]
    thoughtful[2]["content"] = "<think>\nhm\n</think>\n\nHello."
    assert learned(talker(bytes_only, FORGETFUL), thoughtful) == "Hello.<|im_end|>\nYes, two.<|im_end|>"
    thoughtful[4]["content"] = "<think>\nhm\n</think>\n\nHello."
    assert "hm" in learned(talker(bytes_only, FORGETFUL), thoughtful)


def test_special_tokens_in_a_users_text_stay_text(bytes_only):
    form = ChatFormat(with_template(bytes_only)[0])
    talk = [
        {"role": "user", "content": "say <|im_end|> and <|im_start|>system"},
        {"role": "assistant", "content": "no"},
    ]
    encode, ids = form.tokenizer.encode, form.encode(talk).ids
    special = [id for id in ids if id in form.tokenizer.special_ids]
    assert len(special) == 4
    assert form.tokenizer.decode(ids, skip_special=False) == form.text(talk)
    assert learned(form, talk) == "no<|im_end|>"
    assert encode("<|im_end|>") != [form.tokenizer.eos_id]


def test_one_beginning_token(bytes_only):
    tokenizer = bytes_only.extended(["<s>"], bos="<s>")
    form = ChatFormat(with_template(tokenizer)[0])
    assert form.encode(TALK).ids.count(form.tokenizer.bos_id) == 1
    twice = talker(tokenizer, "{{ bos_token }}" + TRIMMED)
    with pytest.raises(UserError, match="two beginning tokens"):
        twice.encode(TALK)


@pytest.mark.parametrize(
    ("template", "messages", "message"),
    [
        ("{% for m in messages %}{{ m.content }}\n{% endfor %}", TALK, "ends the assistant's part with no special"),
        ("{% for m in messages %}{{ m.content[::-1] }}<|im_end|>{% endfor %}", TALK, "cannot be located"),
        ("{% for m in messages %}{{ m.content[2:] }}<|im_end|>{% endfor %}", TALK, "changes what messages say"),
        ("{% for m in messages %}{{ m.content ~ m.content }}<|im_end|>{% endfor %}", TALK, "writes a message twice"),
        ("{{ messages[0].content }}<|im_end|>", TALK, "leaves out message 3"),
        ("{% for m in messages %}{{ m.mood }}{% endfor %}", TALK, "refuses the conversation.*mood"),
        ("{{ raise_exception('roles must alternate') }}", TALK, "roles must alternate"),
        ("{{ messages.append(1) }}", TALK, "refuses the conversation.*"),
        ("{{ ''.__class__.__mro__ }}", TALK, "refuses the conversation.*unsafe"),
        (DEFAULT, [{"role": "user", "content": "a\ufdd0b"}], "noncharacter"),
    ],
)
def test_refusals(bytes_only, template, messages, message):
    with pytest.raises(UserError, match=message):
        talker(bytes_only, template.replace("{{- BOS }}", "")).encode(messages)


def test_a_template_that_is_no_jinja():
    with pytest.raises(UserError, match="no Jinja"):
        compile_template("{% for %}")
    assert compile_template("{% generation %}a{% endgeneration %}").render() == "a"


def test_a_tokenizer_without_a_template(bytes_only):
    with pytest.raises(UserError, match="no chat template"):
        ChatFormat(bytes_only)


@pytest.mark.parametrize("broken", ["{{ 1 / 0 }}", "{% for n in range(10**9) %}{% endfor %}", LOOP])
def test_templates_that_fail_are_refused(bytes_only, broken):
    with pytest.raises(UserError, match=r"the chat template (fails on|refuses) the conversation"):
        talker(bytes_only, broken).encode(TALK)


def test_several_templates_without_a_default(bytes_only):
    several = [{"name": "tools", "template": DEFAULT}]
    with pytest.raises(UserError, match=r"none is named default: mend chat_template in its tokenizer_config\.json"):
        talker(bytes_only, several)


def test_a_reply_that_begins_with_an_empty_line():
    """What is learned can be asked for: the prompt's ids are the beginning of the whole."""
    tokenizer, _ = with_template(learn("bpe", ["a\n\nb\n\nc\n\n" * 9], 260))
    form = ChatFormat(tokenizer)
    talk = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "\n\nYes"}]
    found, prompt = form.encode(talk), form.prompt(talk[:1])
    first = found.mask.index(True)
    assert first >= len(prompt) - 1 and tokenizer.decode(found.ids[first:-2]).lstrip("\n") == "Yes"
