"""`tradeback config check | print | doc`."""

from __future__ import annotations

import inspect
import math
from itertools import groupby
from typing import Any

import click
import yaml
from pydantic import SecretStr

from tradeback.commands.options import with_config
from tradeback.config import Config, Setting, notices, settings
from tradeback.config.values import without_passwords

HIDDEN = "***"

_INTRODUCTION = """\
# Configuration

*Printed from the code by `tradeback config doc`; a test holds the two equal.*

Every setting has a default. A YAML file (`--config FILE`, else the one that `CONFIG_PATH` names) wins over
the defaults, a variable of the environment over the file, and a flag of the command line over all. An empty
variable counts as not set. Any value, a secret above all, can stand in a file that `NAME_FILE` names instead of in
`NAME`; the line break at its end does not count. Secrets are never printed, nor passwords in addresses.

Durations are written `250ms`, `15s`, `5m`, `24h`, `1h30m`; a bare number is seconds. Sizes are written
`64KiB` (powers of 1024) or `64kB` (powers of 1000); a bare number is bytes. A list is a YAML list, in the
environment text separated by commas. A key that is unknown, or a value that cannot be is refused.

`tradeback config check` says whether all is well, `tradeback config print` what it comes to.
"""


@click.group()
def config() -> None:
    """The configuration: check it, print it, describe it."""


@config.command()
@with_config
def check(config: Config) -> None:
    """Say whether the configuration is valid; exit code 1 if it is not."""
    for notice in notices(config):
        click.echo(f"Note: {notice}", err=True)
    click.echo("The configuration is valid.")


@config.command("print")
@with_config
def print_config(config: Config) -> None:
    """Print the configuration as YAML, as it comes out of all sources; secrets and passwords as ***."""
    values = config.model_dump(mode="json")
    for one in settings():
        if one.is_secret and _value(config, one.key).get_secret_value():
            *sections, name = one.key.split(".")
            place = values
            for section in sections:
                place = place[section]
            place[name] = HIDDEN
    click.echo(without_passwords(yaml.safe_dump(values, sort_keys=False, width=math.inf)), nl=False)


@config.command()
def doc() -> None:
    """Print the reference page of all settings, in Markdown."""
    click.echo(reference_page(), nl=False)


def reference_page() -> str:
    """The text of docs/configuration.md."""
    parts = [_INTRODUCTION]
    for section, members in groupby(settings(), key=lambda one: one.section):
        every = list(members)
        parts.append(f"\n## {every[0].key.rpartition('.')[0]}\n\n{inspect.getdoc(section)}\n")
        parts.append("\n| key | variable | default | meaning | values |\n|---|---|---|---|---|\n")
        parts += [_line(one) for one in every]
    return "".join(parts)


def _line(one: Setting) -> str:
    value = _value(Config(), one.key)
    shown = "" if isinstance(value, SecretStr) else _text(Config().model_dump(mode="json"), one.key)
    default = f"`{shown}`" if shown else "empty"
    name = one.key.rpartition(".")[2]
    return f"| `{name}` | `{one.env}` | {default} | {one.field.description} | {one.allowed} |\n"


def _text(values: dict[str, Any], key: str) -> str:
    value: Any = values
    for part in key.split("."):
        value = value[part]
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(value) if isinstance(value, list) else str(value)


def _value(config: Config, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value
