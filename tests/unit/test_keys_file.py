"""The file of keys: what it may say, and what is told of one that is wrong."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.keys.hashing import digest_of, hash_text, masked, new_key
from services.gateway.keys.key import Key, KeyLimits
from services.gateway.keys.key_file import KeyFileError, read_keys
from services.gateway.keys.sources import keys_of_option, read_key_file
from services.mesh.errors import StartError

HASH = hash_text(digest_of("a"))
OTHER_HASH = hash_text(digest_of("b"))

WHOLE = f"""\
# Who may ask for what.
keys:
  - name: alice@example.org
    hash: {HASH}
    models: [llama-*, "demo"]
    requests_per_minute: 60
    tokens_per_minute: 20000
    max_concurrent: 4
    weight: 2
    expires: 2027-01-01T01:00:00+01:00
    note: for the notebook
    metadata: {{team: search}}
  - {{name: bob, hash: "{OTHER_HASH}", disabled: true, expires: 2027-01-01}}
"""


def test_every_field_is_read() -> None:
    new_year_s = datetime(2027, 1, 1, tzinfo=UTC).timestamp()
    alice, bob = read_keys(WHOLE)
    assert alice == Key(
        name="alice@example.org",
        digest=digest_of("a"),
        models=("llama-*", "demo"),
        limits=KeyLimits(60, 20_000, 4),
        weight=2.0,
        expires_at_s=new_year_s,
        note="for the notebook",
        metadata={"team": "search"},
    )
    assert bob == Key("bob", digest_of("b"), is_disabled=True, expires_at_s=new_year_s)


def test_the_file_in_the_documents_is_one() -> None:
    text = Path(__file__).parents[2].joinpath("docs", "keys.md").read_text()
    (shown,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (alice,) = read_keys(shown.replace("sha256:…", HASH))
    assert (alice.name, alice.weight, alice.limits) == ("alice", 2.0, KeyLimits(60, 20_000, 4))


def test_json_is_yaml() -> None:
    assert read_keys(
        '{"keys": [{"name": "a", "hash": "' + HASH + '", "weight": 0.5, "expires": "1970-01-02"}]}'
    ) == (Key("a", digest_of("a"), weight=0.5, expires_at_s=86_400.0),)


def entry(line: str) -> str:
    return f"keys:\n  - name: a\n    hash: {HASH}\n    {line}\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "line 1: the file must hold a list called keys:"),
        ("[]", "line 1: the file must hold a list called keys:"),
        ("keys: [", "did not find expected node content"),
        ("keys:\n\tx: 1", "line 2: found character that cannot start any token"),
        ("keys: {}", "line 1: keys must be a valid list"),
        ("keys: []\nkey: []", "line 2: key is no field here"),
        ("keys:\n  - name: a", "line 2: keys[0].hash is missing"),
        (f"keys:\n  - hash: {HASH}\n    name: 7", "line 3: keys[0].name must be a valid string"),
        (f"keys:\n  - name: no\n    hash: {HASH}", "line 2: keys[0].name must be a valid string"),
        (
            f"keys:\n  - name: two words\n    hash: {HASH}",
            "line 2: keys[0].name must be 1 to 64 letters, digits and . _ @ + -, of which the "
            "first is a letter or digit",
        ),
        (
            "keys:\n  - name: a\n    hash: tm-plainly",
            "line 3: keys[0].hash must be sha256: and 64 hexadecimal digits, as `tokenmesh keys "
            "hash` prints it",
        ),
        (entry("requests_per_minute: 0"), "must be greater than or equal to 1"),
        (entry("requests_per_minute: 1.5"), "line 4: keys[0].requests_per_minute must be a valid"),
        (entry("tokens_per_minute: many"), "line 4: keys[0].tokens_per_minute must be a valid"),
        (entry("weight: 0"), "line 4: keys[0].weight must be greater than 0"),
        (entry("weight: .nan"), "line 4: keys[0].weight must be"),
        (entry("weight: 1001"), "line 4: keys[0].weight must be less than or equal to 1000"),
        (entry("models: llama-*"), "line 4: keys[0].models must be a valid list"),
        (entry("models: []"), "line 4: keys[0].models must not be empty"),
        (entry('models: [a, ""]'), "line 4: keys[0].models[1] must not be empty"),
        (entry("expires: soon"), "line 4: keys[0].expires must be a day or a time"),
        (entry("expires: 2027-01-01 10:00:00"), "line 4: keys[0].expires must have a time zone"),
        (entry("expires: 2027-13-01"), "line 4: holds no value that can be read"),
        (entry("disabled: maybe"), "line 4: keys[0].disabled must be a valid boolean"),
        (entry("colour: red"), "line 4: keys[0].colour is no field here"),
        (entry("metadata: {a: 1}"), "line 4: keys[0].metadata.a must be a valid string"),
        (entry("name: b"), "line 4: the field 'name' stands here twice"),
        (entry("note: *x"), "line 4: found undefined alias"),
        (entry("note: &x [*x]"), "line 4: aliases (*name) are not taken here"),
        (entry("? [a]\n    : b"), "line 4: the name of a field must be a word"),
        (
            f"keys:\n- {{name: a, hash: '{HASH}'}}\n- {{name: a, hash: '{OTHER_HASH}'}}",
            "line 3: keys[1].name is that of keys[0] already",
        ),
        (
            f"keys:\n- {{name: a, hash: '{HASH}'}}\n- {{name: b, hash: '{HASH}'}}",
            "line 3: keys[1].hash is that of keys[0] already",
        ),
        ("keys: \x00", "line 1: "),
    ],
)
def test_what_is_wrong_is_told_with_its_line_and_field(text: str, told: str) -> None:
    with pytest.raises(KeyFileError) as raised:
        read_keys(text)
    assert told in str(raised.value)


@given(st.text(max_size=200))
def test_no_text_does_anything_else(text: str) -> None:
    with suppress(KeyFileError):
        assert isinstance(read_keys(text), tuple)


def test_a_key_in_the_wrong_place_is_not_repeated() -> None:
    key = new_key()
    for text in (
        f"keys:\n  - name: a\n    hash: {key}\n",
        f"keys:\n  - name: a\n    hash: {HASH}\n    weight: {key}\n",
        f"keys:\n  - name: '{key} {key}'\n    hash: {HASH}\n",
        f"keys:\n  - name: a\n    hash: '{key}\n",
        f"keys: {key}",
    ):
        with pytest.raises(KeyFileError) as raised:
            read_keys(text)
        assert key not in str(raised.value)


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="cannot be read: No such file"):
        read_key_file(tmp_path / "missing")
    with pytest.raises(KeyFileError, match="cannot be read: Is a directory"):
        read_key_file(tmp_path)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(KeyFileError, match="is not UTF-8 text"):
        read_key_file(tmp_path / "bytes")


def test_keys_of_the_command_line_have_numbers_for_names() -> None:
    assert keys_of_option("a, b") == (
        Key("key#1", digest_of("a"), is_named=False),
        Key("key#2", digest_of("b"), is_named=False),
    )
    assert keys_of_option(None) == keys_of_option("") == keys_of_option("  ") == ()


def test_a_key_of_the_command_line_is_itself_wherever_it_stands() -> None:
    first, _ = keys_of_option("a, b")
    _, second = keys_of_option("c, a")
    (other,) = keys_of_option("c")
    assert first.identity == second.identity
    assert first.name == other.name
    assert first.identity != other.identity


@pytest.mark.parametrize("text", ["a,", ",", "a,a", "a,b c", "schlüssel", "x" * 513])
def test_keys_of_the_command_line_that_cannot_be_stop_the_start(text: str) -> None:
    with pytest.raises(StartError, match="--api-keys") as raised:
        keys_of_option(text)
    assert "schlüssel" not in str(raised.value)


def test_a_new_key_is_like_no_other_and_shows_its_end_only() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    for key in keys:
        assert key.startswith("tm-")
        assert len(key) == 46
        assert masked(key) == "********" + key[-4:]
    assert masked("hunter2") == "********"


def test_what_a_key_prints_as_holds_no_hash() -> None:
    assert "digest" not in repr(Key("a", digest_of("a")))
