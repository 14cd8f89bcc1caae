"""docs/tutorial.md, word for word, as far as the chart in the browser."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser.conftest import SCREENSHOTS
from tests.documents.blocks import commands
from tests.documents.chart import see_the_chart
from tests.documents.stage import PATIENCE_S, Stage
from tests.servers.server import free_port

pytestmark = pytest.mark.timeout(300)
SIM_PORT = 9443


def test_the_tutorial_ends_with_a_chart(browser: Browser, tmp_path: Path) -> None:
    with socket.socket() as one:
        if one.connect_ex(("127.0.0.1", SIM_PORT)) == 0:
            pytest.skip(f"something else listens at port {SIM_PORT}, which `make run` takes")
    assert "make run" in commands("docs/tutorial.md")
    stage = Stage(tmp_path)
    rest, websocket = str(free_port()), str(free_port())
    environment = {**stage.environment, "SERVER_PORT": rest, "WS_PORT": websocket}
    with (tmp_path / "make.log").open("w") as log:
        make = subprocess.Popen(
            ["make", "run"],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    assert make.stdout is not None
    try:
        said = ""
        while (login := re.search(r"Log in as (\S+) with the password (\S+)", said)) is None:
            line = make.stdout.readline()
            assert line, (said, (tmp_path / "make.log").read_text())
            said += line
        address = re.search(r"^Open (\S+)$", said, re.MULTILINE)
        assert address is not None
        see_the_chart(browser, address[1], login[1], login[2], SCREENSHOTS / "tutorial.png")
    finally:
        os.killpg(make.pid, signal.SIGINT)
        make.stdout.read()
        make.stdout.close()
        make.wait(PATIENCE_S)
