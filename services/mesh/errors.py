"""Every failure that one service reports to another or to a client.

    MeshError
    ├── InvalidRequestError            INVALID_ARGUMENT     the client must change the request
    │   ├── ContextLengthError                              the prompt does not fit the model
    │   ├── PoisonRequestError                              workers have died of the request
    │   └── BrokenChainError                                what a response continues is gone
    ├── NotFoundError                  NOT_FOUND
    │   ├── ModelNotFoundError                              nobody serves a model of that name
    │   └── WorkerNotFoundError                             no worker of that id holds a lease
    ├── UnauthenticatedError           UNAUTHENTICATED      no key, or a wrong one
    ├── PermissionDeniedError          PERMISSION_DENIED    the key may not do this
    ├── ExhaustedError                 RESOURCE_EXHAUSTED
    │   ├── QueueFullError                                  as many wait as may
    │   ├── RateLimitedError                                the key is over its rate
    │   └── OutOfMemoryError                                one sequence alone cannot fit
    ├── UnavailableError               UNAVAILABLE          trying again may help
    │   ├── NoWorkerError                                   nobody takes requests for it just now
    │   ├── WorkerLostError                                 the worker died, hung or was cut off
    │   ├── WorkerDrainingError                             the worker asks for it to be moved
    │   └── StoreError                                      the store of responses does not work
    ├── DeadlineError                  DEADLINE_EXCEEDED    the deadline passed
    ├── AbortedError                   ABORTED              somebody took over, or the caller left
    ├── ProtocolError                  FAILED_PRECONDITION  a frame came out of order
    ├── UnsupportedError               UNIMPLEMENTED        nothing here can do what is asked
    └── InternalError                  INTERNAL             a bug

This module knows neither grpc nor protobuf, so that pure code may raise these; `status` translates.
"""

from __future__ import annotations

from typing import ClassVar


class MeshError(Exception):
    """A failure with a gRPC code, a stable reason, and a message for people.

    Attributes:
        code: name of the gRPC status code.
        reason: stable UPPER_SNAKE name of what happened, as in google.rpc.ErrorInfo.
        message: what was wrong, and what is allowed or what to do next.
        field: path of the request's field at fault, in proto spelling.
        retry_after_s: seconds after which trying again may help.
        worker_fault: whether the worker is to blame, so that its breaker should count it.
    """

    code: ClassVar[str] = "INTERNAL"
    default_reason: ClassVar[str] = "INTERNAL"
    worker_fault: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        field: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.field = field
        self.retry_after_s = retry_after_s


class InvalidRequestError(MeshError):
    """The request is wrong, and would be wrong again."""

    code = "INVALID_ARGUMENT"
    default_reason = "INVALID_REQUEST"


class ContextLengthError(InvalidRequestError):
    """The prompt, or the prompt with max_tokens, does not fit the model's context."""

    default_reason = "CONTEXT_LENGTH_EXCEEDED"


class PoisonRequestError(InvalidRequestError):
    """Workers have died of the request: no other is to."""

    default_reason = "POISON_REQUEST"


class BrokenChainError(InvalidRequestError):
    """A response continues another one that is no longer there."""

    default_reason = "PREVIOUS_RESPONSE_NOT_FOUND"


class NotFoundError(MeshError):
    """What the request names does not exist."""

    code = "NOT_FOUND"
    default_reason = "NOT_FOUND"


class ModelNotFoundError(NotFoundError):
    """Nobody serves a model of that name."""

    default_reason = "MODEL_NOT_FOUND"


class WorkerNotFoundError(NotFoundError):
    """No worker of that id holds a lease."""

    default_reason = "WORKER_NOT_FOUND"


class UnauthenticatedError(MeshError):
    """The request carries no key, or a wrong one."""

    code = "UNAUTHENTICATED"
    default_reason = "INVALID_API_KEY"


class PermissionDeniedError(MeshError):
    """The key may not do this."""

    code = "PERMISSION_DENIED"
    default_reason = "PERMISSION_DENIED"


class ExhaustedError(MeshError):
    """Something that is limited is used up."""

    code = "RESOURCE_EXHAUSTED"
    default_reason = "RESOURCE_EXHAUSTED"


class QueueFullError(ExhaustedError):
    """As many requests wait as may."""

    default_reason = "QUEUE_FULL"


class RateLimitedError(ExhaustedError):
    """The key is over its rate."""

    default_reason = "RATE_LIMITED"


class OutOfMemoryError(ExhaustedError):
    """One sequence alone does not fit the accelerator's memory."""

    default_reason = "OUT_OF_MEMORY"


class UnavailableError(MeshError):
    """It does not work just now; trying again may help."""

    code = "UNAVAILABLE"
    default_reason = "UNAVAILABLE"
    worker_fault = True


class NoWorkerError(UnavailableError):
    """The model is known, but no worker takes requests for it just now."""

    default_reason = "NO_WORKER"
    worker_fault = False


class WorkerLostError(UnavailableError):
    """The worker died, hung or was cut off."""

    default_reason = "WORKER_LOST"


class WorkerDrainingError(UnavailableError):
    """The worker drains, and another one could go on with the request."""

    default_reason = "WORKER_DRAINING"
    worker_fault = False


class StoreError(UnavailableError):
    """The store of responses does not work just now. Answers that need nothing of it go on."""

    default_reason = "RESPONSE_STORE_UNAVAILABLE"
    worker_fault = False


class DeadlineError(MeshError):
    """The request's deadline passed."""

    code = "DEADLINE_EXCEEDED"
    default_reason = "DEADLINE_EXCEEDED"


class AbortedError(MeshError):
    """Somebody else took over, or the caller left."""

    code = "ABORTED"
    default_reason = "ABORTED"


class ProtocolError(MeshError):
    """A frame came that the protocol does not allow at this point."""

    code = "FAILED_PRECONDITION"
    default_reason = "PROTOCOL_VIOLATION"


class UnsupportedError(MeshError):
    """Nothing here can do what is asked."""

    code = "UNIMPLEMENTED"
    default_reason = "CAPABILITY_MISSING"


class InternalError(MeshError):
    """A bug. The message shows no internals; the log has the traceback."""

    worker_fault = True


class StartError(Exception):
    """A service cannot start. The message is one line that says what to change."""
