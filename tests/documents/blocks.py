"""The code blocks of the documentation, and the commands in them."""

from __future__ import annotations

import re
from pathlib import Path

from tests.conftest import CHECKOUT

PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *sorted(path.relative_to(CHECKOUT).as_posix() for path in (CHECKOUT / "docs").rglob("*.md")),
]
_BLOCK = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_CONTINUED = re.compile(r"\\\n\s*")


def text_of(page: str) -> str:
    return (CHECKOUT / page).read_text()


def blocks(page: str) -> list[tuple[str, str]]:
    """What stands behind the opening fence, and the lines of each block."""
    return [(match["info"], match["body"]) for match in _BLOCK.finditer(text_of(page))]


def commands(page: str) -> list[str]:
    """Each command of its `sh` blocks, in order, as a person would type it."""
    return [
        line.partition("  #")[0].strip()
        for info, body in blocks(page)
        if info.split()[:1] == ["sh"]
        for line in _CONTINUED.sub("", body).splitlines()
        if line.strip() and not line.startswith("#")
    ]


def relative(page: str, target: str) -> Path:
    """The file that a link of the page leads to."""
    return (CHECKOUT / page).parent / target
