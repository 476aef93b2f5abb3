"""Starts what a user would start, as processes, and ends it."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from services.cli.up import envoy
from services.cli.up.notice import MeshNotice, read_notice
from services.cli.up.preflight import claim_port
from services.mesh.process import ReadyNotice, read_ready

# Generous: machines that run tests are busy, and nothing here measures time.
START_LIMIT_S = 90.0
STOP_LIMIT_S = 20.0
POLL_INTERVAL_S = 0.05

Found = TypeVar("Found")


def wait_for(
    what: str, probe: Callable[[], Found | None], *, limit_s: float = START_LIMIT_S
) -> Found:
    """What `probe` gives once that is neither None nor False.

    Raises:
        TimeoutError: it stayed so for `limit_s` seconds.
    """
    deadline_s = time.monotonic() + limit_s
    while time.monotonic() < deadline_s:
        found = probe()
        if found is not None and found is not False:
            return found
        time.sleep(POLL_INTERVAL_S)
    raise TimeoutError(f"{what} did not happen within {limit_s:.0f} s")


class Process:
    """A process that writes to a log file."""

    def __init__(self, command: Sequence[str], log_file: Path) -> None:
        self._log_file = log_file
        with log_file.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def process_id(self) -> int:
        """Its id."""
        return self._process.pid

    def log(self) -> str:
        """All that it has written."""
        return self._log_file.read_text(errors="replace")

    def until(self, what: str, probe: Callable[[], Found | None]) -> Found:
        """Waits for a sign of this process; fails with its log where it ends instead."""

        def alive_and() -> Found | None:
            if self._process.poll() is not None:
                raise AssertionError(
                    f"ended with {self._process.returncode} before {what}:\n{self.log()}"
                )
            return probe()

        try:
            return wait_for(what, alive_and)
        except TimeoutError as error:
            raise AssertionError(f"{error}:\n{self.log()}") from None

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        os.kill(self._process.pid, number)

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        return self._process.wait(STOP_LIMIT_S)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ends it, if it still runs."""
        if self._process.poll() is None:
            self.send(number)
        try:
            self.wait()
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            raise AssertionError(f"did not end within {STOP_LIMIT_S} s:\n{self.log()}") from None


@contextmanager
def running_mesh(folder: Path, *options: str) -> Iterator[MeshNotice]:
    """A mesh as `tokenmesh up` starts it, on a free port."""
    ready_file = folder / "ready.json"
    command = (
        *(sys.executable, "-m", "services.cli.main", "up", "--port", "0"),
        *("--run-dir", str(folder / "run"), "--ready-file", str(ready_file), *options),
    )
    process = Process(command, folder / "up.log")
    try:
        yield process.until("the mesh was ready", lambda: read_notice(ready_file))
    finally:
        process.stop(signal.SIGINT)


@contextmanager
def running_service(
    folder: Path, service: str, *options: str, name: str | None = None
) -> Iterator[tuple[Process, ReadyNotice]]:
    """One service on free ports."""
    name = name or service
    ready_file = folder / f"{name}.ready.json"
    command = (
        *(sys.executable, "-m", f"services.{service}", "--port", "0", "--metrics-port", "0"),
        *("--ready-file", str(ready_file), *options),
    )
    process = Process(command, folder / f"{name}.log")
    try:
        yield process, process.until(f"{name} was ready", lambda: read_ready(ready_file))
    finally:
        process.stop()


@contextmanager
def running_envoy(
    folder: Path,
    gateway_address: str,
    *,
    cors_origin_regex: str = ".*",
    access_log_path: Path = Path("/dev/null"),
) -> Iterator[envoy.EnvoySettings]:
    """An Envoy on free ports, in front of the gateway."""
    host, _, port = gateway_address.rpartition(":")
    chosen = envoy.EnvoySettings(
        listen_host="127.0.0.1",
        listen_port=claim_port("127.0.0.1", 0),
        gateway_host=host,
        gateway_port=int(port),
        admin_port=claim_port("127.0.0.1", 0),
        metrics_port=claim_port("127.0.0.1", 0),
        cors_origin_regex=cors_origin_regex,
        access_log_path=access_log_path,
        threads=1,
    )
    configuration_file = folder / "envoy.yaml"
    configuration_file.write_text(envoy.configuration(chosen))
    process = Process(envoy.command(chosen, configuration_file), folder / "envoy.log")
    try:
        ready_url = f"http://127.0.0.1:{chosen.admin_port}/ready"
        process.until("Envoy was ready", lambda: answers_200(ready_url))
        yield chosen
    finally:
        process.stop()


def answers_200(url: str) -> bool:
    """Whether a GET is answered with 200 just now."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError, http.client.HTTPException):
        return False


def install_node_packages(folder: Path) -> None:
    """Installs what a package-lock.json names, unless that was done."""
    installed = folder / "node_modules" / ".package-lock.json"
    lock = folder / "package-lock.json"
    if installed.exists() and installed.stat().st_mtime >= lock.stat().st_mtime:
        return
    done = subprocess.run(["npm", "ci"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
