"""`python -m tests.fuzz SECONDS`: fuzzes the decoder in C, then with its slow path, then clients' commands.

Everything is made in `build/fuzz`. What a fuzzer finds is left there, and its path is printed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.fuzz.seeds import CHECKOUT, write_commands, write_messages

FOLDER = CHECKOUT / "build" / "fuzz"
# Of the time: the decoder's C, its slow path against the oracle, clients' commands.
SHARES = {"decode": 0.5, "messages": 0.35, "commands": 0.15}
SANITIZERS = "-fsanitize=fuzzer,address,undefined"
START_S = 600  # for a fuzzer to start and to end, beside its time


def main() -> int:
    seconds = int(sys.argv[1])
    FOLDER.mkdir(parents=True, exist_ok=True)
    programs = {
        "decode": [str(build_decoder())],
        "messages": [sys.executable, "-m", "tests.fuzz.python", "messages"],
        "commands": [sys.executable, "-m", "tests.fuzz.python", "commands"],
    }
    for name, program in programs.items():
        corpus = FOLDER / name
        seeds = write_commands(corpus) if name == "commands" else write_messages(corpus)
        share = max(1, int(seconds * SHARES[name]))
        print(f"fuzzing {name} for {share} s from {seeds} seeds", flush=True)
        if not fuzz(program, corpus, name, share):
            print(f"fuzzing {name} FAILED: the input is in {FOLDER}, its name begins with {name}-")
            return 1
    return 0


def build_decoder() -> Path:
    """The harness with the decoder's C in it. Nothing of Python is called, so nothing of it is linked."""
    source, program = FOLDER / "decode.c", FOLDER / "decode-fuzzer"
    pyx = "tradeback/_fast/decode.pyx"
    run([sys.executable, "-m", "cython", "-3", "-X", "cdivision=True", pyx, "-o", str(source)])
    include = [f"-I{sysconfig.get_path('include')}", f"-I{CHECKOUT / 'tradeback' / '_fast'}"]
    flags = ["-g", "-O1", SANITIZERS, "-fno-sanitize-recover=undefined", "-w", f'-DDECODER="{source}"']
    run(["clang", *flags, *include, str(CHECKOUT / "tests" / "fuzz" / "decode.c"), "-o", str(program)])
    return program


def run(command: list[str]) -> None:
    subprocess.run(command, cwd=CHECKOUT, check=True, timeout=1200)


def fuzz(program: list[str], corpus: Path, name: str, seconds: int) -> bool:
    log = FOLDER / f"{name}.log"
    flags = [
        f"-max_total_time={seconds}",
        "-max_len=4096",
        "-timeout=60",
        f"-artifact_prefix={FOLDER}/{name}-",
    ]
    if os.environ.get("CI"):
        flags.append("-seed=1")  # who changed nothing is to find nothing new
    if name == "decode":
        # LeakSanitizer needs ptrace, which containers forbid.
        flags.append("-detect_leaks=0")
    with open(log, "wb") as output:
        done = subprocess.run(
            [*program, *flags, str(corpus)],
            cwd=CHECKOUT,
            stdout=output,
            stderr=output,
            timeout=seconds + START_S,
            check=False,
            env={**os.environ, "TRADEBACK_EXCHANGE": "sim"},
        )
    lines = log.read_text(errors="replace").splitlines()
    print("\n".join(lines[-1:] if done.returncode == 0 else lines[-40:]), flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
