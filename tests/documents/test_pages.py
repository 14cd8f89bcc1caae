"""What the documentation names exists: targets, commands, files, links; and its examples are Python."""

from __future__ import annotations

import re

import click
import pytest

from tests.conftest import CHECKOUT
from tests.documents.blocks import PAGES, blocks, commands, relative, text_of
from tradeback.cli import main

_ENGINE = re.compile(r"\b(docker|cibuildwheel)\b")
_SHELL = re.compile(r"^(\$ )?(\.venv/bin/|tradeback |make |curl |apt-get |docker |systemctl )", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_every_target_of_make_that_is_named_exists(page: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    for command in commands(page):
        named = re.fullmatch(r"make (?:\w+=\S+ )*([a-z]+)(?: \w+=\S+)*", command)
        assert named is None or named[1] in targets, command


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_ours_that_is_named_exists(page: str) -> None:
    context = click.Context(main)
    for command in commands(page):
        named = re.match(r"(?:\.venv/bin/)?tradeback ([a-z]+)", command)
        assert named is None or main.get_command(context, named[1]) is not None, command


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_is_named_exists(page: str) -> None:
    text = text_of(page)
    named = re.findall(r"`((?:tradeback|tests|bench|docs|deploy)(?:/[\w.]+)+)`", text)
    linked = [target for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in target]
    assert not [name for name in named if not (CHECKOUT / name).exists()]
    assert not [name for name in linked if not relative(page, name).exists()]


@pytest.mark.parametrize("page", PAGES)
def test_what_needs_a_container_engine_says_so(page: str) -> None:
    for info, body in blocks(page):
        assert ("container" in info.split()) == bool(_ENGINE.search(body)), body


@pytest.mark.parametrize("page", PAGES)
def test_commands_stand_in_blocks_that_are_run(page: str) -> None:
    """A block of commands without `sh` would be run by nobody."""
    assert not [body for info, body in blocks(page) if not info and _SHELL.search(body)]


@pytest.mark.parametrize("page", PAGES)
def test_python_examples_compile(page: str) -> None:
    for info, body in blocks(page):
        if info == "python":
            indented = "".join(f"    {line}\n" for line in body.splitlines())
            compile(f"async def example():\n{indented}", page, "exec")
