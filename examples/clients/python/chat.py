"""Streams one answer over gRPC: python chat.py [--address HOST:PORT] "your question".

Needs grpcio and protobuf, and stubs generated from proto/ (installed with TokenMesh itself).
"""

from __future__ import annotations

import argparse
import sys

import grpc

from tokenmesh.gateway.v1 import chat_pb2, chat_pb2_grpc, model_pb2, model_pb2_grpc
from tokenmesh.mesh.v1 import chat_pb2 as vocabulary


def first_model(channel: grpc.Channel) -> str:
    """The name of the first model that the mesh serves."""
    models = model_pb2_grpc.ModelServiceStub(channel).ListModels(model_pb2.ListModelsRequest())
    if not models.models:
        raise SystemExit("the mesh serves no model just now")
    return models.models[0].model.name


def ask(channel: grpc.Channel, model: str, question: str) -> None:
    """Prints the answer as it comes."""
    message = vocabulary.Message(
        role=vocabulary.ROLE_USER, content=[vocabulary.ContentPart(text=question)]
    )
    request = chat_pb2.ChatRequest(model=model, prompt=vocabulary.ChatPrompt(messages=[message]))
    for response in chat_pb2_grpc.ChatServiceStub(channel).Chat(request):
        if response.HasField("chunk"):
            print(response.chunk.text, end="", flush=True)
        elif response.HasField("completed"):
            print(f"\n({response.completed.usage.completion_tokens} tokens)", file=sys.stderr)


def main() -> None:
    """Asks the question on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("question")
    parser.add_argument(
        "--address", default="127.0.0.1:8000", help="the mesh (default: %(default)s)"
    )
    parser.add_argument("--model", help="the model (default: the first one that is served)")
    arguments = parser.parse_args()
    with grpc.insecure_channel(arguments.address) as channel:
        try:
            ask(channel, arguments.model or first_model(channel), arguments.question)
        except grpc.RpcError as error:
            raise SystemExit(f"{error.code().name}: {error.details()}") from None


if __name__ == "__main__":
    main()
