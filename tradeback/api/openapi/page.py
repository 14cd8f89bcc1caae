"""The document as it is answered: as JSON, and as a page to read it that needs no outside host."""

from __future__ import annotations

import html
from typing import Any

import orjson
from falcon import Request, Response

from tradeback.api import params
from tradeback.api.answers import entity_tag, write_tagged
from tradeback.api.openapi.document import document

CACHE = "public, max-age=60"
# Every path has them, and a reader need not be told each time.
LEFT_OUT = ("head", "options")
STYLE = (
    "body{font:15px/1.5 system-ui;max-width:60em;margin:2em auto;padding:0 1em;color-scheme:light dark}"
    "code{font-size:1.05em}li{margin:.2em 0}pre{overflow:auto}"
)


class OpenApiResource:
    """`GET /openapi.json`, and `/docs`, its page."""

    def __init__(self) -> None:
        described = document()
        self._document = orjson.dumps(described)
        self._page = page(described).encode()
        self._tags = entity_tag(self._document), entity_tag(self._page)

    def on_get(self, request: Request, response: Response) -> None:
        params.query(request, ())
        write_tagged(request, response, self._document, cache=CACHE, tag=self._tags[0])

    def on_get_page(self, request: Request, response: Response) -> None:
        params.query(request, ())
        write_tagged(
            request, response, self._page, cache=CACHE, tag=self._tags[1], kind="text/html; charset=utf-8"
        )


def page(described: dict[str, Any]) -> str:
    """The document as HTML: no script, nothing from elsewhere."""
    about = html.escape(described["info"]["description"]).replace("\n\n", "</p><p>")
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Trade-Back REST</title>'
        f"<style>{STYLE}</style><h1>Trade-Back REST</h1><p>{about}</p>"
        '<p>The same for programs: <a href="/api/v1/openapi.json">openapi.json</a></p>'
    ]
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            if method not in LEFT_OUT:
                parts.append(_operation(f"{method.upper()} {path}", operation))
    parts.append("<h2>Schemas</h2>")
    for name, schema in described["components"]["schemas"].items():
        text = html.escape(orjson.dumps(schema, option=orjson.OPT_INDENT_2).decode())
        parts.append(f'<h3 id="{name}">{name}</h3><pre>{text}</pre>')
    return "".join(parts)


def _operation(title: str, operation: dict[str, Any]) -> str:
    about = " ".join(filter(None, (operation["summary"] + ".", operation.get("description"))))
    parts = [f"<h2><code>{html.escape(title)}</code></h2><p>{html.escape(about)}</p><ul>"]
    for parameter in operation["parameters"]:
        need = ", required" if parameter["required"] else ""
        parts.append(
            f"<li><code>{parameter['name']}</code> ({parameter['in']}{need}): "
            f"{html.escape(parameter['description'])}; {_schema(parameter['schema'])}</li>"
        )
    for kind, body in operation.get("requestBody", {}).get("content", {}).items():
        parts.append(f"<li>the body, {kind}: {_schema(body['schema'])}</li>")
    if operation.get("security"):
        parts.append("<li>for whoever is logged in</li>")
    parts.append("</ul><p>Answers:</p><ul>")
    for status, answer in operation["responses"].items():
        content = " ".join(
            f"{kind} {_schema(body['schema'])}" for kind, body in answer.get("content", {}).items()
        )
        parts.append(f"<li>{status} {html.escape(answer['description'])} {content}</li>")
    return "".join([*parts, "</ul>"])


def _schema(schema: dict[str, Any]) -> str:
    inner = schema.get("items", schema)
    if "$ref" in inner:
        name = inner["$ref"].rpartition("/")[2]
        return f'{"a list of " if inner is not schema else ""}<a href="#{name}">{name}</a>'
    return f"<code>{html.escape(orjson.dumps(schema).decode())}</code>"
