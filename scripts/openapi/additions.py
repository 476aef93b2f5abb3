"""What docs/openapi/ says of the REST API beyond the protos.

Each file may hold:

    document:    what stands at the top of the description
    errors:      HTTP status → what it means; `of: body` only for calls with a body
    operations:  Service.Method → tag, response, events, whether they end with [DONE] (`done`,
                 default true), request examples
    messages:    message → required fields, refused ones, what a field's schema says beyond its
                 type, what the message's own schema says beyond its fields
    schemas:     schemas that no message of the protos has
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import yaml

from scripts.proto import ROOT

FOLDER = ROOT / "docs" / "openapi"

Json: TypeAlias = dict[str, Any]


class Additions:
    """The files of the folder as one."""

    def __init__(self) -> None:
        self.document: Json = {}
        self.errors: dict[int, Json] = {}
        self.operations: dict[str, Json] = {}
        self.messages: dict[str, Json] = {}
        self.schemas: dict[str, Json] = {}
        for file in sorted(FOLDER.glob("*.yaml")):
            for part, content in yaml.safe_load(file.read_text()).items():
                known: dict[Any, Any] = getattr(self, part)
                twice = known.keys() & content.keys()
                if twice:
                    raise SystemExit(f"openapi: {file.name} says again: {part} {sorted(twice)}")
                known.update(content)

    def check_names(self, operations: Iterable[str], messages: Iterable[str]) -> None:
        """Refuses what is said of a call or a message that the protos do not have."""
        unknown = {*self.operations} - {*operations} | {*self.messages} - {*messages}
        if unknown:
            raise SystemExit(f"openapi: docs/openapi/ speaks of what is not: {sorted(unknown)}")
