"""The files of the configuration: a YAML file of sections, files that hold one value each, such as secrets, and files
of authorities, who sign the certificates of services.

The first two are read up to a limit and no further, and no error repeats what stands in them: that may be a password.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Hashable
from pathlib import Path
from typing import Any, NoReturn

import yaml

from tradeback.errors import ConfigError

MAX_YAML_BYTES = 1 << 20
MAX_VALUE_BYTES = 64 << 10  # a secret that is longer is a wrong file
MAX_DEPTH = 20  # of a YAML file; the settings need five
_QUOTED = re.compile(r"'[^']{2,}'")  # what an error of the parser repeats of the file


def read_yaml(path: Path) -> Any:
    """What the file holds; None where it is empty. ConfigError where it cannot be read, or is no plain YAML."""
    text = _read(
        path,
        MAX_YAML_BYTES,
        f"The configuration file {path}",
        "name another with --config or CONFIG_PATH, or leave both out for the defaults",
    )
    try:
        return yaml.load(text, _PlainLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = _QUOTED.sub("'...'", error.problem or "unknown")
        raise ConfigError(f"The configuration file {path} is no YAML{place}: {problem}") from None
    except yaml.reader.ReaderError as error:
        raise ConfigError(
            f"The configuration file {path} is no YAML: it holds the character U+{error.character:04X}"
        ) from None
    except ValueError:  # such as a date in month 13
        raise ConfigError(
            f"The configuration file {path} holds a number or a date that cannot be: put it into quotes"
        ) from None


def read_value(name: str, path: Path) -> str:
    """The text of a file that the variable `name` names, without the line break at its end."""
    # Who gave the value itself where its file was asked for must not find it in a log.
    what = f"The file {path if path.is_absolute() else '(not shown here)'} that {name} names"
    text = _read(path, MAX_VALUE_BYTES, what, f"see that {name} names the file that is meant").rstrip("\r\n")
    if not text:
        raise ConfigError(f"{what} is empty: write the value into it, or unset {name}")
    return text


def check_ca_file(name: str, ca_file: str, switch: str = "") -> None:
    """ConfigError where `name`, a setting, names a file that no authority can be read from. `switch` is what would put
    TLS on, where it is off: then nobody would read the file, and its owner would take the connection for verified."""
    if not ca_file:
        return
    if switch:
        raise ConfigError(f"{name} is set while TLS is off, and has no effect so: {switch}, or unset {name}")
    remedy = "name the PEM file with the certificate of the authority that signed the server's"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=ca_file)
        holds = context.cert_store_stats()["x509"] > 0
    except ssl.SSLError:
        holds = False
    except OSError as error:
        raise ConfigError(f"{name} is {ca_file}, which cannot be read ({error.strerror}): {remedy}") from None
    if not holds:
        raise ConfigError(f"{name} is {ca_file}, which holds no certificate: {remedy}")


def _read(path: Path, most: int, what: str, remedy: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        raise ConfigError(f"{what} cannot be read ({getattr(error, 'strerror', error)}): {remedy}") from None
    if len(content) > most:
        raise ConfigError(f"{what} has more than {most} bytes, which is too much: {remedy}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{what} is no UTF-8 text from byte {error.start} on: {remedy}") from None


class _PlainLoader(yaml.SafeLoader):
    """Refuses what would be taken silently for something else, or grows without bound: names that stand twice in a
    section, aliases, tags, depth. An unquoted password may begin like an alias or a tag."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or event.anchor or event.tag:
            self._refuse("put text that begins with &, * or ! into quotes", event.start_mark)
        self._depth = getattr(self, "_depth", 0) + 1
        if self._depth > MAX_DEPTH:
            self._refuse(f"more than {MAX_DEPTH} levels in each other", event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[str, int] = {}
        for name, _ in node.value:
            if name.tag != "tag:yaml.org,2002:str":
                self._refuse("a name must be text", name.start_mark)
            if name.value in lines:
                self._refuse(f"{name.value} stands in line {lines[name.value]} already", name.start_mark)
            lines[name.value] = name.start_mark.line + 1
        return super().construct_mapping(node, deep)

    @staticmethod
    def _refuse(why: str, mark: yaml.Mark) -> NoReturn:
        raise yaml.constructor.ConstructorError(None, None, why, mark)
