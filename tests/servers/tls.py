"""The four services over TLS alone, and authorities that sign for them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

from tests.servers.influx import InfluxServer
from tests.servers.mariadb import MariadbServer
from tests.servers.nats import NatsServer
from tests.servers.redis import RedisServer
from tests.servers.server import accepts

ELSEWHERE = "elsewhere.example"


class Certificates:
    """An authority that signed a certificate `right` for this machine, one `wrong` for another name, and one `old` that
    has run out; and an authority `other`. All are files in `folder`; those of servers hold their key too."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ours, other = trustme.CA(), trustme.CA()
        ours.cert_pem.write_to_path(str(self.authority))
        other.cert_pem.write_to_path(str(self.other))
        self._write("right", ours.issue_cert("127.0.0.1", "localhost"))
        self._write("wrong", ours.issue_cert(ELSEWHERE))
        yesterday = datetime.now(UTC) - timedelta(days=1)
        self._write("old", ours.issue_cert("127.0.0.1", not_after=yesterday))

    def _write(self, name: str, certificate: trustme.LeafCert) -> None:
        certificate.private_key_and_cert_chain_pem.write_to_path(str(self.of(name)))

    @property
    def authority(self) -> Path:
        return self.folder / "authority.pem"

    @property
    def other(self) -> Path:
        return self.folder / "other.pem"

    def of(self, name: str) -> Path:
        """A server's certificate, with its key."""
        return self.folder / f"{name}.pem"


class TlsRedis(RedisServer):
    """`arguments[0]` is the file of certificate and key; so for all that follow."""

    def __init__(self, folder: Path, certificate: Path, *arguments: str) -> None:
        words = ("--tls-cert-file", "--tls-key-file")
        self._tls = [word for name in words for word in (name, str(certificate))]
        super().__init__(folder, *arguments)

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | {"REDIS_TLS": "true", "REDIS_TIMEOUT": "10s"}

    def command(self, program: str) -> list[str]:
        # Of two that are given of a word the last counts.
        ports = ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"]
        return [*super().command(program), *ports, *self._tls]

    def answers(self) -> bool:
        return accepts(self.port)


class TlsMariadb(MariadbServer):
    """It takes connections without TLS too, as MySQL and MariaDB do where they are not told otherwise."""

    def __init__(self, folder: Path, certificate: Path, *arguments: str) -> None:
        super().__init__(folder, f"--ssl-cert={certificate}", f"--ssl-key={certificate}", *arguments)

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | {"MYSQL_TLS": "true"}


class TlsNats(NatsServer):
    def __init__(self, folder: Path, certificate: Path, *arguments: str) -> None:
        super().__init__(
            folder, "--tls", "--tlscert", str(certificate), "--tlskey", str(certificate), *arguments
        )

    @property
    def url(self) -> str:
        return f"tls://127.0.0.1:{self.port}"


class TlsInflux(InfluxServer):
    """Set up in plain HTTP, and started again with TLS."""

    def __init__(self, folder: Path, certificate: Path, *arguments: str) -> None:
        self._scheme = "http"
        super().__init__(folder, *arguments)
        self.kill()
        self._scheme = "https"
        self.arguments = (*arguments, "--tls-cert", str(certificate), "--tls-key", str(certificate))
        self.start()

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def answers(self) -> bool:
        return super().answers() if self._scheme == "http" else accepts(self.port)
