"""The example page in a real browser: gRPC-Web from another origin, through real Envoy."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from services.cli.up.notice import MeshNotice
from tests.e2e.conftest import SCRIPTED_MODEL
from tests.e2e.example_clients import PAGE, built
from tests.e2e.processes import install_node_packages, running_envoy

FOLDER = Path(__file__).resolve().parent / "browser"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LIMIT_S = 120.0


class QuietFiles(SimpleHTTPRequestHandler):
    """Serves files, without a line for each."""

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The URL of a static server, which is an origin of its own."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietFiles, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.timeout(300)
def test_the_page_streams_stops_and_shows_errors(endless_mesh: MeshNotice, folder: Path) -> None:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert browser, "no Chromium: run scripts/install_browser.sh"
    install_node_packages(FOLDER)
    (gateway,) = endless_mesh.addresses("gateway")
    with (
        served(built(PAGE) / "build") as page_url,
        running_envoy(folder, gateway, cors_origin_regex=r"https://elsewhere\.example") as closed,
    ):
        ran = subprocess.run(
            [
                *("node", "drive.js", browser, str(folder / "profile"), page_url),
                f"http://{endless_mesh.grpc_address}",
                f"http://{closed.listen_host}:{closed.listen_port}",
                *(SCRIPTED_MODEL, str(folder / "page.png")),
            ],
            cwd=FOLDER,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    assert ran.returncode == 0, ran.stderr
    results: dict[str, Any] = json.loads(ran.stdout)

    # The worker has one place: the second answer shows that stopping the first one freed it.
    for stream in results["streams"]:
        assert stream["second"].startswith(stream["first"])
        assert stream["outcome"] == "stopped"
    assert results["badField"].splitlines() == [
        "InvalidArgument: sampling.temperature must be between 0 and 2, not 9",
        "reason: INVALID_REQUEST",
        "field: sampling.temperature",
    ]
    assert results["unknownModel"].splitlines()[1:] == ["reason: MODEL_NOT_FOUND", "field: model"]
    assert results["console"][: results["consoleBeforeClosed"]] == []
    # An Envoy that does not allow the page's origin: the browser keeps the answer from the page.
    assert "Failed to fetch" in results["closedMesh"]
    assert "CORS" in results["console"][-2]
