"""The build of the page where Node or npm's packages are not to be had, and what then becomes of `make build`."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT

WEB = CHECKOUT / "tradeback" / "web"


@pytest.mark.parametrize(
    ("version", "does"),
    [
        ("v20.19.0\n", True),
        ("v20.18.3", False),
        ("v21.7.0", False),
        ("v22.11.0", False),
        ("v22.12.0", True),
        ("v24.1.0", True),
        ("v18.20.4", False),
        ("", False),
    ],
)
def test_which_node_will_do(version: str, does: bool) -> None:
    spec = importlib.util.spec_from_file_location("page_build", WEB / "build.py")
    assert spec is not None
    assert spec.loader is not None
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    assert build.will_do(version) is does


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_packages_that_cannot_be_had_are_a_sentence(tmp_path: Path) -> None:
    web = tmp_path / "web"
    web.mkdir()
    for name in ("build.py", "package.json", "package-lock.json"):
        shutil.copy(WEB / name, web)
    programs = tmp_path / "programs"
    programs.mkdir()
    program(programs, "node", "echo v22.12.0")
    program(programs, "npm", 'echo "cannot be reached: $*" >&2; exit 1')
    done = subprocess.run(
        [sys.executable, web / "build.py"],
        env={"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1
    assert "No build of the page: " in done.stderr
    assert " --fetch-retries 3 " in done.stderr
    assert "Traceback" not in done.stderr
    assert not (web / "dist").exists()


@pytest.mark.parametrize(
    ("code", "environment", "builds"),
    [(0, {}, True), (1, {}, True), (1, {"CI": "true"}, False), (2, {}, False)],
)
def test_only_packages_that_cannot_be_had_are_borne(
    tmp_path: Path, code: int, environment: dict[str, str], builds: bool
) -> None:
    shutil.copy(CHECKOUT / "Makefile", tmp_path)
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for stamp in (".machine", ".installed", ".built"):
        (tmp_path / ".venv" / stamp).touch()
    program(programs, "python", f"exit {code}")
    done = subprocess.run(
        ["make", "tradeback/web/dist/index.html", "-o", ".venv/.installed"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C", **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode == 0) is builds, done.stderr
    assert ("Everything else works" in done.stderr) is (code == 1 and builds)


def test_the_lock_file_names_no_host() -> None:
    assert "://" not in "".join(
        line for line in (WEB / "package-lock.json").read_text().splitlines() if '"resolved"' in line
    )
