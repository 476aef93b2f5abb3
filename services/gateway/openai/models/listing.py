"""The models of the mesh, as OpenAI's model objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from services.gateway.discovery.directory import ServedModel
from services.gateway.discovery.fleet import Model
from services.gateway.openai.json_text import array, encoded
from services.mesh.errors import ModelNotFoundError

DEFAULT_OWNER = "tokenmesh"


def models_json(served: Sequence[ServedModel]) -> str:
    """The answer to GET /v1/models: every name that a client may ask for, sorted."""
    cards = _cards(served)
    return f'{{"object":"list","data":{array(cards[name] for name in sorted(cards))}}}'


def model_json(served: Sequence[ServedModel], name: str) -> str:
    """The answer to GET /v1/models/{name}.

    Raises:
        ModelNotFoundError: nobody serves it.
    """
    card = _cards(served).get(name)
    if card is None:
        raise ModelNotFoundError(f"no model is called {name!r}", field="model")
    return card


def _cards(models: Sequence[ServedModel]) -> dict[str, str]:
    """The model objects by name. A model's own name goes before an adapter's or an alias."""
    cards: dict[str, str] = {}
    for served in models:
        cards[served.model.name] = _card(served.model, served.model.name, None)
    for served in models:
        for name, parent in _further_names(served.model):
            cards.setdefault(name, _card(served.model, name, parent))
    return cards


def _further_names(model: Model) -> Iterator[tuple[str, str | None]]:
    """Adapters, whose parent is the model, then aliases."""
    for adapter in model.adapters:
        yield adapter.name, model.name
    for alias in model.aliases:
        yield alias, None


def _card(model: Model, name: str, parent: str | None) -> str:
    """`root`, `parent` and `max_model_len` are vLLM's: what the name stands for."""
    return encoded(
        {
            "id": name,
            "object": "model",
            "created": int(model.loaded_at_s),
            "owned_by": model.owned_by or DEFAULT_OWNER,
            "root": name if parent is not None else model.name,
            "parent": parent,
            "max_model_len": model.context_length_tokens or None,
        }
    )
