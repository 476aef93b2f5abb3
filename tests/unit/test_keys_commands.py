"""`tokenmesh keys`, and the file that it keeps."""

from __future__ import annotations

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from services.cli.keys.file_change import change_file
from services.cli.keys.lifetimes import expiry_of
from services.cli.main import app
from services.gateway.keys.hashing import digest_of, hash_text
from services.gateway.keys.key import Key, KeyLimits
from services.gateway.keys.key_file import read_keys
from services.gateway.keys.key_file_edit import with_key, with_revoked
from services.gateway.keys.sources import read_key_file


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, ["keys", *arguments], input=stdin)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


def test_a_key_is_shown_once_and_its_hash_kept(file: Path) -> None:
    made = run("create", "alice", "--file", str(file))
    assert made.exit_code == 0
    text = made.stdout.strip()
    assert text.startswith("tm-")
    assert read_key_file(file) == (Key("alice", digest_of(text)),)
    assert text not in file.read_text()
    assert text not in made.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_every_option_ends_in_the_file(file: Path) -> None:
    made = run(
        *("create", "ci", "--file", str(file), "--models", "llama-*, demo", "--rpm", "60"),
        *("--tpm", "20000", "--max-concurrent", "4", "--weight", "2.5"),
        *("--expires", "2099-01-01", "--note", "größer: als\nnichts"),
    )
    assert made.exit_code == 0, made.output
    assert read_key_file(file) == (
        Key(
            "ci",
            digest_of(made.stdout.strip()),
            models=("llama-*", "demo"),
            limits=KeyLimits(60, 20_000, 4),
            weight=2.5,
            expires_at_s=datetime(2099, 1, 1, tzinfo=UTC).timestamp(),
            note="größer: als\nnichts",
        ),
    )


def test_comments_mode_and_links_stay(file: Path, tmp_path: Path) -> None:
    run("create", "alice", "--file", str(file))
    file.write_text(file.read_text() + "  # alice is on leave\n")
    file.chmod(0o640)
    link = tmp_path / "link.yaml"
    link.symlink_to(file)
    assert run("create", "bob", "--file", str(link)).exit_code == 0
    assert run("revoke", "alice", "--file", str(link)).exit_code == 0
    assert link.is_symlink()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert "# alice is on leave" in file.read_text()
    assert [(key.name, key.is_disabled) for key in read_key_file(file)] == [
        ("alice", True),
        ("bob", False),
    ]
    assert sorted(os.listdir(tmp_path)) == ["keys.yaml", "link.yaml"]


def test_keys_that_are_made_at_once_are_all_there(file: Path) -> None:
    names = [f"k{number}" for number in range(8)]
    with ThreadPoolExecutor(len(names)) as threads:
        for name in names:
            change = partial(with_key, key=Key(name, digest_of(name)))
            threads.submit(change_file, file, change)
    assert sorted(key.name for key in read_key_file(file)) == names


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("create", "two words"), "keys[0].name must be 1 to 64 letters"),
        (("create", "a", "--weight", "0"), "keys[0].weight must be greater than 0"),
        (("create", "a", "--models", "a,"), "keys[0].models[1] must not be empty"),
        (("create", "a", "--expires", "soon"), "--expires soon: give a span such as 30d"),
        (("create", "taken"), "a key called 'taken' is there already"),
        (("revoke", "nobody"), "no key is called 'nobody'; those that are: taken"),
    ],
)
def test_what_cannot_be_is_told_and_changes_nothing(
    arguments: tuple[str, ...], told: str, file: Path
) -> None:
    run("create", "taken", "--file", str(file))
    before = file.read_bytes()
    done = run(*arguments, "--file", str(file))
    assert done.exit_code == 2
    assert told in done.stderr
    assert file.read_bytes() == before
    assert "tm-" not in done.output


def test_a_file_that_is_broken_or_missing_is_told(file: Path) -> None:
    assert "there is no such file" in run("revoke", "a", "--file", str(file)).stderr
    file.write_text("keys:\n- name: a\n")
    for command in (("list",), ("create", "b"), ("revoke", "a")):
        done = run(*command, "--file", str(file))
        assert done.exit_code == 2
        assert "line 2: keys[0].hash is missing" in done.stderr


def test_the_list_tells_what_each_may_do_and_no_hash(file: Path) -> None:
    run("create", "alice", "--rpm", "60", "--note", "for the notebook", "--file", str(file))
    run("create", "bob", "--expires", "12h", "--file", str(file))
    run("revoke", "bob", "--file", str(file))
    listed = run("list", "--file", str(file)).stdout
    alice, bob = listed.splitlines()[1:]
    assert alice.split()[:3] == ["alice", "counts", "*"]
    assert "for the notebook" in alice
    assert bob.split()[:2] == ["bob", "revoked"]
    as_json = run("list", "--json", "--file", str(file)).stdout
    assert json.loads(as_json)["keys"][0]["requests_per_minute"] == 60
    for key in read_key_file(file):
        assert key.digest.hex() not in listed + as_json


def test_a_hash_is_made_of_what_comes_in() -> None:
    text = "sk-a-key-that-came-from-somewhere-else"
    assert run("hash", stdin=f"{text}\n").stdout == hash_text(digest_of(text)) + "\n"
    refused = run("hash", stdin="hunter2\n")
    assert refused.exit_code == 2
    assert "can be guessed" in refused.stderr
    assert run("hash", "--allow-short", stdin="hunter2\n").exit_code == 0
    assert run("hash", stdin="").exit_code == 2
    assert run("hash", stdin="ein langer Schlüssel, den kein Kopf trägt\n").exit_code == 2


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("12h", 43_200), ("30d", 2_592_000), ("1w", 604_800), ("1970-01-02", 85_400)],
)
def test_when_a_key_expires(text: str, seconds: float) -> None:
    assert expiry_of(text, 1000.0) == 1000.0 + seconds


@pytest.mark.parametrize("text", ["", "30", "30y", "1969-01-01", "1970-01-02T00:00:00", "x"])
def test_when_no_key_expires(text: str) -> None:
    with pytest.raises(ValueError, match=r"give|over"):
        expiry_of(text, 1000.0)


HASHES = [hash_text(digest_of(name)) for name in "ab"]
FORMS = {
    "new": "",
    "block": f"keys:\n- name: a\n  hash: {HASHES[0]}",
    "indented": f"# ö\nkeys:\n    -   hash: {HASHES[0]}\n        name: a   # first\n\n# end\n",
    "flow entries": f"keys:\n  - {{name: a, hash: '{HASHES[0]}'}}\n",
    "flow": f"keys: [{{name: a, hash: '{HASHES[0]}'}}]\n",
    "JSON": json.dumps({"keys": [{"name": "a", "hash": HASHES[0]}]}, indent=2),
    "empty": "keys: []\n",
    "disabled before": f"keys:\n- name: a\n  disabled: false\n  hash: {HASHES[0]}\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_however_a_file_is_written_a_key_is_added_and_revoked(form: str) -> None:
    text = FORMS[form]
    known = read_keys(text) if text else ()
    added = with_key(text, Key("b", digest_of("b"), weight=2.0, expires_at_s=86_400.0))
    assert [key.name for key in read_keys(added)] == [*(key.name for key in known), "b"]
    revoked = with_revoked(added, "b")
    for key in known:
        revoked = with_revoked(revoked, key.name)
    assert with_revoked(revoked, "b") == revoked
    assert all(key.is_disabled for key in read_keys(revoked))
    assert text.partition("#")[2].partition("\n")[0] in revoked


@example(name="a", note='\x85\u2028\ufeff\uffff\x7f\x9f\U0001f600\U000e0001\r\n\t"\\ ')
@given(
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}", fullmatch=True),
    note=st.text(st.characters(codec="utf-8"), max_size=40),
)
def test_no_name_or_note_is_taken_for_something_else(name: str, note: str) -> None:
    key = Key(name, digest_of("x"), note=note)
    for text in ("", "keys: []\n"):
        assert read_keys(with_key(text, key)) == (key,)
