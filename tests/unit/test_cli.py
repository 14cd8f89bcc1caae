"""The command table, and the commands that need no server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner, Result

from tests.conftest import CHECKOUT
from tradeback._fast.stats import Stats
from tradeback.cli import COMMANDS, main
from tradeback.commands.config import reference_page
from tradeback.config import load_config
from tradeback.errors import TradebackError


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, arguments, env=env, prog_name="tradeback")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_is_there_under_its_line(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert (command.help or "").splitlines()[0] == COMMANDS[name][1]
    assert run(name, "--help").exit_code == 0


def test_help_names_every_command_and_loads_none() -> None:
    heavy = {"pydantic", "sqlalchemy", "picows", "aiohttp", "rich", "asyncio", "orjson"}
    script = f"""
import sys
from tradeback.cli import main
main(["--help"], standalone_mode=False)
sys.exit(" ".join({heavy} & set(sys.modules)))
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.stderr.strip() == ""
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)


def test_wrong_usage_is_2() -> None:
    assert run("nonsense").exit_code == 2
    assert run("config", "check", "--nonsense").exit_code == 2


def test_an_error_is_one_sentence_and_1() -> None:
    result = run("config", "check", "--exchange", "nyse")
    assert result.exit_code == 1
    assert result.output == (
        "Error: exchange.name on the command line is 'nyse': it must be auto, binance or sim\n"
    )
    assert isinstance(result.exception, SystemExit)


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not issubclass(ZeroDivisionError, TradebackError)
    monkeypatch.setattr("tradeback.commands.config.notices", lambda _: 1 // 0)
    assert isinstance(run("config", "check").exception, ZeroDivisionError)


class TestConfig:
    def test_check(self, tmp_path: Path) -> None:
        result = run("config", "check", env={"WS_PROT": "1"})
        assert result.exit_code == 0
        assert result.stdout == "The configuration is valid.\n"
        assert "WS_PROT is no setting and has no effect: did you mean WS_PORT?" in result.stderr

    def test_print_shows_what_counts(self, tmp_path: Path) -> None:
        path = tmp_path / "c.yaml"
        path.write_text("server: {port: 1234}\ndatabase: {mysql: {password: hush}}")
        result = run("config", "print", "--config", str(path), "--data-dir", "/x", env={"WS_PORT": "99"})
        shown = yaml.safe_load(result.stdout)
        assert (shown["server"]["port"], shown["server"]["ws_port"]) == (1234, 99)
        assert shown["data"]["folder"] == "/x"
        assert shown["database"]["mysql"]["password"] == "***"
        assert shown["cache"]["redis"]["password"] == ""
        assert "hush" not in result.output

    def test_what_is_printed_can_be_loaded(self, tmp_path: Path) -> None:
        environ = {"EXCHANGE_SYMBOLS": "BTCUSDT", "SERVER_SPIN": "full", "WS_BLOCKED_LIMIT": "1500us"}
        path = tmp_path / "c.yaml"
        path.write_text(run("config", "print", "--exchange", "sim", env=environ).stdout)
        expected = load_config(environ=environ, flags={"exchange.name": "sim"})
        assert load_config(path, environ={}) == expected

    def test_metrics_doc_is_the_reference_page(self) -> None:
        page = (CHECKOUT / "docs" / "metrics.md").read_text()
        assert run("metrics", "doc").stdout == page, (
            "docs/metrics.md is old: tradeback metrics doc > docs/metrics.md"
        )

    def test_metrics_are_printed_of_the_exchange_that_something_runs_on(self, tmp_path: Path) -> None:
        asked = ("metrics", "print", "--data-dir", str(tmp_path))
        none = run(*asked, "--exchange", "auto")
        assert none.exit_code == 1
        assert f"no process has counted anything in {tmp_path}/binance/stats or {tmp_path}/sim" in none.stderr
        ended = Stats.create(tmp_path / "binance" / "stats" / "server", "server")
        ended.put("clients", 1)
        ended.close()
        assert 'tradeback_up{process="server"} 0.0' in run(*asked, "--exchange", "auto").stdout
        runs = Stats.create(tmp_path / "sim" / "stats" / "server", "server")
        runs.put("clients", 2)
        told = run(*asked, "--exchange", "auto").stdout
        assert 'tradeback_up{process="server"} 1.0' in told
        assert "tradeback_server_clients 2.0" in told
        assert "tradeback_server_clients 1.0" in run(*asked, "--exchange", "binance").stdout
        runs.close()

    def test_doc_is_the_reference_page(self) -> None:
        assert run("config", "doc").stdout == reference_page()
        assert (CHECKOUT / "docs" / "configuration.md").read_text() == reference_page(), (
            "docs/configuration.md is old: tradeback config doc > docs/configuration.md"
        )
