"""Prompts of the transformers engine: chat templates, and what they are given."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from services.mesh.errors import InvalidRequestError, UnsupportedError
from services.worker.chat_formats.names import AUTO
from services.worker.engines.base import ChatPrompt
from services.worker.engines.settings import EngineSettings
from services.worker.engines.transformers import TransformersEngine
from services.worker.engines.transformers.text.chat_template import chat_format_of
from services.worker.engines.transformers.text.prompts import PromptReader
from services.worker.engines.transformers.text.token_texts import TokenTexts
from tests.contract.engine_client import running
from tests.models import checkpoint

HELLO = ({"role": "user", "content": "Hello!"},)
TOOL = {"type": "function", "function": {"name": "weather", "description": "", "parameters": {}}}
TOOL_TEMPLATE = (
    "{% for tool in tools or [] %}[{{ tool.function.name }}]{% endfor %}"
    "{% for message in messages %}{{ message.content }}"
    "{% for call in message.tool_calls %}{{ call.function.name }}:"
    "{{ call.function.arguments.city }}{% endfor %}"
    "{% endfor %}{% if mood %}<{{ mood }}>{% endif %}"
)
SYSTEM_FIRST = (
    "{% if messages[0].role != 'system' %}{{ raise_exception('a system message first') }}"
    "{% endif %}{{ messages[0].content }}"
)


@cache
def tokenizer(kind: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(checkpoint(tokenizer=kind))


def reader(
    template: str | None = None, kind: str = "byte_level", chat_format: str = AUTO
) -> PromptReader:
    from copy import copy

    used = copy(tokenizer(kind))
    if template is not None:
        used.chat_template = template
    return PromptReader(
        used,
        TokenTexts(used),
        vocabulary_size=len(used),
        chat_format=chat_format_of(used, chat_format),
    )


class TestChat:
    def test_the_checkpoints_template_renders_the_conversation(self) -> None:
        messages = [{"role": "system", "content": "Be brief."}, *HELLO]
        tokens = reader().read(ChatPrompt(messages))
        assert tokens.text == "<|system|>Be brief.<|end|><|user|>Hello!<|end|><|assistant|>"
        assert tokens.ids[0] == tokenizer("byte_level").convert_tokens_to_ids("<|system|>")

    def test_the_last_message_can_be_continued(self) -> None:
        messages: list[dict[str, Any]] = [*HELLO, {"role": "assistant", "content": "Hi, I"}]
        prompt = ChatPrompt(messages, add_generation_prompt=False, continue_final_message=True)
        assert reader().read(prompt).text.endswith("<|assistant|>Hi, I")

    def test_both_ways_to_end_exclude_each_other(self) -> None:
        with pytest.raises(InvalidRequestError) as refused:
            reader().read(ChatPrompt(HELLO, continue_final_message=True))
        assert refused.value.field == "prompt.continue_final_message"

    def test_without_a_template_there_is_no_chat(self) -> None:
        plain = reader(kind="metaspace")
        assert not plain.can_chat
        with pytest.raises(UnsupportedError, match="no chat template") as refused:
            plain.read(ChatPrompt(HELLO))
        assert refused.value.field == "prompt.messages"

    def test_a_request_may_bring_a_template(self) -> None:
        prompt = ChatPrompt(HELLO, chat_template="{{ messages[0].content }}!!")
        assert reader(kind="metaspace").read(prompt).text == "Hello!!!"

    def test_a_broken_template_of_a_request_is_its_fault(self) -> None:
        with pytest.raises(InvalidRequestError) as refused:
            reader().read(ChatPrompt(HELLO, chat_template="{% for %}"))
        assert refused.value.field == "prompt.chat_template"

    @pytest.mark.parametrize("expression", ["messages[9].content", "1 // 0", "''.x.y", "3 + 'a'"])
    def test_a_template_that_fails_does_not_end_more_than_the_request(
        self, expression: str
    ) -> None:
        with pytest.raises(InvalidRequestError):
            reader().read(ChatPrompt(HELLO, chat_template="{{ " + expression + " }}"))

    def test_a_template_cannot_reach_the_process(self) -> None:
        escape = "{{ messages.__class__.__mro__[1].__subclasses__() }}"
        with pytest.raises(InvalidRequestError):
            reader().read(ChatPrompt(HELLO, chat_template=escape))

    def test_what_the_template_refuses_is_said(self) -> None:
        with pytest.raises(InvalidRequestError, match="a system message first") as refused:
            reader(SYSTEM_FIRST).read(ChatPrompt(HELLO))
        assert refused.value.field == "prompt.messages"

    def test_arguments_reach_the_template(self) -> None:
        prompt = ChatPrompt(HELLO, template_arguments={"mood": "calm"})
        assert reader(TOOL_TEMPLATE).read(prompt).text == "Hello!<calm>"

    @pytest.mark.parametrize("name", ["tokenize", "messages", "conversation", "return_dict"])
    def test_arguments_cannot_replace_what_the_engine_passes(self, name: str) -> None:
        prompt = ChatPrompt(HELLO, template_arguments={name: True})
        with pytest.raises(InvalidRequestError) as refused:
            reader(TOOL_TEMPLATE).read(prompt)
        assert refused.value.field == "prompt.chat_template_arguments"


class TestTools:
    def test_tools_and_calls_reach_the_template(self) -> None:
        call = {
            "id": "1",
            "type": "function",
            "function": {"name": "weather", "arguments": '{"city": "Oslo"}'},
        }
        messages: list[dict[str, Any]] = [
            *HELLO,
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ]
        prompt = ChatPrompt(messages, tools=[TOOL])
        hermes = reader(TOOL_TEMPLATE, chat_format="hermes")
        assert hermes.read(prompt).text == "[weather]Hello!weather:Oslo"

    def test_a_template_without_tools_is_told_of_them_in_a_message(self) -> None:
        text = reader().read(ChatPrompt(HELLO, tools=[TOOL])).text
        assert text.startswith("<|system|># Tools")
        assert '{"name": "weather", ' in text
        assert text.endswith("<|end|><|user|>Hello!<|end|><|assistant|>")

    def test_a_template_without_tools_has_no_place_for_those_of_a_format(self) -> None:
        with pytest.raises(UnsupportedError, match="--chat-format generic") as refused:
            reader(chat_format="hermes").read(ChatPrompt(HELLO, tools=[TOOL]))
        assert refused.value.field == "prompt.tools"


class TestText:
    def test_special_tokens_are_added_where_they_are_wanted(self) -> None:
        plain = reader(kind="metaspace")
        ids = plain.read("Hello").ids
        assert plain.read(ids).ids == ids
        assert plain.read(ids).text == "Hello"

    def test_half_a_surrogate_pair_is_no_text(self) -> None:
        with pytest.raises(InvalidRequestError) as refused:
            reader().read("a\ud83d")
        assert refused.value.field == "prompt"


async def test_a_template_file_makes_a_checkpoint_chat(tmp_path: Path) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text("{{ messages[0].content }}")
    folder = tmp_path / "m"
    shutil.copytree(checkpoint(), folder)
    (folder / "chat_template.jinja").unlink()
    settings = EngineSettings(str(folder), device="cpu", threads=1)
    async with running(TransformersEngine(settings)) as client:
        assert "CHAT" not in client.engine.models[0].capabilities
        with pytest.raises(UnsupportedError):
            await client.submit(ChatPrompt(HELLO))
    settings = EngineSettings(str(folder), device="cpu", threads=1, chat_template_path=template)
    async with running(TransformersEngine(settings)) as client:
        assert "CHAT" in client.engine.models[0].capabilities
        output = await client.run(ChatPrompt(HELLO), max_tokens=2, ignore_eos=True)
    assert output.finished.prompt_tokens == len(
        tokenizer("byte_level")("Hello!", add_special_tokens=False)["input_ids"]
    )
