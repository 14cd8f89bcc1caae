"""A real MariaDB 10.11, which stands in for MySQL 8: that one has no package here."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import mysql.connector

from tests.servers.server import START_TIMEOUT, RealServer


class MariadbServer(RealServer):
    """`mariadbd` with an empty database `trading` and its user. It is set up unlike our defaults: in another time zone,
    in latin1, as if it served others too."""

    PROGRAM: ClassVar[str] = "mariadbd"
    HOW_TO_GET: ClassVar[str] = "apt-get install -y --no-install-recommends mariadb-server"
    DATABASE: ClassVar[str] = "trading"
    USER: ClassVar[str] = "trading"
    PASSWORD: ClassVar[str] = "password of the tests"

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._numbers = itertools.count(1)
        super().__init__(folder, *arguments)
        self.run(f"CREATE USER '{self.USER}'@'%' IDENTIFIED BY '{self.PASSWORD}'")
        self.new_database(self.DATABASE)

    @classmethod
    def program(cls) -> str | None:
        """Its path, also where only root has it on the PATH."""
        return shutil.which(cls.PROGRAM) or shutil.which(cls.PROGRAM, path="/usr/sbin")

    @property
    def environment(self) -> dict[str, str]:
        return self.environment_of(self.DATABASE)

    def environment_of(self, database: str) -> dict[str, str]:
        """The settings with which Trade-Back uses one of its databases."""
        return {
            "MYSQL_HOST": "127.0.0.1",
            "MYSQL_PORT": str(self.port),
            "MYSQL_DATABASE": database,
            "MYSQL_USER": self.USER,
            "MYSQL_PASSWORD": self.PASSWORD,
        }

    def prepare(self) -> None:
        # One that starts deletes the temporary tables of all others in the folder that it has for them.
        temporary = self.folder / "tmp"
        temporary.mkdir()
        done = subprocess.run(
            [
                *("mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={self.folder / 'data'}"),
                *("--auth-root-authentication-method=normal", "--skip-test-db", "--innodb-log-file-size=8M"),
            ],
            check=False,
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT,
            env={**os.environ, "TMPDIR": str(temporary)},
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def command(self, program: str) -> list[str]:
        return [
            *(program, "--no-defaults", "--user=root", f"--datadir={self.folder / 'data'}"),
            *(f"--tmpdir={self.folder / 'tmp'}", f"--socket={self.folder / 's'}"),
            *(f"--port={self.port}", "--bind-address=127.0.0.1"),
            *("--skip-log-bin", "--character-set-server=latin1", "--default-time-zone=+05:30"),
            *("--innodb-flush-log-at-trx-commit=2", "--skip-name-resolve"),
        ]

    def answers(self) -> bool:
        try:
            return self.run("SELECT 1") == [(1,)]
        except mysql.connector.Error:
            return False

    @contextmanager
    def root(self, database: str = "") -> Iterator[Any]:
        """A cursor of the server's root, each statement a transaction of its own."""
        connection = mysql.connector.connect(
            host="127.0.0.1",
            port=self.port,
            user="root",
            database=database,
            charset="utf8mb4",
            collation="utf8mb4_bin",
            autocommit=True,
            connection_timeout=60,
        )
        try:
            with connection.cursor() as cursor:
                yield cursor
        finally:
            connection.close()

    def run(self, statement: str, *parameters: Any, database: str = "") -> list[tuple[Any, ...]]:
        """What a statement answers, as root."""
        with self.root(database) as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall() if cursor.with_rows else []

    def new_database(self, name: str = "") -> str:
        """The name of an empty database that the user may do anything in."""
        name = name or f"trading_{next(self._numbers)}"
        self.run(f"CREATE DATABASE {name}")
        self.run(f"GRANT ALL ON {name}.* TO '{self.USER}'@'%'")
        return name
