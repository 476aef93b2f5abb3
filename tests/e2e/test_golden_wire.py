"""What goes over the wire, byte for byte: a file of tests/e2e/golden is a request and its answer.

A file holds the request line and the body, then a line of dashes, then status, content type and
body of the answer, and a line break. Ids, times and what else differs from run to run are masked.
Streams are of one token, since tokens that come at once share a chunk.
"""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from services.cli.up.notice import MeshNotice

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.txt"))
SEPARATOR = "\n----\n"
MASKS = (
    (re.compile(r'"(chatcmpl|cmpl)-[0-9a-f]{32}"'), r'"\1-ID"'),
    (re.compile(r'"(resp|msg)_[0-9a-f]{32}"'), r'"\1_ID"'),
    (re.compile(r'"(created|created_at|completed_at)":\d+'), r'"\1":TIME'),
    (re.compile(r'"fp_[0-9a-f]{10}"'), '"fp_ID"'),
    # How much of a prompt is cached depends on what was asked before.
    (re.compile(r'"cached_tokens":\d+'), '"cached_tokens":N'),
)


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_the_wire_is_as_it_was(mesh: MeshNotice, file: Path) -> None:
    asked, expected = file.read_text().split(SEPARATOR)
    line, _, body = asked.partition("\n")
    method, path = line.split(" ")
    response = httpx.request(
        method,
        f"http://{mesh.grpc_address}{path}",
        content=body or None,
        headers={"content-type": "application/json"} if body else {},
        timeout=60,
    )
    answer = f"{response.status_code} {response.headers['content-type']}\n{response.text}"
    for pattern, mask in MASKS:
        answer = pattern.sub(mask, answer)
    assert f"{answer}\n" == expected
