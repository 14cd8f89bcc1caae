"""The document as it is answered: as JSON, and as a page to read it that needs no outside host."""

from __future__ import annotations

import html
import re
from typing import Any

import orjson
from falcon import Request

from tradeback.api import params
from tradeback.api.answers import Answer, entity_tag, write_tagged
from tradeback.api.openapi.document import document
from tradeback.api.openapi.parts import MEANINGS

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

    def on_get(self, request: Request, response: Answer) -> None:
        params.query(request, ())
        write_tagged(request, response, self._document, cache=CACHE, tag=self._tags[0])

    def on_get_page(self, request: Request, response: Answer) -> None:
        params.query(request, ())
        write_tagged(
            request, response, self._page, cache=CACHE, tag=self._tags[1], kind="text/html; charset=utf-8"
        )


def page(described: dict[str, Any]) -> str:
    """The document as HTML: no script, nothing from elsewhere."""
    groups: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            if method not in LEFT_OUT:
                groups.setdefault(operation["tags"][0], []).append((f"{method.upper()} {path}", operation))
    about = "</p><p>".join(map(_text, described["info"]["description"].split("\n\n")))
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Trade-Back REST</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{STYLE}</style><h1>Trade-Back REST</h1><p>{about}</p>"
        '<p>The same for programs: <a href="/api/v1/openapi.json">openapi.json</a></p>'
    ]
    for group, operations in groups.items():
        parts.append(f"<p>{html.escape(group)}:</p><ul>")
        for title, operation in operations:
            link = f'<a href="#{operation["operationId"]}"><code>{html.escape(title)}</code></a>'
            parts.append(f"<li>{link} {_text(operation['summary'])}</li>")
        parts.append("</ul>")
    for operations in groups.values():
        parts += [_operation(title, operation) for title, operation in operations]
    parts.append('<h2 id="errors">What is refused</h2><ul>')
    parts += [f"<li>{status} {_text(meaning)}</li>" for status, meaning in MEANINGS.items()]
    parts.append("</ul><h2>Schemas</h2>")
    for name, schema in described["components"]["schemas"].items():
        text = html.escape(orjson.dumps(schema, option=orjson.OPT_INDENT_2).decode())
        parts.append(f'<h3 id="{name}">{name}</h3><pre>{text}</pre>')
    return "".join(parts)


def _operation(title: str, operation: dict[str, Any]) -> str:
    about = " ".join(filter(None, (operation["summary"] + ".", operation.get("description"))))
    name = operation["operationId"]
    parts = [f'<h2 id="{name}"><code>{html.escape(title)}</code></h2><p>{_text(about)}</p><ul>']
    for parameter in operation["parameters"]:
        need = ", required" if parameter["required"] else ""
        example = f", such as <code>{parameter['example']}</code>" if "example" in parameter else ""
        parts.append(
            f"<li><code>{parameter['name']}</code> ({parameter['in']}{need}): "
            f"{_text(parameter['description'])}: {_values(parameter['schema'])}{example}</li>"
        )
    for kind, body in operation.get("requestBody", {}).get("content", {}).items():
        parts.append(f"<li>the body, {kind}: {_schema(body['schema'])}</li>")
    if operation.get("security"):
        parts.append("<li>for whoever is logged in</li>")
    refused = []
    for status, answer in operation["responses"].items():
        if int(status) in MEANINGS and status != "426":
            refused.append(status)
            continue
        content = "".join(
            f", {kind}: {_schema(one['schema'])}" for kind, one in answer.get("content", {}).items()
        )
        parts.append(f"<li>{status} {_text(answer['description'])}{content}</li>")
    parts.append(f'<li>or <a href="#errors">refused</a>: {", ".join(refused)}</li></ul>')
    return "".join(parts)


def _text(text: str) -> str:
    """Text with what stands between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))


def _values(schema: dict[str, Any]) -> str:
    """What a parameter can be, in words."""
    if "enum" in schema:
        words = "one of " + ", ".join(schema["enum"])
    elif "maximum" in schema:
        words = f"{schema['type']} from {schema['minimum']} to {schema['maximum']}"
    elif "maxLength" in schema:
        words = f"text of at most {schema['maxLength']} characters"
    else:
        words = "text"
    return words + (f"; without it {schema['default']}" if "default" in schema else "")


def _schema(schema: dict[str, Any]) -> str:
    inner = schema.get("items", schema)
    if "$ref" in inner:
        name = inner["$ref"].rpartition("/")[2]
        return f'{"a list of " if inner is not schema else ""}<a href="#{name}">{name}</a>'
    return "text"
