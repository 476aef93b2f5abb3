"""Keeps the libraries that load checkpoints from writing past the worker's own log."""

from __future__ import annotations

import logging

from huggingface_hub.utils import logging as hub_logging
from transformers.utils import logging as transformers_logging


def quiet_libraries() -> None:
    """What goes wrong in them is raised, too, and comes back as one line."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    hub_logging.set_verbosity_error()
    logging.getLogger("accelerate").setLevel(logging.ERROR)
