"""Follows docs/tutorial.md word for word on a fresh machine: a minimal Debian that has nothing yet, not even Node.

`python tests/tutorial_walk.py [FOLDER]`, as root on a Debian with mmdebstrap and a Chromium, by the Python of a built
checkout; it takes some minutes. Not a test of the suite. Ports 8080, 8081 and 9443 must be free: the machine shares
the network of this one, whose browser looks at the chart. The exchange is the simulated one.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from playwright.sync_api import sync_playwright  # noqa: E402

from tests.browser.conftest import SCREENSHOTS, SWITCHES  # noqa: E402
from tests.documents.blocks import commands  # noqa: E402
from tests.documents.chart import see_the_chart  # noqa: E402
from tests.documents.stage import Typist  # noqa: E402
from tests.image_walk import FOR_REGISTRIES, PATH, base, borrowed, chroot, say  # noqa: E402

PAGE = "docs/tutorial.md"
HOME = "/home/reader"
READER = 1000
ENDLESS = re.compile(r"\S*tradeback watch .*")
ASKING = re.compile(r"\S*tradeback user add \w+")


def main(folder: Path) -> None:
    root = base("debian:12.0-slim", folder)
    put_checkout(root / HOME.lstrip("/") / "trade-back")
    begun = time.monotonic()
    with borrowed(root), contextlib.ExitStack() as running:
        at_root, reader = typist(root, "0:0"), typist(root, f"{READER}:{READER}")
        at_root.run("apt-get update")  # a minimal machine has no lists yet
        for command in commands(PAGE):
            say(f"{time.monotonic() - begun:6.1f} s: {command}")
            if command.startswith("apt-get "):
                at_root.run(command)
            elif command == "make run":
                said = running.enter_context(made_to_run(reader))
                say(f"{time.monotonic() - begun:6.1f} s: {said[-1]}")
                look_at(said)
            elif ENDLESS.fullmatch(command):
                print(reader.run_until_ctrl_c(command), end="")
            elif ASKING.fullmatch(command):
                print(reader.run_with_password(command), end="")
            else:
                print(reader.run(command), end="")
    say(f"{time.monotonic() - begun:6.1f} s: at its end")


def put_checkout(place: Path) -> None:
    """What git has of this checkout, as the reader's own."""
    shutil.rmtree(place, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.split("\0"):
        if name and (CHECKOUT / name).exists():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / name, place / name)
    subprocess.run(["chown", "-R", f"{READER}:{READER}", str(place.parent)], check=True)


def typist(root: Path, user: str) -> Typist:
    """Somebody at a terminal of the machine, in the checkout's folder."""
    variables = {"PATH": PATH, "HOME": HOME, "TRADEBACK_EXCHANGE": "sim", **FOR_REGISTRIES}
    shared = 'mount -t tmpfs -o mode=1777 tmpfs "$0/dev/shm"'
    shell = chroot(root, f"{HOME}/trade-back", variables, ["bash"], user=user, prepare=shared)
    return Typist(shell, root, os.environ)


@contextlib.contextmanager
def made_to_run(reader: Typist) -> Iterator[list[str]]:
    """`make run`, and its lines as far as the login."""
    making = subprocess.Popen(
        [*reader.shell, "-c", "exec make run"], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert making.stdout is not None
    try:
        said: list[str] = []
        for line in making.stdout:
            said.append(line.rstrip())
            if line.startswith("Log in as "):
                break
        else:
            raise SystemExit("`make run` ended before it printed a login")
        yield said
    finally:
        os.killpg(making.pid, signal.SIGINT)
        making.stdout.read()
        say(f"Ctrl-C: `make run` ended with {making.wait()}")


def look_at(said: list[str]) -> None:
    """Open what was printed and log in, until there is a chart."""
    told = re.search(r"Open (\S+)\nLog in as (\S+) with the password (\S+)", "\n".join(said))
    if told is None:
        raise SystemExit(f"`make run` did not print what the tutorial says, but {said}")
    chromium = shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(SWITCHES))
        see_the_chart(browser, *told.groups(), SCREENSHOTS / "fresh-machine.png")
        browser.close()
    say("a chart is drawn: build/screenshots/fresh-machine.png")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
        main(Path(sys.argv[1]).resolve())
    else:
        with tempfile.TemporaryDirectory() as own:
            main(Path(own))
