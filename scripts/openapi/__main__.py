"""Writes docs/openapi.yaml, or checks that it is what would be written."""

from __future__ import annotations

import argparse
from typing import Any

import yaml

from scripts.openapi.additions import Additions
from scripts.openapi.contract import read_contract
from scripts.openapi.document import build_document
from scripts.proto import ROOT

TARGET = ROOT / "docs" / "openapi.yaml"
HEADER = "# Written by 'make openapi' from proto/ and docs/openapi/.\n"
WIDTH = 110


class Dumper(yaml.SafeDumper):
    """Writes no anchors, and indents lists."""

    def ignore_aliases(self, data: Any) -> bool:
        """Each place says all by itself."""
        del data
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Lists stand below their key, not beside it."""
        del indentless
        super().increase_indent(flow, False)


def text() -> str:
    """The file's content."""
    document = build_document(read_contract(), Additions())
    dumped = yaml.dump(document, Dumper=Dumper, sort_keys=False, width=WIDTH, allow_unicode=True)
    return HEADER + str(dumped)


def main() -> None:
    """Runs what the arguments ask for."""
    parser = argparse.ArgumentParser(prog="python -m scripts.openapi", description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the file is not up to date")
    arguments = parser.parse_args()
    if not arguments.check:
        TARGET.write_text(text())
    elif TARGET.read_text() != text():
        raise SystemExit("docs/openapi.yaml is not what the protos say: run 'make openapi'")


if __name__ == "__main__":
    main()
