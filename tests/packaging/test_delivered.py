"""What is handed out: the source distribution, the wheel that is built from it, and what a clean environment with that
wheel alone can do.

Everything is compiled once more, which takes minutes; it is done once for all of these tests.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT
from tests.documents.blocks import commands
from tests.e2e.api import ask
from tests.e2e.child import SIM_EXCHANGE
from tests.e2e.running import Up

pytestmark = pytest.mark.timeout(900)
WEB = "tradeback/web/"
# How this machine reaches its registry; for the rest pip does as for anybody.
FOR_REGISTRY = ("PIP_CACHE_DIR", "PIP_DEFAULT_TIMEOUT", "PIP_RETRIES")
DOWNLOADS = 3  # a download that fails is no failure of ours
NOT_DOWNLOADED = re.compile(
    r"No matching distribution|Connection|[Tt]imed? ?out|IncompleteRead|HTTP ?[Ee]rror"
)
HERE = Path(__file__).resolve().parent
INSTALLING = "docs/howto/install.md"
NAMESPACES = ["unshare", "--mount", "--net", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child"]
DEBIANS_PYTHON = "/usr/bin/python3"


@dataclass(frozen=True)
class Delivered:
    """Both archives, and the names in them as they would lie in a checkout."""

    sdist: Path
    wheel: Path
    in_sdist: frozenset[str]
    in_wheel: frozenset[str]


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Delivered:
    if not (CHECKOUT / ".git").exists():
        pytest.skip("no checkout: git names the files that must be delivered")
    folder = tmp_path_factory.mktemp("delivered")
    script = f"from setuptools.build_meta import build_sdist; build_sdist({str(folder)!r})"
    ran(sys.executable, "-c", script, cwd=CHECKOUT)
    (sdist,) = folder.glob("*.tar.gz")
    # As a user's pip does it: what it needs to build is what pyproject.toml says, nothing of this environment.
    pip = (sys.executable, "-m", "pip")
    downloaded(*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, sdist, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    with tarfile.open(sdist) as archive:
        in_sdist = frozenset(name.partition("/")[2] for name in archive.getnames())
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = frozenset(archive.namelist())
    return Delivered(sdist, wheel, in_sdist, in_wheel)


@pytest.fixture(scope="module")
def installed(delivered: Delivered, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment that has the wheel and what it says that it needs."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=True)
    downloaded(folder / "bin" / "pip", "install", "--quiet", delivered.wheel, cwd=folder)
    return folder / "bin"


def ran(*command: str | Path, cwd: Path, **environment: str) -> str:
    """What it printed; it must succeed. No setting of the tests reaches it but the exchange."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", *FOR_REGISTRY) if name in os.environ}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**inherited, "TRADEBACK_EXCHANGE": "sim", "PIP_DISABLE_PIP_VERSION_CHECK": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def downloaded(*command: str | Path, cwd: Path) -> None:
    """A command of pip, which has further tries where what it asks for does not come."""
    for left in reversed(range(DOWNLOADS)):
        try:
            ran(*command, cwd=cwd)
        except AssertionError as failed:
            if not left or not NOT_DOWNLOADED.search(str(failed)):
                raise
        else:
            return


def product(*suffixes: str) -> set[str]:
    """Tracked files of the package."""
    listing = ran("git", "ls-files", "tradeback", cwd=CHECKOUT)
    return {name for name in listing.splitlines() if Path(name).suffix in suffixes}


def built_page() -> set[str]:
    """Files of the page as `make build` left it."""
    built = CHECKOUT / WEB / "dist"
    files = {path.relative_to(CHECKOUT).as_posix() for path in built.rglob("*") if path.is_file()}
    assert files, "the page was not built: run `make build` where the packages of npm can be had"
    return files


def test_the_source_distribution_is_complete(delivered: Delivered) -> None:
    sources = product(".py", ".pyx", ".pxd", ".pyi", ".h", ".js", ".css", ".html", ".json", ".svg")
    assert not (sources | built_page()) - delivered.in_sdist
    assert not {name for name in delivered.in_sdist if "node_modules" in name or name.endswith(".so")}


def test_the_wheel_has_what_a_run_needs_and_nothing_else(delivered: Delivered) -> None:
    page = built_page()
    wanted = {name for name in product(".py", ".pxd", ".pyi", ".typed") if not name.startswith(WEB)} | page
    assert not wanted - delivered.in_wheel
    compiled = {name.split(".")[0] for name in delivered.in_wheel if name.endswith(".so")}
    assert compiled == {name.removesuffix(".pyx") for name in product(".pyx")}
    assert not {name for name in delivered.in_wheel if name.startswith(("tests", "bench"))}
    assert not {name for name in delivered.in_wheel if name.startswith(WEB)} - page
    assert not {name for name in delivered.in_wheel if name.endswith((".c", ".pyx"))}


def test_commands_of_a_clean_environment(installed: Path, tmp_path: Path) -> None:
    def tradeback(*arguments: str) -> str:
        return ran(installed / "tradeback", *arguments, cwd=tmp_path, DATA_DIR=str(tmp_path))

    assert "0.1.0" in tradeback("--version")
    assert "up" in tradeback("--help")
    tradeback("config", "check")
    ran(installed / "pip", "check", cwd=tmp_path)


def test_one_command_from_there_ends_with_a_page_and_bars(installed: Path, tmp_path: Path) -> None:
    """Also where a folder named `tradeback` lies in the current one."""
    shadow = tmp_path / "tradeback" / "__init__.py"
    shadow.parent.mkdir()
    shadow.write_text("raise SystemExit('not this one')\n")
    data = tmp_path / "data"
    data.mkdir()
    program = (str(installed / "tradeback"),)
    with Up(data, "--sim-symbols", "5", program=program, cwd=tmp_path) as up:
        address, login = up.await_login()
        assert "demo" in login
        port = int(address.rstrip("/").rpartition(":")[2])
        page = ask(port, "/")
        assert page.status == 200
        assert b"<script" in page.body
        deadline = time.monotonic() + 300
        while not ask(port, "/api/v1/symbols/BTCUSDT/bars?resolution=1m").json["bars"]:
            assert time.monotonic() < deadline, "no bar of BTCUSDT was stored"
            time.sleep(0.05)
        watched = ran(
            installed / "tradeback", "watch", "BTCUSDT", "--count", "3", "--url", up.websocket, cwd=tmp_path
        )
        assert "BTCUSDT" in watched
        assert up.stop() == 0


def test_the_page_on_installing_leads_to_one_that_serves(delivered: Delivered, tmp_path: Path) -> None:
    """Typed as root on a machine that has this one's programs, and files, network and processes of its own."""
    for program in ("unshare", "ip", "runuser", "setpriv", "caddy", "nginx"):
        if shutil.which(program) is None:
            pytest.skip(f"no program {program} here, and docs/howto/install.md is not followed")
    if os.geteuid() != 0 or subprocess.run([*NAMESPACES, "true"], capture_output=True).returncode != 0:
        pytest.skip("docs/howto/install.md is not followed here: it needs root, and namespaces of its own")
    version = [DEBIANS_PYTHON, "-c", "import ensurepip, sys; print(sys.version_info[:2])"]
    told = subprocess.run(version, capture_output=True, text=True, check=False).stdout.strip()
    if told != str(sys.version_info[:2]):
        pytest.skip(
            f"the wheel is for Python {sys.version_info[:2]}, and {DEBIANS_PYTHON} is {told or 'none'}"
        )
    # There is no network: what the wheel needs is here before, for the very Python that installs it.
    wheels = tmp_path / "wheels"
    ran(DEBIANS_PYTHON, "-m", "venv", tmp_path / "first", cwd=tmp_path)
    pip = tmp_path / "first" / "bin" / "pip"
    ran(pip, "download", "--quiet", "--dest", wheels, delivered.wheel, cwd=tmp_path)
    for name in ("bin", "home", "layers", "there/dist"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "there" / "deploy").symlink_to(CHECKOUT / "deploy")
    shutil.copy(delivered.wheel, tmp_path / "there" / "dist")
    shutil.copy(CHECKOUT / "tests" / "localhost.pem", tmp_path)
    systemctl = tmp_path / "bin" / "systemctl"
    systemctl.write_text(f"#!{sys.executable}\n{(HERE / 'systemctl.py').read_text()}")
    systemctl.chmod(0o755)
    (tmp_path / "home" / ".curlrc").write_text("insecure\nsilent\nshow-error\n")
    settings = {**SIM_EXCHANGE, "EXCHANGE_SYMBOLS": "BTCUSDT"}
    (tmp_path / "environment").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    typed = [
        command for command in commands(INSTALLING) if not command.startswith(("make ", ".venv/", "apt-get "))
    ]
    served = "curl --fail --retry 60 --retry-all-errors --retry-delay 1 https://localhost/api/v1/symbols/BTCUSDT/price"
    # And through the proxy alone: at another address of this machine nobody listens.
    looks = [served, *(f"! curl --max-time 10 http://127.0.0.2:{port}/health" for port in (8080, 8081))]
    (tmp_path / "commands").write_text("".join(f"{command}\n" for command in [*typed, *looks]))
    done = subprocess.run(
        [*NAMESPACES, "bash", HERE / "machine.sh", tmp_path],
        env={
            **{name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ},
            **SIM_EXCHANGE,
            "TRADEBACK_HERE": str(Path(sys.executable).with_name("tradeback")),
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(wheels),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for said in ("server answers", "recorder answers", "api answers"):
        assert said in done.stdout
    assert done.stdout.count('"status":"ok"') == 2  # through Caddy, then through nginx
    assert '"symbol":"BTCUSDT"' in done.stdout.rpartition(served)[2]


def test_wheels_are_built_for_each_python_and_both_machines() -> None:
    """By cibuildwheel's own reading of its settings; what it builds in needs a container engine."""
    told = ran(
        Path(sys.executable).with_name("cibuildwheel"),
        *("--platform", "linux", "--print-build-identifiers", str(CHECKOUT)),
        cwd=CHECKOUT,
    )
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11,<3.14"
    pythons = ("cp311", "cp312", "cp313")
    machines = ("x86_64", "aarch64")
    assert sorted(told.split()) == sorted(
        f"{python}-manylinux_{machine}" for python in pythons for machine in machines
    )
