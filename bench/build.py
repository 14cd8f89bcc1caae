"""Compiles the bench's C programs into `bench/build/`; nothing of them is installed with the product."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
SOURCES = FOLDER / "c"
BUILD = FOLDER / "build"
FLAGS = ["-O2", "-g", "-std=gnu11", "-Wall", "-Wextra", "-Werror"]
COMPILE_TIMEOUT_S = 120

# Program -> what it is linked from, beside its own file.
PROGRAMS: dict[str, list[str]] = {
    "exchange": ["market", "wire", "measure"],
    "clients": ["wire", "measure"],
    "server": ["wire", "measure"],
    "relay": ["wire", "measure"],
    "probe": ["market", "wire", "measure"],
    "publish": ["wire", "measure"],
}


class BenchError(Exception):
    """A program of the bench, or the server under test, failed. The message is a sentence."""


def program(name: str) -> Path:
    """The path of a C program, compiled if its sources are newer.

    Raises:
        BenchError: the compiler is missing or refuses; its words are in the message.
    """
    target = BUILD / name
    newest = max(path.stat().st_mtime for path in SOURCES.iterdir())
    if target.exists() and target.stat().st_mtime >= newest:
        return target
    files = [str(SOURCES / f"{part}.c") for part in [name, *PROGRAMS[name]]]
    compile_c([os.environ.get("CC", "cc"), *FLAGS, *files], target)
    return target


def compile_c(command: list[str], target: Path) -> None:
    """Runs a compiler and puts its output in place only when it is whole."""
    BUILD.mkdir(exist_ok=True)
    partial = target.with_suffix(f".{os.getpid()}")
    try:
        done = subprocess.run(
            [*command, "-o", str(partial)],
            capture_output=True,
            text=True,
            timeout=COMPILE_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError as error:
        raise BenchError(f"The compiler {command[0]} is not installed: install gcc, or set CC.") from error
    if done.returncode != 0:
        raise BenchError(f"{command[0]} cannot build {target.name}: {done.stderr.strip()}")
    partial.replace(target)
