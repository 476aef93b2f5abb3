"""`chat_template_kwargs` and `documents`: what a chat template gets beside the conversation."""

from __future__ import annotations

from typing import Any

from google.protobuf import struct_pb2

from services.gateway.openai.json_fields import JsonObject, invalid_type, plain, struct_of

DOCUMENTS = "documents"


def read_template_arguments(
    arguments: struct_pb2.Value, documents: struct_pb2.Value
) -> struct_pb2.Struct | None:
    """The variables of the template; None when there are none.

    Raises:
        InvalidRequestError: the arguments are no object, or the documents no list of objects.
    """
    given = plain(arguments)
    named: dict[str, Any] = {} if given is None else given
    JsonObject("chat_template_kwargs", named)
    listed = plain(documents)
    if listed is not None:
        if not isinstance(listed, list):
            raise invalid_type(DOCUMENTS, "a list of objects", listed)
        for index, document in enumerate(listed):
            JsonObject(f"{DOCUMENTS}[{index}]", document)
        named = {DOCUMENTS: listed, **named}
    return struct_of(named) if named else None
