"""Reads a Dockerfile and a .dockerignore, as far as ours use them: stages, and what is sent to build."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

KNOWN = frozenset(
    "FROM RUN COPY WORKDIR ENV USER EXPOSE STOPSIGNAL HEALTHCHECK ENTRYPOINT CMD".split()  # noqa: SIM905
)


@dataclass
class Stage:
    """What stands between two FROMs."""

    base: str
    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def last(self, name: str) -> str:
        """The text of the last instruction of that name; KeyError where there is none."""
        return dict(self.instructions)[name]

    def exec_form(self, name: str) -> list[str]:
        """The words of an instruction that ends in a JSON list."""
        words = json.loads(self.last(name)[self.last(name).index("[") :])
        return [str(word) for word in words]


def stages(path: Path) -> list[Stage]:
    """Comments and line continuations are resolved as Docker does it: a comment within a RUN is no part of it."""
    found: list[Stage] = []
    for name, text in _instructions(path.read_text()):
        if name not in KNOWN:
            raise ValueError(f"{path} has {name}, which is not understood here: add it")
        if name == "FROM":
            base, _, stage = text.partition(" AS ")
            found.append(Stage(base, stage or str(len(found))))
        else:
            found[-1].instructions.append((name, text))
    return found


def _instructions(content: str) -> Iterator[tuple[str, str]]:
    gathered = ""
    for line in content.splitlines():
        if line.lstrip().startswith("#") or (not line.strip() and not gathered):
            continue
        gathered += line[:-1] if line.endswith("\\") else line
        if not line.endswith("\\"):
            name, _, text = gathered.strip().partition(" ")
            yield name.upper(), text.strip()
            gathered = ""


def environment(text: str, known: dict[str, str]) -> dict[str, str]:
    """Of an ENV: what it sets, with $NAME replaced by what is known."""
    pairs = (pair.partition("=") for pair in text.split())
    return {name: re.sub(r"\$(\w+)", lambda use: known.get(use[1], ""), value) for name, _, value in pairs}


def context(folder: Path) -> list[str]:
    """The files that a build of `folder` gets, by their paths in it, as its .dockerignore says."""
    patterns = []
    for line in (folder / ".dockerignore").read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            kept = line.startswith("!")
            patterns.append((re.compile(_regex(line.removeprefix("!").strip("/"))), kept))
    found = []
    for top, folders, names in os.walk(folder):
        if Path(top) == folder:
            folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = (Path(top) / name).relative_to(folder).as_posix()
            kept = True
            for pattern, keeps in patterns:
                # A pattern that fits a folder fits all that is in it.
                if any(pattern.fullmatch(part) for part in (path, *map(str, Path(path).parents))):
                    kept = keeps
            if kept:
                found.append(path)
    return sorted(found)


def _regex(pattern: str) -> str:
    escaped = re.escape(pattern).replace(r"\*\*/", "(?:.*/)?")
    return escaped.replace(r"\*\*", ".*").replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
