"""Every command of the documentation is typed, page by page and in order, beside a running `tradeback up`.

Those that cannot be are named here, with what checks them instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT
from tests.documents.blocks import PAGES, commands
from tests.documents.stage import Stage, await_price
from tests.e2e.running import Up

ELSEWHERE = {
    r"apt-get install .*": ".ci/run installs the same packages on a machine that lacks them",
    r"make run": "tests/browser/test_tutorial.py types it; here `up` runs already",
    r"make (build|check|test|services|chaos|soak|bench|docs)( .*)?": "what runs this, runs it; the rest takes too long",
    r"(sh deploy/make_secrets\.sh|docker .*)": "needs a container engine: tests/image_walk.py walks the Dockerfile's "
    "steps, and the compose file is held against its schema",
    r"python3 tests/image_walk\.py": ".ci/run runs it, as root",
    r"tradeback migrate copy": "needs MySQL: tests/store/test_migrations.py runs it",
    r"nats .*": "tests/e2e/test_bus_commands.py types them where that program is, which no package brings",
    r".*/cibuildwheel .*|.*build_sdist.*": "tests/packaging builds the sdist and reads cibuildwheel's settings",
}
# Pages that are about the whole of a machine.
PAGES_ELSEWHERE = {
    "docs/howto/install.md": "tests/packaging/test_delivered.py types it as root on a machine of its own"
}
ENDLESS = re.compile(r"(\.venv/bin/)?tradeback (watch|tail|sim)\b(?!.*--help).*")
ASKING = re.compile(r"(\.venv/bin/)?tradeback user (add|passwd) \w+( --pattern \S+)*")
# What a page says that the reader has done before.
BEFORE = {
    "docs/client-python.md": [
        "tradeback user add ann",
        'curl --fail -c jar --json \'{"username":"ann","password":"correct horse"}\' '
        "http://127.0.0.1:8080/api/v1/auth/login",
        "curl --fail -b jar -X POST http://127.0.0.1:8080/api/v1/marketwatch/BTCUSDT",
    ],
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Up, str]]:
    """All of it, and the address to open."""
    with Up(tmp_path_factory.mktemp("up"), "--sim-symbols", "20", "--sim-rate", "500") as up:
        address, _ = up.await_login()
        await_price(address)
        yield up, address


def type_in(stage: Stage, command: str) -> None:
    if any(re.fullmatch(pattern, command) for pattern in ELSEWHERE):
        return
    if ENDLESS.fullmatch(command):
        stage.run_until_ctrl_c(command)
    elif ASKING.fullmatch(command):
        stage.run_with_password(command)
    else:
        stage.run(command)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page) and page not in PAGES_ELSEWHERE])
def test_every_command_runs(page: str, running: tuple[Up, str], tmp_path: Path) -> None:
    if not (CHECKOUT / ".venv" / "bin" / "tradeback").exists():
        pytest.skip("not built by make: there is no .venv")
    stage = Stage(tmp_path, *running)
    for command in [*BEFORE.get(page, []), *commands(page)]:
        type_in(stage, command)


def test_what_is_checked_elsewhere_is_still_there() -> None:
    every = [command for page in PAGES for command in commands(page)]
    assert set(PAGES_ELSEWHERE) <= set(PAGES)
    for pattern in [*ELSEWHERE, ENDLESS, ASKING]:
        assert any(re.fullmatch(pattern, command) for command in every), pattern
