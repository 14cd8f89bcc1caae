"""As much of systemctl as docs/howto/install.md types, for a machine that was started without systemd.

It reads the units where systemd does and starts them as systemd would: user, state folder, environment, readiness.
How a unit is closed off it passes over; `systemd-analyze` judges that in tests/e2e/test_supervised.py.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

UNITS = (Path("/etc/systemd/system"), Path("/lib/systemd/system"))
RUNNING = Path("/run/units")  # a file with the main process's id for each unit
PATIENCE_S = 120.0
PROXIES = {"caddy": "nginx", "nginx": "caddy"}  # whoever follows the page takes one


def settings(unit: str) -> dict[str, list[str]]:
    """All values of each key of `[Service]`, those of drop-ins behind them."""
    files = [next(path for folder in UNITS if (path := folder / f"{unit}.service").exists())]
    files += sorted((UNITS[0] / f"{unit}.service.d").glob("*.conf"))
    found: dict[str, list[str]] = {}
    for file in files:
        section = ""
        for line in file.read_text().splitlines():
            if line.startswith("["):
                section = line
            elif section == "[Service]" and line and not line.startswith("#"):
                name, _, value = line.partition("=")
                found.setdefault(name, []).append(value)
    return found


def environment(told: dict[str, list[str]]) -> dict[str, str]:
    variables = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
    given = [word for line in told.get("Environment", []) for word in shlex.split(line)]
    for name in told.get("EnvironmentFile", []):
        file = Path(name.removeprefix("-"))
        if file.exists() or not name.startswith("-"):
            given += [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    return variables | dict(word.split("=", 1) for word in given)


def start(unit: str) -> None:
    told = settings(unit)
    user, group = told.get("User", ["root"])[-1], told.get("Group", ["root"])[-1]
    variables = environment(told)
    for name in told.get("StateDirectory", []):
        folder = Path("/var/lib") / name
        folder.mkdir(exist_ok=True)
        folder.chmod(int(told["StateDirectoryMode"][-1], 8))
        shutil.chown(folder, user, group)
    home = Path("~" + user).expanduser()
    variables["HOME"] = str(home)
    RUNNING.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind("\0" + unit)
        heard.settimeout(PATIENCE_S)
        if told["Type"] == ["notify"]:
            variables["NOTIFY_SOCKET"] = "@" + unit
        as_user = ["setpriv", "--reuid", user, "--regid", group, "--clear-groups"]
        with (RUNNING / f"{unit}.log").open("ab") as log:
            process = subprocess.Popen(
                [*as_user, *shlex.split(told["ExecStart"][-1])],
                cwd="/",
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if told["Type"] == ["forking"]:
            if process.wait(PATIENCE_S) != 0:
                raise SystemExit(f"{unit} ended with {process.returncode}")
            main = int(Path(told["PIDFile"][-1]).read_text())
        else:
            main = process.pid
            while b"READY=1" not in heard.recv(4096).splitlines():
                if process.poll() is not None:
                    raise SystemExit(f"{unit} ended with {process.returncode} before it was ready")
    (RUNNING / unit).write_text(str(main))


def stop(unit: str) -> None:
    file = RUNNING / unit
    if not file.exists():
        return
    main = int(file.read_text())
    with contextlib.suppress(ProcessLookupError):
        os.kill(main, signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE_S
    while Path(f"/proc/{main}").exists():  # whoever is process 1 takes those that ended
        if time.monotonic() > deadline:
            raise SystemExit(f"{unit} does not end")
        time.sleep(0.05)
    file.unlink()


def main(words: list[str]) -> None:
    match words:
        case ["daemon-reload"]:
            pass
        case ["enable", "--now", *units] | ["restart", *units]:
            for unit in units:
                stop(PROXIES.get(unit, unit))
                stop(unit)
                start(unit)
        case _:
            raise SystemExit(f"systemctl {' '.join(words)} is none that this one knows")


if __name__ == "__main__":
    main(sys.argv[1:])
