"""What is said of a form that cannot be compiled."""

from __future__ import annotations

import re

from services.mesh.errors import InvalidRequestError
from services.worker.engines.forms import (
    CONSTRAINT_FIELD,
    Form,
    Grammar,
    Json,
    OneOf,
    Regex,
)

MAX_FORM_BYTES = 128 * 1024
"""Of all texts in a form. What is larger takes seconds to compile."""
MAX_PROPERTIES = 1000
"""Of one object in a schema. What compiling takes grows with their square, and a choice among so
many takes milliseconds for each token."""

_MAX_SAID = 300
_PLACE = re.compile(r"^(at )?\d+\(\d+\): ")
_LISTING = re.compile(r"\n\s*\d+ \| .*", re.DOTALL)
_PREFIX = "failed to compile JSON schema: "


def field_of(form: Form) -> str:
    """The path of the request's field that a form stands for."""
    if isinstance(form, Json | Regex | Grammar):
        return form.field
    return f"{CONSTRAINT_FIELD}.choices" if isinstance(form, OneOf) else CONSTRAINT_FIELD


def refusal(form: Form, said: str) -> InvalidRequestError:
    """The error of a form of which the library said something."""
    field = field_of(form)
    what = {Json: "schema", Regex: "regular expression", Grammar: "grammar"}.get(type(form), "form")
    return InvalidRequestError(f"the {what} cannot be held to: {_plain(said)}", field=field)


def too_large(form: Form, size_bytes: int) -> InvalidRequestError:
    """The error of a form with too much text."""
    return InvalidRequestError(
        f"the form has {size_bytes} bytes of text: at most {MAX_FORM_BYTES} are allowed",
        field=field_of(form),
    )


def unsatisfiable(form: Form) -> InvalidRequestError:
    """The error of a form that no output of the model can have."""
    return InvalidRequestError("no text of this model can have the form", field=field_of(form))


def _plain(said: str) -> str:
    """A message of the library without its place in our text, and without the text."""
    line = _LISTING.sub("", _PLACE.sub("", said)).replace("<non-verbose/>", "")
    line = " ".join(line.removeprefix(_PREFIX).split())
    return line if len(line) <= _MAX_SAID else f"{line[:_MAX_SAID]}…"
