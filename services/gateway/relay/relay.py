"""The road of every generation through the gateway. What all surfaces stand on."""

from __future__ import annotations

from random import Random

from services.gateway.links.dispatch import Dispatch
from services.gateway.metrics import GatewayMetrics
from services.gateway.relay.admission import Admission
from services.gateway.relay.caller import ANYBODY, Caller
from services.gateway.relay.course import GenerationLimits
from services.gateway.relay.generation import Generation
from services.gateway.relay.quarantine import Quarantine
from services.gateway.relay.waiting_room import WaitingRoom
from tokenmesh.worker.v1 import worker_pb2

__all__ = ["Generation", "Relay"]


class Relay:
    """Starts generations.

    Args:
        request_timeout_s: the longest that a request may take, and the time of one that names none.
    """

    def __init__(
        self,
        *,
        dispatch: Dispatch,
        admission: Admission,
        waiting_room: WaitingRoom,
        limits: GenerationLimits,
        quarantine: Quarantine,
        request_timeout_s: float,
        metrics: GatewayMetrics,
        random: Random,
    ) -> None:
        self._dispatch = dispatch
        self._admission = admission
        self._waiting_room = waiting_room
        self._limits = limits
        self._quarantine = quarantine
        self._request_timeout_s = request_timeout_s
        self._metrics = metrics
        self._random = random

    def generate(
        self,
        start: worker_pb2.Start,
        *,
        caller: Caller = ANYBODY,
        time_left_s: float | None = None,
        whole: bool = False,
    ) -> Generation:
        """The generation of a validated request, to be entered with `async with`.

        `start` is the relay's from now on: it fills in the seed, the time left and the credit. With
        `time_left_s` (see `deadlines`) the request may take that long, but never longer than the
        gateway allows. It waits for its turn beside those of other callers. With `whole`, all of it
        comes at once, and survives its worker until then.
        """
        limit_s = self._request_timeout_s
        return Generation(
            start,
            time_left_s=limit_s if time_left_s is None else min(time_left_s, limit_s),
            whole=whole,
            dispatch=self._dispatch,
            caller=caller,
            admission=self._admission,
            waiting_room=self._waiting_room,
            limits=self._limits,
            quarantine=self._quarantine,
            metrics=self._metrics,
            random=self._random,
        )
