"""Compiles the bench's C programs into `bench/build/`, and `micro.pyx` in place; no part of the product."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
SOURCES = FOLDER / "c"
BUILD = FOLDER / "build"
FLAGS = ["-O2", "-g", "-std=gnu11", "-Wall", "-Wextra", "-Werror"]
COMPILE_TIMEOUT_S = 600

# Program -> what it is linked from, beside its own file.
PROGRAMS: dict[str, list[str]] = {
    "exchange": ["market", "wire", "measure"],
    "clients": ["peer", "wire", "measure"],
    "server": ["wire", "measure"],
    "relay": ["wire", "measure"],
    "probe": ["market", "wire", "measure"],
    "publish": ["wire", "measure"],
    "audit": ["peer", "wire", "measure"],
    "requests": ["wire", "measure"],
}

# As setup.py compiles the product.
DIRECTIVES = ["language_level=3", "boundscheck=False", "wraparound=False", "cdivision=True"]
EXTENSION_FLAGS = ["-O3", "-fno-math-errno", "-fPIC", "-shared"]


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
    compile_into([os.environ.get("CC", "cc"), *FLAGS, *files], target)
    return target


def simdjson() -> Path | None:
    """The path of the simdjson peer; None where this machine has no C++ compiler or no libsimdjson-dev.

    Compiled for this very processor, since its on-demand parser chooses its instructions when it is compiled.
    """
    target = BUILD / "simdjson"
    source = SOURCES / "simdjson.cpp"
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        flags = ["-O3", "-march=native", "-std=c++17", "-Wall", "-Wextra"]
        try:
            compile_into([os.environ.get("CXX", "c++"), *flags, str(source), "-lsimdjson"], target)
        except BenchError:
            return None
    return target


def extension(name: str) -> None:
    """Compiles `bench/NAME.pyx` where `import bench.NAME` finds it, if it or a face is newer."""
    target = FOLDER / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}"
    source = FOLDER / f"{name}.pyx"
    faces = (FOLDER.parent / "tradeback" / "_fast").glob("*.pxd")
    newest = max(path.stat().st_mtime for path in [source, *faces])
    if target.exists() and target.stat().st_mtime >= newest:
        return
    BUILD.mkdir(exist_ok=True)
    generated = BUILD / f"{name}.c"
    options = [part for directive in DIRECTIVES for part in ("-X", directive)]
    cython = [sys.executable, "-m", "cython", "-I", str(FOLDER.parent), *options, str(source)]
    compile_into(cython, generated)
    include = ["-I", sysconfig.get_path("include"), "-I", str(FOLDER.parent / "tradeback" / "_fast")]
    compile_into([os.environ.get("CC", "cc"), *EXTENSION_FLAGS, *include, str(generated)], target)


def compile_into(command: list[str], target: Path) -> None:
    """Runs a compiler and puts its output in place only when it is whole."""
    BUILD.mkdir(exist_ok=True)
    partial = BUILD / f"{os.getpid()}.{target.name}"
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
