from __future__ import annotations

from pathlib import Path

from services.cli.up.log_following import LogLines


def test_lines_come_once_and_whole(tmp_path: Path) -> None:
    log_file = tmp_path / "log"
    log_file.touch()
    with log_file.open() as reading, log_file.open("a") as writing:

        def write(text: str) -> None:
            writing.write(text)
            writing.flush()

        lines = LogLines(reading)
        assert lines.take() == []
        write("one\ntw")
        assert lines.take() == ["one"]
        write("o")
        assert lines.take() == []
        write("\n\nthree\n")
        assert lines.take() == ["two", "", "three"]
