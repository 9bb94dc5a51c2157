"""Tokenizers of LLaDA's and Dream's folders: roles by id, end tokens, chat templates as `transformers` applies them."""

from __future__ import annotations

import json

import pytest
from reference.chat_tokenizer import SPECIALS, tokenizer_files

from diffq.data.chat import ChatTemplate, chat_folder, template_of
from diffq.data.tokenizers import Tokenizer
from diffq.errors import UserError

TALKS = (
    [{"role": "user", "content": "  what is the sun?\n"}],
    [
        {"role": "system", "content": "you are a poet."},
        {"role": "user", "content": "on the moon, then"},
        {"role": "assistant", "content": "the sea"},
        {"role": "user", "content": "a <|eot_id|> b"},
    ],
)
ENDS = {"llada": ("<|eot_id|>", "<|endoftext|>"), "dream": ("<|im_end|>", "<|endoftext|>")}


def made(folder, kind, **changes):
    tokenizer_files(folder, kind, **changes)
    return chat_folder(folder, mask=55, end=50, pad=50, ends=ENDS[kind])


@pytest.mark.parametrize("kind", ["llada", "dream"])
@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize("own_file", [False, True])
def test_conversations_are_those_of_transformers(tmp_path, kind, talk, own_file):
    from transformers import AutoTokenizer

    tokenizer_files(tmp_path, kind)
    if own_file:  # as newer versions of the library write it
        config = json.loads((tmp_path / "tokenizer_config.json").read_text())
        (tmp_path / "chat_template.jinja").write_text(config.pop("chat_template"))
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ours = chat_folder(tmp_path, mask=55, end=50, pad=50, ends=ENDS[kind])
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    text = theirs.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    assert ours.chat.render(talk) == text
    assert ours.encode_chat(talk) == theirs(text, add_special_tokens=False)["input_ids"]
    assert ours.chat.render(talk, False) == theirs.apply_chat_template(talk, tokenize=False)


def test_templates_may_loop_dump_and_refuse(tmp_path):
    from transformers import AutoTokenizer

    tokenizer_files(tmp_path, "llada")
    source = (
        "{% for m in messages %}{% if m.role == 'tool' %}{% continue %}{% endif %}{{ m | tojson }}"
        "{% if m.role == 'judge' %}{{ raise_exception('no judges') }}{% endif %}{% endfor %}"
    )
    (tmp_path / "chat_template.jinja").write_text(source)
    talk = [{"role": "tool", "content": "x"}, {"role": "user", "content": "<é>"}]
    template = template_of(tmp_path)
    assert template.render(talk) == AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(talk, tokenize=False)
    with pytest.raises(UserError, match="refuses the conversation: no judges"):
        template.render([{"role": "judge", "content": ""}])


@pytest.mark.parametrize(
    "attack",
    ["{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ messages.append(1) }}", "{{ cycler.__init__.__globals__ }}"],
)
def test_a_template_cannot_leave_its_sandbox(attack):
    with pytest.raises(UserError, match="refuses the conversation"):
        ChatTemplate(attack).render([{"role": "user", "content": ""}])


@pytest.mark.parametrize("kind", ["llada", "dream"])
def test_roles_are_those_of_the_configuration_and_two_tokens_end(tmp_path, kind):
    tokenizer = made(tmp_path, kind)
    assert (tokenizer.size, tokenizer.mask, tokenizer.pad, tokenizer.end) == (60, 55, 50, 50)
    assert tokenizer.token(tokenizer.start) == SPECIALS[kind][1]
    assert sorted(tokenizer.ends) == [50, 53 if kind == "dream" else 54]
    assert tokenizer.encode_target("the <|endoftext|>") == tokenizer.encode_target("the ") + tokenizer.encode_target(
        "<|endoftext|>"
    )
    assert 50 not in tokenizer.encode_target("<|endoftext|>")
    assert tokenizer.decode(tokenizer.encode_target(" the sun, on a sea.")) == " the sun, on a sea."


@pytest.mark.parametrize("kind", ["llada", "dream"])
def test_a_saved_tokenizer_keeps_its_ends_and_its_template(tmp_path, kind):
    tokenizer = made(tmp_path, kind)
    tokenizer.save(tmp_path / "saved")
    again = Tokenizer.load(tmp_path / "saved")
    assert (again.digest, again.ends, again.chat) == (tokenizer.digest, tokenizer.ends, tokenizer.chat)
    assert again.encode_chat(TALKS[1]) == tokenizer.encode_chat(TALKS[1])


def test_qwens_two_files_are_read_as_the_library_reads_them(tmp_path):
    from reference.chat_tokenizer import merges, vocabulary
    from transformers import Qwen2Tokenizer

    tokenizer = made(tmp_path, "dream", bare=True)
    whole = made(tmp_path / "whole", "dream")
    theirs = Qwen2Tokenizer(vocab=vocabulary(), merges=merges()).backend_tokenizer
    for text in ("the sun, on a sea.", "1234 then\n\n  another 5", "it's the other one: anon", "nöpe ｆ"):
        assert tokenizer.encode_target(text) == theirs.encode(text, add_special_tokens=False).ids
    assert tokenizer.encode_chat(TALKS[0]) == whole.encode_chat(TALKS[0])
    assert (tokenizer.mask, tokenizer.ends) == (55, (50, 53))
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config["added_tokens_decoder"]["64"] = {"content": "<|late|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="should be token 64 and would be 60"):
        chat_folder(tmp_path, mask=55, end=50, pad=50, ends=ENDS["dream"])


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(UserError, match=r"holds no tokenizer; put its tokenizer\.json"):
        chat_folder(tmp_path, mask=55, end=50, pad=50)
    tokenizer_files(tmp_path, "llada")
    with pytest.raises(UserError, match="mask_token_id=77, and the tokenizer has no token of that id"):
        chat_folder(tmp_path, mask=77, end=50, pad=50)
    with pytest.raises(UserError, match="does not say eos_token_id"):
        chat_folder(tmp_path, mask=55, end=None, pad=None, ends=("<|nothing|>",))
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del config["chat_template"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="has no chat template"):
        chat_folder(tmp_path, mask=55, end=50, pad=50).encode_chat(TALKS[0])
