"""A real nginx with the very files of deploy/nginx; only addresses and folders are those of the test."""

from __future__ import annotations

import os
import ssl
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import ClassVar

from tests.servers.server import START_TIMEOUT, RealServer, accepts, free_port

CHECKOUT = Path(__file__).resolve().parent.parent.parent
CONFIGURATION = CHECKOUT / "deploy" / "nginx"
CERTIFICATE = CHECKOUT / "tests" / "localhost.pem"  # with its key


class NginxServer(RealServer):
    """In front of an API and an event server: plain HTTP on `port`, with tls.conf HTTPS on `tls_port`."""

    PROGRAM: ClassVar[str] = "nginx"
    HOW_TO_GET: ClassVar[str] = "apt-get install -y --no-install-recommends nginx-light"

    def __init__(self, folder: Path, api_port: int, ws_port: int, server: str = "plain") -> None:
        self.api_port, self.ws_port, self.server = api_port, ws_port, server
        self.tls_port = free_port()
        super().__init__(folder)

    @property
    def environment(self) -> dict[str, str]:
        """None is needed but that it is believed."""
        return {"SERVER_TRUSTED_PROXIES": "127.0.0.1"}

    def prepare(self) -> None:
        """Each replacement must find its text: what the image is given is what is tried here."""
        replaced = {
            "nginx.conf": {
                "server api:8080;": f"server 127.0.0.1:{self.api_port};",
                "server server:8081;": f"server 127.0.0.1:{self.ws_port};",
                "/tmp/": f"{self.folder}/",
                "/dev/stdout": f"{self.folder}/access.log",
            },
            "locations.conf": {},
            "forwarded.conf": {},
            f"{self.server}.conf": {"listen 8080 ": f"listen 127.0.0.1:{self.port} "},
        }
        if self.server == "tls":
            replaced["tls.conf"] |= {
                "listen 8443 ": f"listen 127.0.0.1:{self.tls_port} ",
                "/run/secrets/tls_certificate": str(CERTIFICATE),
                "/run/secrets/tls_key": str(CERTIFICATE),
            }
        for name, changes in replaced.items():
            text = (CONFIGURATION / name).read_text()
            for old, new in changes.items():
                assert old in text, f"{name} has no {old}"
                text = text.replace(old, new)
            (self.folder / ("server.conf" if name == f"{self.server}.conf" else name)).write_text(text)
        program = self.program()
        assert program is not None, self.HOW_TO_GET
        tested = subprocess.run(
            [*self.command(program), "-t"], capture_output=True, text=True, check=False, timeout=START_TIMEOUT
        )
        assert tested.returncode == 0, tested.stderr
        assert "warn" not in tested.stderr, tested.stderr

    def command(self, program: str) -> list[str]:
        # Its processes are the user's who started it, as in the container; to root it must be said.
        user = "user root; " if os.geteuid() == 0 else ""
        words = ["-c", str(self.folder / "nginx.conf"), "-p", str(self.folder)]
        return [program, *words, "-e", "stderr", "-g", f"{user}daemon off;"]

    def answers(self) -> bool:
        return accepts(self.port)

    def kill(self) -> None:
        """SIGTERM: its workers would outlive it if it were killed."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def accessed(self) -> str:
        """All of its access log."""
        return (self.folder / "access.log").read_text()

    def https(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """A GET by HTTPS: status, headers by lower-case name, body."""
        trusted = ssl.create_default_context(cafile=CERTIFICATE)
        with urllib.request.urlopen(f"https://localhost:{self.tls_port}{path}", context=trusted) as answer:
            return answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read()
