"""`stop_reason`, as vLLM has it: which stop string or stop token of the client ended a choice."""

from __future__ import annotations

from services.gateway.openai.json_text import quoted
from tokenmesh.worker.v1 import worker_pb2


def stop_reason(finished: worker_pb2.Finished) -> str:
    """The field, after a comma; nothing where the model or a limit ended the choice."""
    cause = finished.WhichOneof("stopped_by")
    if cause == "stop_string":
        return f',"stop_reason":{quoted(finished.stop_string)}'
    return f',"stop_reason":{finished.stop_token_id}' if cause else ""
