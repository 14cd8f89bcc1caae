"""The Makefile on a machine that lacks something, and its help."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT

APT_LINE = "  apt-get install -y git python3-venv python3-dev gcc make\n"


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A checkout in which nothing was built."""
    for name in ("Makefile", "pyproject.toml", "setup.py"):
        shutil.copy(CHECKOUT / name, tmp_path)
    (tmp_path / "tradeback" / "_fast").mkdir(parents=True)
    (tmp_path / "bench").mkdir()
    return tmp_path


def make(folder: Path, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    program = shutil.which("make")
    if program is None:
        pytest.skip("make is not installed")
    environ = {"PATH": path or os.environ["PATH"], "LC_ALL": "C"}
    return subprocess.run(
        [program, *arguments],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def interpreter(folder: Path, script: str) -> str:
    program = folder / "fake-python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return f"PYTHON={program}"


@pytest.mark.parametrize("script", ["exit 1", "echo 'No module named ensurepip' >&2; exit 1"])
def test_an_interpreter_that_will_not_do(bare: Path, script: str) -> None:
    done = make(bare, "build", interpreter(bare, script))
    assert done.returncode != 0
    assert APT_LINE in done.stdout
    assert not (bare / ".venv").exists()


def test_no_interpreter(bare: Path) -> None:
    done = make(bare, "test", "PYTHON=/nowhere/python3")
    assert done.returncode != 0
    assert APT_LINE in done.stdout


def test_no_compiler(bare: Path) -> None:
    programs = bare / "programs"
    programs.mkdir()
    for name in ("sh", "git", "python3"):
        found = shutil.which(name)
        if found is not None:
            (programs / name).symlink_to(found)
    done = make(bare, "build", path=str(programs))
    assert done.returncode != 0
    assert APT_LINE in done.stdout


def test_another_interpreter_than_the_one_it_was_built_with(bare: Path) -> None:
    (bare / ".venv").mkdir()
    (bare / ".venv" / ".machine").write_text("python3\n")
    done = make(bare, "build", "PYTHON=/nowhere/python3")
    assert "was made with python3, not with /nowhere/python3: run `make clean` first" in done.stderr
    assert make(bare, "clean", "PYTHON=/nowhere/python3").returncode == 0
    assert not (bare / ".venv").exists()


def test_help_lists_every_command() -> None:
    done = make(CHECKOUT, "help")
    listed = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("make ")}
    assert listed >= {"run", "build", "test", "check", "bench", "clean", "help"}
