"""Passwords with every sign that URLs, DSNs, shells and SQL take for their own: by file, to real servers."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner

from tests.conftest import private
from tests.servers.mariadb import MariadbServer
from tests.servers.redis import RedisServer
from tests.store.conftest import PATIENT
from tests.unit.test_config_files import HARD
from tradeback.cli import main
from tradeback.config import load_config
from tradeback.store.cache_redis import connection_pool

WRONG = HARD.replace("é", "e")


@pytest.fixture
def files(tmp_path: Path) -> Mapping[str, str]:
    """A file with the password and one with a wrong one, by name."""
    for name, content in (("right", HARD), ("wrong", WRONG)):
        (tmp_path / name).write_text(f"{content}\n")
    return {name: str(tmp_path / name) for name in ("right", "wrong")}


def test_of_mysql(mariadb_server: MariadbServer, files: Mapping[str, str]) -> None:
    database = "p@ss/w:o%r"
    with mariadb_server.root() as cursor:
        cursor.execute(f"CREATE DATABASE `{database}`")
        cursor.execute("CREATE USER %s@'%%' IDENTIFIED BY %s", ("h@rd/us:er%", HARD))
        cursor.execute("GRANT ALL ON `p@ss/w:o%%r`.* TO %s@'%%'", ("h@rd/us:er%",))
    settings = {**mariadb_server.environment, "MYSQL_DATABASE": database, "MYSQL_USER": "h@rd/us:er%"}
    del settings["MYSQL_PASSWORD"]
    settings |= {"TRADEBACK_EXCHANGE": "sim", **PATIENT}
    done = CliRunner().invoke(main, ["migrate", "up"], env=settings | {"MYSQL_PASSWORD_FILE": files["right"]})
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(
        main, ["migrate", "status"], env=settings | {"MYSQL_PASSWORD_FILE": files["wrong"]}
    )
    assert done.exit_code == 1
    assert WRONG not in done.output
    assert HARD not in done.output


def test_of_redis(tmp_path: Path, files: Mapping[str, str]) -> None:
    configuration = tmp_path / "redis.conf"
    quoted = HARD.replace("\\", "\\\\").replace('"', '\\"')
    configuration.write_text(f'requirepass "{quoted}"\n')

    class Protected(RedisServer):
        def command(self, program: str) -> list[str]:
            first, *words = super().command(program)
            return [first, str(configuration), *words]

    with private(Protected, tmp_path / "redis") as server:

        def ping(name: str) -> None:
            environ = {**server.environment, "REDIS_TIMEOUT": "30s", "REDIS_PASSWORD_FILE": files[name]}
            with closing(connection_pool(load_config(environ=environ).cache.redis)) as pool:
                redis.Redis(connection_pool=pool).ping()

        ping("right")
        with pytest.raises(redis.AuthenticationError):
            ping("wrong")
