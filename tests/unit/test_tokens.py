"""Session tokens, and the secret that signs them."""

from __future__ import annotations

import base64
import multiprocessing
import os
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradeback.errors import ConfigError, DataFolderError, ExpiredTokenError, ForgedTokenError
from tradeback.tokens import SECRET_FILE, check_token, load_secret, new_token, token_hash

SECRET = b"s" * 32
NOW = 1_800_000_000


def test_a_token_lets_in_until_it_expires() -> None:
    token = new_token(SECRET, 10, now=NOW)
    assert check_token(SECRET, token, NOW) == check_token(SECRET, token, NOW + 9.99) == token_hash(token)
    assert len(token) == 96
    for now in (NOW + 10, NOW + 1e9):
        with pytest.raises(ExpiredTokenError, match="has expired: log in again"):
            check_token(SECRET, token, now)


def test_no_two_tokens_are_equal() -> None:
    assert len({new_token(SECRET, 10, now=NOW) for _ in range(1000)}) == 1000


def test_a_token_of_another_secret_is_forged_even_where_it_expired() -> None:
    token = new_token(b"o" * 32, 10, now=NOW)
    for now in (NOW, NOW + 100):
        with pytest.raises(ForgedTokenError):
            check_token(SECRET, token, now)


@given(st.integers(0, 8 * 72 - 1))
def test_no_bit_of_a_token_can_be_changed(bit: int) -> None:
    content = bytearray(base64.urlsafe_b64decode(new_token(SECRET, 10, now=NOW)))
    content[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ForgedTokenError):
        check_token(SECRET, base64.urlsafe_b64encode(content).decode(), NOW)


@given(st.text(max_size=120))
def test_text_is_no_token(text: str) -> None:
    with pytest.raises(ForgedTokenError):
        check_token(SECRET, text, NOW)


@pytest.mark.parametrize(
    "change",
    [
        lambda token: token[:-1],
        lambda token: token[:48],
        lambda token: token + "\n",
        lambda token: " " + token[1:],
        lambda token: token + token,
        lambda token: token[:-1] + "=",
        lambda token: token[:-1] + "+",
        lambda token: token[:-1] + "\N{FULLWIDTH LATIN CAPITAL LETTER A}",
        lambda token: token[:-1] + "\udc80",
        lambda token: "\0" * 96,
        lambda token: "A" * 96,
        lambda token: "A" * 10_000_000,
    ],
)
def test_what_is_nearly_a_token(change: object) -> None:
    assert callable(change)
    with pytest.raises(ForgedTokenError, match="is none of ours"):
        check_token(SECRET, change(new_token(SECRET, 10, now=NOW)), NOW)


def test_a_token_has_one_spelling() -> None:
    """96 characters are 72 bytes: no bit is left over in which two spellings could differ."""
    token = new_token(SECRET, 10, now=NOW)
    assert base64.urlsafe_b64encode(base64.urlsafe_b64decode(token)).decode() == token


def test_the_secret_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    secret = load_secret(folder, "")
    assert len(secret) == 32
    assert load_secret(folder, "") == secret
    assert (folder / SECRET_FILE).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in folder.iterdir()] == [SECRET_FILE]
    assert load_secret(tmp_path / "other", "") != secret


def test_a_configured_secret_needs_no_file(tmp_path: Path) -> None:
    assert (
        load_secret(tmp_path, "x" * 32) == load_secret(tmp_path, "x" * 32) != load_secret(tmp_path, "y" * 32)
    )
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="SESSION_SECRET has 5 characters"):
        load_secret(tmp_path, "short")


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644, 0o620, 0o601])
def test_a_secret_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    load_secret(tmp_path, "")
    (tmp_path / SECRET_FILE).chmod(mode)
    with pytest.raises(DataFolderError, match=rf"by others \(mode {mode:04o}\): delete it"):
        load_secret(tmp_path, "")


@pytest.mark.parametrize("content", [b"", b"ab\n", b"g" * 64, b"\xff" * 64, b"ab" * 33, b"ab" * 5000])
def test_a_torn_secret_is_refused(tmp_path: Path, content: bytes) -> None:
    load_secret(tmp_path, "")
    (tmp_path / SECRET_FILE).write_bytes(content)
    with pytest.raises(DataFolderError, match="is not 64 hexadecimal digits"):
        load_secret(tmp_path, "")


def test_a_secret_that_cannot_be_made_or_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataFolderError, match="cannot be used"):
        load_secret(tmp_path / "file", "")
    (tmp_path / SECRET_FILE).mkdir()
    with pytest.raises(DataFolderError, match="cannot be used"):
        load_secret(tmp_path, "")


def load_at_once(folder: Path, start: Barrier, found: Queue[bytes]) -> None:
    start.wait(300)
    found.put(load_secret(folder, ""))


def test_processes_that_start_at_once_have_one_secret(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start, found = context.Barrier(4), context.Queue()
    processes = [context.Process(target=load_at_once, args=(tmp_path, start, found)) for _ in range(4)]
    for process in processes:
        process.start()
    secrets = {found.get(timeout=300) for _ in processes}
    for process in processes:
        process.join(90)
    found.close()
    found.join_thread()
    assert secrets == {load_secret(tmp_path, "")}
    assert os.listdir(tmp_path) == [SECRET_FILE]
