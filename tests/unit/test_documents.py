"""What README and CONTRIBUTING say is true: commands run, targets and files exist."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import click
import pytest

from tests.conftest import CHECKOUT
from tradeback.cli import main

DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "docs/architecture.md",
    "docs/client-python.md",
    "docs/deploy.md",
    "docs/runbook.md",
]
_BLOCK = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
# `make test` here would run this test again; what builds or measures takes too long for one.
_NEVER_RUN = re.compile(r"\bmake (test|check|soak|chaos|services|run|bench|build|clean)\b")


def blocks(document: str) -> list[tuple[str, str]]:
    text = (CHECKOUT / document).read_text()
    return [(match["info"], match["body"]) for match in _BLOCK.finditer(text)]


def commands(document: str, *, runnable: bool) -> list[str]:
    return [
        line.partition("#")[0].strip()
        for info, body in blocks(document)
        if info.startswith("sh") and (not runnable or "runnable" in info.split())
        for line in body.splitlines()
        if line.partition("#")[0].strip()
    ]


@pytest.mark.parametrize("command", [line for name in DOCUMENTS for line in commands(name, runnable=True)])
def test_a_command_runs(command: str, tmp_path: Path) -> None:
    assert not _NEVER_RUN.search(command)
    if not (CHECKOUT / ".venv" / "bin" / "tradeback").exists():
        pytest.skip("not built by make: there is no .venv")
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "DATA_DIR": str(tmp_path),
        "TRADEBACK_EXCHANGE": "sim",
    }
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=CHECKOUT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_target_of_make_that_is_named_exists(document: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    for command in commands(document, runnable=False):
        named = re.fullmatch(r"make (?:\w+=\S+ )*(\w+)", command)
        assert named is None or named[1] in targets, command


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_of_ours_that_is_named_exists(document: str) -> None:
    context = click.Context(main)
    for command in commands(document, runnable=False):
        named = re.match(r"(?:\.venv/bin/)?tradeback ([a-z]+)", command)
        assert named is None or main.get_command(context, named[1]) is not None, command


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_that_is_named_exists(document: str) -> None:
    text = (CHECKOUT / document).read_text()
    named = re.findall(r"`((?:tradeback|tests|bench|docs|deploy)(?:/[\w.]+)+)`", text)
    linked = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]
    assert named or linked
    assert not [name for name in named if not (CHECKOUT / name).exists()]
    assert not [name for name in linked if not (CHECKOUT / document).parent.joinpath(name).exists()]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_needs_a_container_engine_says_so(document: str) -> None:
    for info, body in blocks(document):
        assert ("container" in info.split()) == bool(re.search(r"\b(docker|cibuildwheel)\b", body)), body


def test_python_examples_compile() -> None:
    for document in DOCUMENTS:
        for info, body in blocks(document):
            if info == "python":
                indented = "".join(f"    {line}\n" for line in body.splitlines())
                compile(f"async def example():\n{indented}", document, "exec")
