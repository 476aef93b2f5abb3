"""How many processes of which kind, and how each is started."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.cli.up.preflight import DEMO_MODEL_NAME
from tests.chaos.faults import Part, Service
from tests.chaos.places import Place

SCRIPTED_MODEL = "scripted"
DEMO_MODEL = DEMO_MODEL_NAME
DEMO_CHECKPOINT = Path(__file__).resolve().parents[2] / "examples" / "demo_model" / "model"
GRACE_PERIOD_S = 30.0


@dataclass(frozen=True)
class Layout:
    """How many of what."""

    controllers: int = 2
    gateways: int = 2
    scripted_workers: int = 3
    demo_workers: int = 0
    token_interval_ms: float = 50.0
    prefill_ms: float = 20.0

    def parts(self) -> list[Part]:
        """All that faults may hit."""
        return [
            *(
                Part(f"controller-{n}", Service.CONTROLLER, "controllers")
                for n in _to(self.controllers)
            ),
            *(
                Part(f"scripted-{n}", Service.WORKER, SCRIPTED_MODEL)
                for n in _to(self.scripted_workers)
            ),
            *(Part(f"demo-{n}", Service.WORKER, DEMO_MODEL) for n in _to(self.demo_workers)),
            *(Part(f"gateway-{n}", Service.GATEWAY, "gateways") for n in _to(self.gateways)),
        ]


def _to(count: int) -> range:
    return range(1, count + 1)


def command_of(
    part: Part, places: Mapping[str, Place], parts: Sequence[Part], layout: Layout
) -> Callable[[Path], list[str]]:
    """What starts a part, given the path of its ready file."""
    place = places[part.name]
    controllers = [places[p.name].address for p in parts if p.service is Service.CONTROLLER]
    watched = [option for address in controllers for option in ("--controller", address)]
    match part.service:
        case Service.CONTROLLER:
            options = ["--id", part.name]
        case Service.GATEWAY:
            options = ["--id", part.name, *watched, "--grace-period", str(GRACE_PERIOD_S)]
        case Service.WORKER:
            options = ["--worker-id", part.name, *watched, "--grace-period", str(GRACE_PERIOD_S)]
            options += _engine_options(part, layout)

    def command(ready_file: Path) -> list[str]:
        return [
            *place.command_prefix,
            *(sys.executable, "-P", "-m", f"services.{part.service}"),
            *(
                "--host",
                place.host,
                "--allow-anonymous",
                "--port",
                str(place.port),
                "--metrics-port",
                "0",
            ),
            *("--ready-file", str(ready_file)),
            *options,
        ]

    return command


def _engine_options(part: Part, layout: Layout) -> list[str]:
    if part.group == DEMO_MODEL:
        return [
            *("--model-path", str(DEMO_CHECKPOINT), "--model-names", DEMO_MODEL),
            *("--device", "cpu", "--dtype", "float32", "--threads", "1"),
        ]
    return [
        *("--engine", "scripted", "--model-names", SCRIPTED_MODEL, "--scripted-answer-tokens", "0"),
        *("--scripted-token-interval-ms", str(layout.token_interval_ms)),
        *("--scripted-prefill-ms", str(layout.prefill_ms)),
    ]
