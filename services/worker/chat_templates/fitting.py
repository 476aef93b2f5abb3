"""A conversation as one template can take it: the whole way, one concern after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from services.mesh.errors import UnsupportedError
from services.worker.chat_formats.base import ChatFormat
from services.worker.chat_formats.written_calls import CALL_OPENING
from services.worker.chat_templates import tools_as_text
from services.worker.chat_templates.calls import with_known_calls
from services.worker.chat_templates.contents import with_text
from services.worker.chat_templates.roles import with_instructions, with_known_roles
from services.worker.chat_templates.traits import SWITCHES, TemplateTraits, message_in_form
from services.worker.engines.base import ChatPrompt


def fitted(prompt: ChatPrompt, traits: TemplateTraits, chat_format: ChatFormat) -> ChatPrompt:
    """The conversation, its tools and its arguments as the template takes them.

    Args:
        traits: of the template that will render it.
        chat_format: of the model, which says how calls are written.

    Raises:
        UnsupportedError: a message holds what is not text, or there is no place for tools.
    """
    messages = [with_text(message, at) for at, message in enumerate(prompt.messages)]
    tools = prompt.tools
    if tools and chat_format.describes_tools:
        messages = with_instructions(messages, tools_as_text.described(tools))
        tools = ()
    elif tools and not traits.takes_tools:
        raise UnsupportedError(
            "this model's chat template has no place for tools; a worker with --chat-format "
            "generic describes them in a message",
            field="prompt.tools",
        )
    messages = with_known_roles(messages, traits)
    # A model that is told to write calls in one way must not see them in another.
    as_text = chat_format.describes_tools and CALL_OPENING not in traits.call_text
    messages = with_known_calls(messages, traits, chat_format.written, as_text=as_text)
    return replace(
        prompt,
        messages=[message_in_form(each, as_string=traits.takes_strings) for each in messages],
        tools=tools,
        template_arguments=_arguments(prompt.template_arguments, traits),
    )


def _arguments(given: Mapping[str, Any], traits: TemplateTraits) -> dict[str, Any]:
    """How much to reason also says whether to, where the template asks only that."""
    arguments = dict(given)
    effort = given.get("reasoning_effort")
    if effort is not None:
        for name in SWITCHES:
            if name in traits.variables:
                arguments.setdefault(name, effort != "none")
    return arguments
