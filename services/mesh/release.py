"""The release of TokenMesh, and the version of the protocol that its services speak."""

from __future__ import annotations

from importlib.metadata import version

PROTOCOL_VERSION = 1
RELEASE = version("tokenmesh")
