"""Passwords: argon2id, and the work done for nobody."""

from __future__ import annotations

import subprocess
import sys

import pytest
from argon2 import extract_parameters
from argon2.low_level import Type

from tradeback.errors import AccountError
from tradeback.passwords import _nobodys_hash, hash_password, password_is


def test_a_password_is_known_by_its_hash() -> None:
    made = hash_password("correct horse")
    assert made.startswith("$argon2id$")
    assert made != hash_password("correct horse")
    assert password_is(made, "correct horse")
    for other in ("correct hors", "Correct horse", "correct horse ", "", "correct horse\0", "\udc80" * 9):
        assert not password_is(made, other)


def test_nobody_has_a_password_and_as_much_work_is_done() -> None:
    for password in ("nobody's password", "", "x" * 5000):
        assert not password_is(None, password)
    nobodys, somebodys = (
        extract_parameters(_nobodys_hash()),
        extract_parameters(hash_password("correct horse")),
    )
    assert nobodys == somebodys
    assert nobodys.type is Type.ID


def test_one_password_in_two_spellings() -> None:
    assert password_is(hash_password("caf\u00e9 au lait"), "cafe\u0301 au lait")


@pytest.mark.parametrize("password", ["", "7 chars", "x" * 1025, "é" * 513])
def test_a_password_too_short_or_too_long(password: str) -> None:
    with pytest.raises(AccountError, match="at least 8 characters and at most 1024 bytes"):
        hash_password(password)
    assert not password_is(hash_password("correct horse"), password)


@pytest.mark.parametrize("stored", ["no hash", "$argon2id$", "$2b$12$abc", "é"])
def test_what_is_no_hash_lets_nobody_in(stored: str) -> None:
    assert not password_is(stored, "correct horse")


def test_what_a_password_took_is_given_back() -> None:
    """By threads that live on, as an API's do: of 19 MiB each, nothing is kept."""
    program = """
import threading
from pathlib import Path
from tradeback.heap import give_back_large_blocks
from tradeback.passwords import hash_password, password_is

def private():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("Pss_Anon:")))

give_back_large_blocks()
known = hash_password("correct horse")
before, checked = private(), threading.Barrier(5)

def check():
    for _ in range(3):
        password_is(known, "battery staple")
    checked.wait()
    checked.wait()

threads = [threading.Thread(target=check) for _ in range(4)]
for thread in threads:
    thread.start()
checked.wait()
print(private() - before)
checked.wait()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 4096, "KiB"
