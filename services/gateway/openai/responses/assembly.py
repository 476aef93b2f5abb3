"""What /v1/responses consists of in a running gateway."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from services.gateway.api.tokenizing import Tokenizing
from services.gateway.discovery.directory import Directory
from services.gateway.openai.responses.archive import ResponseArchive
from services.gateway.openai.responses.background import BackgroundResponses
from services.gateway.openai.responses.counting import Counting
from services.gateway.openai.responses.creation import Creation
from services.gateway.openai.responses.metrics import ResponseMetrics
from services.gateway.openai.responses.preparing import Preparing
from services.gateway.openai.responses.reading import Reading
from services.gateway.openai.responses.service import Responses
from services.gateway.openai.responses.settings import ResponseSettings
from services.gateway.openai.responses.store.sqlite import SqliteStore
from services.gateway.relay.relay import Relay


class ResponseParts:
    """The servicer, and what runs beside it."""

    def __init__(
        self,
        settings: ResponseSettings,
        relay: Relay,
        directory: Directory,
        tokenizing: Tokenizing,
        registry: CollectorRegistry,
    ) -> None:
        """Raises:
        StartError: the store cannot be where it should.
        """
        metrics = ResponseMetrics(registry)
        self.store = SqliteStore(settings.db, settings.limits, metrics)
        self.background = BackgroundResponses(relay, self.store, metrics, settings.max_background)
        archive = ResponseArchive(self.store, metrics)
        preparing = Preparing(self.store, tokenizing)
        self.servicer = Responses(
            Creation(relay, directory, archive, self.background, preparing),
            Counting(preparing, tokenizing),
            Reading(archive, self.background),
        )
