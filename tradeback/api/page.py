"""The page at `/`: what `make build` made of `tradeback/web`, read once and answered from memory.

Only files that were there at the start are answered, by their names: no path is ever made of what a request says.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from falcon import Request

from tradeback.api.answers import Answer, Refused, entity_tag, write_tagged
from tradeback.api.origin import Network, trusts

DIST = Path(__file__).resolve().parent.parent / "web" / "dist"
# A name with a hash of the content in it means the same content for ever; any other is to be asked for again.
HASHED, NAMED = "public, max-age=31536000, immutable", "no-cache"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
INDEX = "index.html"
PORT_IS_TOLD = b'<meta name="websocket-port" content="">'
NOT_BUILT = b"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Trade-Back</title>
<h1>The page was not built</h1>
<p>Everything else works: <a href="/api/v1/docs">the API's description</a>. For the page run <code>make build</code>
where the packages of npm can be had, and start Trade-Back again.</p></html>
"""
_HOST = re.compile(r"[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]")


@dataclass(frozen=True, slots=True)
class File:
    """One file, as it is and in gzip, each with its entity tag."""

    kind: str
    plain: bytes
    packed: bytes
    plain_tag: str
    packed_tag: str

    @classmethod
    def of(cls, kind: str, content: bytes) -> File:
        packed = gzip.compress(content, mtime=0)
        return cls(kind, content, packed, entity_tag(content), entity_tag(packed))

    def write(self, request: Request, response: Answer, cache: str) -> None:
        """It as the answer, in the form that the client takes."""
        response.append_header("Vary", "Accept-Encoding")
        if _takes_gzip(request):
            write_tagged(request, response, self.packed, cache=cache, tag=self.packed_tag)
            response.set_header("Content-Encoding", "gzip")
        else:
            write_tagged(request, response, self.plain, cache=cache, tag=self.plain_tag)
        if response.data is None:
            response.delete_header("Content-Type")  # 304: there is no content
        else:
            response.content_type = self.kind


class PageResource:
    """`GET /`, the files beside it and its assets.

    `port` is the one that this API is asked on where no proxy stands before it: only then is the WebSocket on
    another port, `ws_port`, which the page and its Content-Security-Policy are told. Else it is where the page is, as
    it is for whoever comes by a proxy of `trusted`, on whatever port that one listens.
    """

    def __init__(self, port: int, ws_port: int, dist: Path = DIST, trusted: Sequence[Network] = ()) -> None:
        self._port = port
        self._ws_port = ws_port
        self._trusted = trusted
        contents = {
            path.relative_to(dist).as_posix(): path.read_bytes()
            for path in sorted(dist.rglob("*"))
            if path.is_file() and path.suffix in KINDS
        }
        index = contents.pop(INDEX, NOT_BUILT)
        told = PORT_IS_TOLD.replace(b'""', b'"%d"' % ws_port)
        self._index = File.of(KINDS[".html"], index)
        self._direct_index = File.of(KINDS[".html"], index.replace(PORT_IS_TOLD, told))
        self._files = {name: File.of(KINDS[Path(name).suffix], body) for name, body in contents.items()}

    def routes(self) -> list[tuple[str, Any, str | None]]:
        """What to add to the table of routes."""
        beside = [(f"/{name}", self, "beside") for name in self._files if "/" not in name]
        return [("/", self, None), *beside, ("/assets/{name}", self, "asset")]

    def on_get(self, request: Request, response: Answer) -> None:
        direct = request.port == self._port and not trusts(self._trusted, request.remote_addr or "")
        host = f"[{request.host}]" if ":" in request.host else request.host
        other = f" ws://{host}:{self._ws_port}" if direct and _HOST.fullmatch(host) else ""
        (self._direct_index if direct else self._index).write(request, response, NAMED)
        response.set_header(
            "Content-Security-Policy",
            f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'{other}; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        )

    def on_get_beside(self, request: Request, response: Answer) -> None:
        self._files[request.path.removeprefix("/")].write(request, response, NAMED)

    def on_get_asset(self, request: Request, response: Answer, name: str) -> None:
        file = self._files.get(f"assets/{name}")
        if file is None:
            raise Refused(404, "not_found", "The page has no such file; open / again.")
        file.write(request, response, HASHED)


def _takes_gzip(request: Request) -> bool:
    """Whether the client takes gzip. Who refuses it by a weight of zero is understood too."""
    for one in (request.get_header("Accept-Encoding") or "").split(","):
        coding, _, weight = one.partition(";")
        if coding.strip().lower() == "gzip":
            return not re.fullmatch(r"\s*q=0(\.0*)?\s*", weight)
    return False
