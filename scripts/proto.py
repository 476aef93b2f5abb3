"""Generates gen/ from proto/, and checks that what is committed is what would be generated.

gen/tokenmesh/…      Python messages, their types, and gRPC stubs
gen/envoy/tokenmesh.pb   the descriptor set that Envoy transcodes by
"""

from __future__ import annotations

import argparse
import filecmp
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
GEN = ROOT / "gen"
GOOGLEAPIS = ROOT / "build" / "googleapis"
GOOGLE_FOLDERS = ("api", "rpc")


def google_protos() -> Path:
    """The folder that google/api and google/rpc are in."""
    spec = importlib.util.find_spec("google.api")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("googleapis-common-protos is missing: run 'make setup'")
    return Path(next(iter(spec.submodule_search_locations))).parent.parent


def copy_googleapis() -> None:
    """Lays Google's protos where buf can read them: it takes modules from the workspace only."""
    for folder in GOOGLE_FOLDERS:
        target = GOOGLEAPIS / "google" / folder
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for file in sorted((google_protos() / "google" / folder).glob("*.proto")):
            shutil.copyfile(file, target / file.name)


def well_known_protos() -> Path:
    """The folder of google.protobuf's own protos."""
    spec = importlib.util.find_spec("grpc_tools")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("grpcio-tools is missing: run 'make setup'")
    return Path(next(iter(spec.submodule_search_locations))) / "_proto"


def generate(target: Path) -> None:
    """Writes all generated files below `target`."""
    files = sorted(str(file.relative_to(PROTO)) for file in PROTO.rglob("*.proto"))
    (target / "envoy").mkdir(parents=True, exist_ok=True)
    bin_folder = Path(sys.executable).parent
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"--proto_path={PROTO}",
            f"--proto_path={GOOGLEAPIS}",
            f"--proto_path={well_known_protos()}",
            f"--plugin=protoc-gen-mypy={bin_folder / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={bin_folder / 'protoc-gen-mypy_grpc'}",
            f"--python_out={target}",
            f"--mypy_out=quiet:{target}",
            f"--grpc_python_out={target}",
            f"--mypy_grpc_out=quiet:{target}",
            "--include_imports",
            f"--descriptor_set_out={target / 'envoy' / 'tokenmesh.pb'}",
            *files,
            # Error details that Envoy prints must be in the set, though no proto imports them.
            "google/rpc/error_details.proto",
        ],
        check=True,
        cwd=ROOT,
    )
    # google.rpc has its own package: only ours is kept.
    shutil.rmtree(target / "google", ignore_errors=True)
    (target / "tokenmesh" / "py.typed").touch()


def differences(comparison: filecmp.dircmp[str], prefix: str = "") -> list[str]:
    """The files that are missing, left over or different, by their path below gen/."""
    found = [prefix + name for name in (*comparison.left_only, *comparison.right_only)]
    _, mismatch, errors = filecmp.cmpfiles(
        comparison.left, comparison.right, comparison.common_files, shallow=False
    )
    found += [prefix + name for name in (*mismatch, *errors)]
    for name, inner in comparison.subdirs.items():
        found += differences(inner, f"{prefix}{name}/")
    return found


def main() -> None:
    """Runs what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if gen/ is not up to date")
    parser.add_argument("--googleapis", action="store_true", help="only copy Google's protos")
    arguments = parser.parse_args()
    copy_googleapis()
    if arguments.googleapis:
        return
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        generate(fresh)
        if arguments.check:
            stale = differences(filecmp.dircmp(GEN, fresh, ignore=["__pycache__"]))
            if stale:
                raise SystemExit(f"gen/ is not what proto/ says, run 'make proto': {sorted(stale)}")
            return
        shutil.rmtree(GEN, ignore_errors=True)
        shutil.copytree(fresh, GEN)


if __name__ == "__main__":
    main()
