"""A stream whose output is held to a form equals the undisturbed one, wherever it is cut."""

from __future__ import annotations

import json
from typing import Any

import jsonschema

from tests.integration.test_gateway_resume import Mesh, answer_of, asked, running_mesh
from tokenmesh.mesh.v1 import generation_pb2

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["x", "Grüße 🙂"]},
        "numbers": {"type": "array", "items": {"type": "integer", "maximum": 99}, "maxItems": 4},
        "name": {"type": "string", "maxLength": 6},
    },
    "required": ["kind", "numbers", "name"],
    "additionalProperties": False,
}


def request(**sampling: Any) -> Any:
    made = asked(max_tokens=400, temperature=1.5, **sampling)
    made.sampling.constraint.CopyFrom(
        generation_pb2.Constraint(
            json_schema=generation_pb2.Constraint.JsonSchema(
                name="told", schema=json.dumps(SCHEMA), strict=True
            )
        )
    )
    return made


async def cuts_change_nothing(mesh: Mesh, made: Any) -> None:
    undisturbed = await answer_of(mesh.client.chat.Chat(made))
    for choice in undisturbed.choices.values():
        jsonschema.validate(json.loads(choice.text), SCHEMA)
    tokens = max(len(each.token_ids) for each in undisturbed.choices.values())
    assert tokens > 10
    for cuts in ([1], [2], [tokens // 2], [tokens // 3, tokens // 3], [tokens], [tokens + 1]):
        mesh.scissors.events_until_cuts = list(cuts)
        assert await answer_of(mesh.client.chat.Chat(made)) == undisturbed
        assert not mesh.scissors.events_until_cuts


async def test_a_cut_changes_nothing() -> None:
    async with running_mesh("transformers") as mesh:
        await cuts_change_nothing(mesh, request(seed=1, ignore_eos=False))
        await cuts_change_nothing(mesh, request(seed=2, frequency_penalty=0.5))
        await cuts_change_nothing(mesh, request(seed=3, choices=2, min_tokens=300))
