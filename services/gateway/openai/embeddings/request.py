"""Embeddings, rerank and score as clients of REST ask for them, as typed requests."""

from __future__ import annotations

from services.gateway.openai.embeddings.texts import read_inputs, read_texts
from services.gateway.openai.json_fields import JsonObject, missing, not_one_of, plain_list
from services.gateway.openai.sampling import unsigned
from services.mesh.errors import InvalidRequestError
from tokenmesh.gateway.v1 import embedding_pb2
from tokenmesh.openai.v1 import embedding_pb2 as openai_pb2

FLOAT, BASE64 = "float", "base64"
ENCODING_FORMATS = (FLOAT, BASE64)


async def read_embedding_request(
    request: openai_pb2.CreateEmbeddingRequest,
) -> embedding_pb2.EmbedRequest:
    """The typed request.

    Raises:
        InvalidRequestError: a field is malformed; `field` is in OpenAI's spelling.
    """
    typed = embedding_pb2.EmbedRequest(model=request.model, user=request.user)
    typed.inputs.extend(await read_inputs(request.input, "input"))
    if request.HasField("dimensions"):
        typed.dimensions = unsigned("dimensions", request.dimensions, at_least=1)
    _read_truncation(request, typed)
    return typed


def encoding_format(request: openai_pb2.CreateEmbeddingRequest) -> str:
    """FLOAT or BASE64.

    Raises:
        InvalidRequestError: it is another.
    """
    asked = request.encoding_format if request.HasField("encoding_format") else FLOAT
    if asked not in ENCODING_FORMATS:
        raise not_one_of("encoding_format", ENCODING_FORMATS, asked)
    return asked


def read_rerank_request(request: openai_pb2.RerankRequest) -> embedding_pb2.ScoreRequest:
    """The typed request.

    Raises:
        InvalidRequestError: a field is missing or malformed.
    """
    if not request.query:
        raise missing("query")
    typed = embedding_pb2.ScoreRequest(
        model=request.model, queries=[request.query], user=request.user
    )
    documents = plain_list(request.documents)
    if not documents:
        raise missing("documents")
    for index, document in enumerate(documents):
        path = f"documents[{index}]"
        if isinstance(document, str):
            typed.documents.append(document)
        else:
            typed.documents.append(JsonObject(path, document).required_string("text"))
    if request.HasField("top_n"):
        unsigned("top_n", request.top_n, at_least=1)
    _read_truncation(request, typed)
    return typed


def read_score_request(request: openai_pb2.ScoreRequest) -> embedding_pb2.ScoreRequest:
    """The typed request: each text of `text_2` beside its own, or the only one, of `text_1`.

    Raises:
        InvalidRequestError: a field is missing or malformed.
    """
    first, second = read_texts(request.text_1, "text_1"), read_texts(request.text_2, "text_2")
    for field, texts in (("text_1", first), ("text_2", second)):
        if not texts:
            raise InvalidRequestError(f"Invalid '{field}': it holds no text.", field=field)
    if len(first) not in (1, len(second)):
        raise InvalidRequestError(
            f"Invalid 'text_1': it holds {len(first)} texts, and 'text_2' {len(second)}: it must "
            "hold one, or as many.",
            field="text_1",
        )
    typed = embedding_pb2.ScoreRequest(
        model=request.model, queries=first, documents=second, user=request.user
    )
    _read_truncation(request, typed)
    return typed


def _read_truncation(
    request: openai_pb2.CreateEmbeddingRequest | openai_pb2.RerankRequest | openai_pb2.ScoreRequest,
    typed: embedding_pb2.EmbedRequest | embedding_pb2.ScoreRequest,
) -> None:
    if not request.HasField("truncate_prompt_tokens"):
        return
    if request.truncate_prompt_tokens == -1:
        typed.truncate = True
        return
    typed.truncate_tokens = unsigned(
        "truncate_prompt_tokens", request.truncate_prompt_tokens, at_least=1
    )
