"""The file of keys: YAML, checked field by field. Pure.

keys:
  - name: alice
    hash: sha256:…                 # as `tokenmesh keys create` and `tokenmesh keys hash` print it
    models: [llama-*, tokenmesh-demo]
    requests_per_minute: 60
    tokens_per_minute: 20000
    max_concurrent: 4
    weight: 2
    expires: 2027-01-01T00:00:00Z
    disabled: false
    note: for the notebook
    metadata: {team: search}
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
)

from services.gateway.keys.hashing import read_hash
from services.gateway.keys.key import Key, KeyLimits
from services.gateway.keys.yaml_lines import Path, YamlDocument, YamlError, read_yaml

MAX_FILE_BYTES = 16 * 1024 * 1024
MAX_WEIGHT = 1000.0
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}"

Count = Annotated[int, Field(ge=1)]


class KeyFileError(Exception):
    """A file of keys that cannot be used. The message says where and why, and repeats no value."""


def _instant(value: object) -> object:
    """A day is its beginning in UTC; a time must say its zone. JSON has both as text."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value) if "T" in value else date.fromisoformat(value)
        except ValueError:
            raise ValueError("must be a day or a time, such as 2027-01-01T00:00:00Z") from None
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, datetime) and value.tzinfo is None:
        raise ValueError("must have a time zone, such as 2027-01-01T00:00:00Z")
    return value


class _Entry(BaseModel):
    """One key of the file."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)

    name: Annotated[str, StringConstraints(pattern=f"^{NAME_PATTERN}$")]
    hash: str
    models: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)] = ["*"]
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    max_concurrent: Count | None = None
    weight: Annotated[float, Field(gt=0, le=MAX_WEIGHT)] = 1.0
    expires: Annotated[datetime | None, BeforeValidator(_instant)] = None
    disabled: bool = False
    note: str = ""
    metadata: dict[str, str] = {}

    @field_validator("hash")
    @classmethod
    def _is_hash(cls, value: str) -> str:
        read_hash(value)
        return value

    def key(self) -> Key:
        """The key that it describes."""
        return Key(
            name=self.name,
            digest=read_hash(self.hash),
            models=tuple(self.models),
            limits=KeyLimits(self.requests_per_minute, self.tokens_per_minute, self.max_concurrent),
            weight=self.weight,
            expires_at_s=None if self.expires is None else self.expires.timestamp(),
            is_disabled=self.disabled,
            note=self.note,
            metadata=self.metadata,
        )


class _File(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)

    keys: list[_Entry]


# pydantic's words for what people write wrong, in ours.
_PROBLEMS = {
    "missing": "is missing",
    "extra_forbidden": "is no field here",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "must be 1 to 64 letters, digits and . _ @ + -, of which the first "
    "is a letter or digit",
}


def read_keys(text: str) -> tuple[Key, ...]:
    """The keys in a file's text, in order.

    Raises:
        KeyFileError: it is not YAML, or a field is wrong: the message names its line.
    """
    try:
        document = read_yaml(text)
    except YamlError as error:
        raise KeyFileError(str(error)) from None
    if not isinstance(document.value, dict) or "keys" not in document.value:
        raise KeyFileError("line 1: the file must hold a list called keys:")
    try:
        entries = _File.model_validate(document.value).keys
    except ValidationError as error:
        raise KeyFileError(_told(error, document)) from None
    keys = tuple(entry.key() for entry in entries)
    _check_unique(keys, document)
    return keys


def describe_path(path: Sequence[str | int]) -> str:
    """A path as people write it: keys[2].weight."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _told(error: ValidationError, document: YamlDocument) -> str:
    """The first problem. It is told without the value, which may be a key by mistake."""
    first: Any = error.errors(include_input=False, include_url=False)[0]
    path: Path = first["loc"]
    problem = _PROBLEMS.get(first["type"])
    if problem is None:
        problem = str(first["msg"]).removeprefix("Value error, ").replace("Input should", "must")
    return f"line {document.line_of(path)}: {describe_path(path)} {problem}"


def _check_unique(keys: Sequence[Key], document: YamlDocument) -> None:
    seen: dict[tuple[str, str | bytes], int] = {}
    for number, key in enumerate(keys):
        for field, value in (("name", key.name), ("hash", key.digest)):
            first = seen.setdefault((field, value), number)
            if first != number:
                line = document.line_of(("keys", number, field))
                raise KeyFileError(
                    f"line {line}: keys[{number}].{field} is that of keys[{first}] already"
                )
