"""`tradeback health` on real processes: that live, hang, have ended, or are somebody else's."""

from __future__ import annotations

import http.server
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.e2e.api import ApiProcess
from tests.e2e.running import RecorderProcess, ServerProcess, SimProcess
from tradeback.cli import main
from tradeback.commands import health


@dataclass(frozen=True)
class There:
    folder: Path
    server: ServerProcess
    recorder: RecorderProcess
    api: ApiProcess

    def health(self, *names: str, **environment: str) -> Result:
        known = {
            "DATA_DIR": str(self.folder),
            "TRADEBACK_EXCHANGE": "sim",
            "SERVER_HOST": "0.0.0.0",
            "SERVER_PORT": str(self.api.port),
        }
        return CliRunner().invoke(main, ["health", *names], env={**known, **environment})


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[There]:
    folder = tmp_path_factory.mktemp("health")
    with (
        SimProcess("--symbols", "1", "--paused") as sim,
        ServerProcess(folder, sim) as server,
        RecorderProcess(folder, sim) as recorder,
        ApiProcess(folder) as api,
    ):
        yield There(folder, server, recorder, api)


def test_all_live_whatever_the_exchange_is_called(there: There) -> None:
    for exchange in ("sim", "auto"):
        done = there.health(TRADEBACK_EXCHANGE=exchange)
        assert (done.exit_code, done.output) == (0, "server answers\nrecorder answers\napi answers\n")


def test_one_that_hangs_does_not_live(there: There, monkeypatch: pytest.MonkeyPatch) -> None:
    there.recorder.process.send_signal(signal.SIGSTOP)
    try:
        with monkeypatch.context() as impatient:
            # Of this one alone: who does answer may take longer on a busy machine.
            impatient.setattr(health, "TIMEOUT", 0.5)
            done = there.health("recorder")
        assert done.exit_code == 1
        assert "recorder.sock did not answer: TimeoutError; see that its process runs" in done.output
        assert there.health("server", "api").exit_code == 0
    finally:
        there.recorder.process.send_signal(signal.SIGCONT)
    assert there.health("recorder").exit_code == 0


def test_nobody_there(there: There, tmp_path: Path) -> None:
    done = there.health("server", DATA_DIR=str(tmp_path))
    assert done.exit_code == 1
    assert "nobody listens at" in done.output
    done = there.health("api", SERVER_PORT="1")
    assert done.exit_code == 1
    assert "the API does not answer at 127.0.0.1, port 1" in done.output


def test_another_program_on_the_port_of_the_api_is_not_the_api(there: There) -> None:
    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"status":"fine"}')

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Other) as other:
        thread = threading.Thread(target=other.handle_request)
        thread.start()
        done = there.health("api", SERVER_PORT=str(other.server_address[1]))
        thread.join()
    assert done.exit_code == 1
    assert "with 200 is not the API: see SERVER_PORT" in done.output


def test_a_process_that_is_none_is_refused(there: There) -> None:
    assert there.health("nginx").exit_code == 2
