"""What every target is asked, and over how many connections."""

from __future__ import annotations

from tokenmesh.mesh.v1 import chat_pb2

TEXT = "Write a short story about a lighthouse."

CHAT = chat_pb2.ChatPrompt(
    messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text=TEXT)])]
)

# Connections that the gRPC clients share. More than one, so that one HTTP/2 connection's flow
# control and one Envoy thread are not all that is measured.
MAX_GRPC_CONNECTIONS = 8


def connection_count(clients: int) -> int:
    """How many connections so many gRPC clients share."""
    return min(clients, MAX_GRPC_CONNECTIONS)
