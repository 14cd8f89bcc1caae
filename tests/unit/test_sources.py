"""Rules of style that a machine can hold."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT

LONGEST_FILE = 600  # lines
DRAWERS = {"utils", "util", "common", "helpers", "helper", "base", "manager", "misc"}
INTERFACES = {"tradeback/store/base.py"}  # interfaces, named so in the design


def tracked() -> list[str]:
    """Files that belong to the product; outside a checkout (a source distribution) all that are there."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [name for name in listing.stdout.splitlines() if (CHECKOUT / name).is_file()]


def text_of(name: str) -> str:
    return (CHECKOUT / name).read_text(encoding="utf-8")


def code(*suffixes: str, folder: str = "") -> list[str]:
    return [name for name in tracked() if name.startswith(folder) and Path(name).suffix in suffixes]


def test_no_file_is_too_long() -> None:
    counted = {
        name: text_of(name).count("\n") for name in code(".py", ".pyx", ".pxd", ".pyi", ".c", ".h", ".js")
    }
    assert not {name for name, lines in counted.items() if lines > LONGEST_FILE}


def test_every_extension_has_a_stub_and_opens_with_a_map() -> None:
    for path in (CHECKOUT / "tradeback" / "_fast").glob("*.pyx"):
        assert path.with_suffix(".pyi").exists(), f"{path.name} has no stub"
        assert path.read_text().startswith('"""'), f"{path.name} does not open with a docstring"


def test_no_drawers() -> None:
    assert {name for name in code(".py", ".pyx") if Path(name).stem.lower() in DRAWERS} <= INTERFACES


def test_nothing_is_left_to_do() -> None:
    word = re.compile(r"\b(TO[D]O|FIX[M]E|XX[X]|HAC[K])\b")
    assert not [
        name for name in code(".py", ".pyx", ".pxd", ".pyi", ".c", ".h") if word.search(text_of(name))
    ]


def test_product_code_does_not_validate_by_assert() -> None:
    product = code(".py", ".pyx", ".pxd", folder="tradeback/")
    assert not [name for name in product if re.search(r"^\s*assert\b", text_of(name), re.M)]


def test_every_module_says_what_it_is() -> None:
    product = [name for name in code(".py", ".pyx", ".pxd", folder="tradeback/") if text_of(name)]
    assert not [name for name in product if not text_of(name).startswith('"""')]
