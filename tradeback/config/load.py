"""Loading: defaults < YAML file < environment < flags, merged by key and validated once.

The environment is read in this file only.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tradeback.config.files import read_value, read_yaml
from tradeback.config.sections import Config, Setting, settings
from tradeback.config.values import without_passwords
from tradeback.errors import ConfigError

FILE_SUFFIX = "_FILE"  # of the variable that names a file with the value
SHOWN_CHARACTERS = 120  # of a value that is refused


def load_config(
    path: str | Path | None = None,
    *,
    flags: Mapping[str, object] | None = None,
    defaults: Mapping[str, object] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Config:
    """The configuration of this process; ConfigError names the key, the value and what it may be.

    `path`: the YAML file, else the one that CONFIG_PATH names, else none. `flags` and `defaults` map keys
    such as `exchange.name` to values; a flag of None was not given; `defaults` replace those of the sections.
    """
    path = path or environ.get("CONFIG_PATH", "").strip() or None
    given: dict[str, str] = {}  # key -> how the user spelled it, in the layer that won
    values: dict[str, Any] = {}
    for key, value in (defaults or {}).items():
        _put(values, key, value)
    if path is not None:
        _merge(values, _read_sections(Path(path)))
    for one in settings():
        found = _from_environment(one, environ)
        if found is not None:
            text, given[one.key] = found
            _put(values, one.key, text)
    for key, value in (flags or {}).items():
        if value is not None:
            _put(values, key, value)
            given[key] = f"{key} on the command line"
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_sentences(error, given, path))) from None
    return _with_shared_origins(config)


def notices(config: Config, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Sentences about what is accepted and has no effect: misspelled variables."""
    known = {name for one in settings() for name in (one.env, f"{one.env}{FILE_SUFFIX}")}
    prefixes = tuple({one.section.env_prefix for one in settings()})
    found = []
    for name in sorted(environ):
        meant = name.strip().upper()
        if name not in known and meant.startswith(prefixes):
            close = difflib.get_close_matches(meant, known, 1, cutoff=0.85)
            if close:
                shown = name if name == name.strip() else repr(name)
                found.append(
                    f"The variable {shown} is no setting and has no effect: did you mean {close[0]}?"
                )
    return found


def _with_shared_origins(config: Config) -> Config:
    """The allow-list of CORS holds for the WebSocket upgrade as well, where that has none of its own."""
    cors, websocket = config.server.cors, config.websocket
    if "*" in websocket.allowed_origins and cors.allow_credentials:
        raise ConfigError(
            "websocket.allowed_origins is * while server.cors.allow_credentials is true, so that any page "
            "could act for a user who is logged in: name the origins, or set allow_credentials to false"
        )
    if websocket.allowed_origins or not cors.allowed_origins:
        return config
    shared = websocket.model_copy(update={"allowed_origins": cors.allowed_origins})
    return config.model_copy(update={"websocket": shared})


def _put(values: dict[str, Any], key: str, value: object) -> None:
    *sections, name = key.split(".")
    for section in sections:
        below = values.get(section)
        if not isinstance(below, dict):
            below = values[section] = {}
        values = below
    values[name] = value


def _merge(values: dict[str, Any], upper: Mapping[str, Any]) -> None:
    for name, value in upper.items():
        below = values.get(name)
        if isinstance(value, dict) and isinstance(below, dict):
            _merge(below, value)
        elif value is not None:  # None: a section whose settings are all commented out
            values[name] = value


def _read_sections(path: Path) -> dict[str, Any]:
    values = read_yaml(path)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"The configuration file {path} must hold sections: {_names_below('')}")
    return values


def _from_environment(one: Setting, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """The value and the variable that gave it, which may be NAME_FILE; None where neither is set, or both are empty.

    Blanks around a value are those of the file that the environment was set from, but a secret may have its own.
    """
    text = environ.get(one.env, "")
    if not one.is_secret:
        text = text.strip()
    by_file = f"{one.env}{FILE_SUFFIX}"
    file = environ.get(by_file, "").strip()
    if not file:
        return (text, one.env) if text else None
    if text:
        raise ConfigError(f"{one.env} and {by_file} are both set: unset one, for only one can count")
    return read_value(by_file, Path(file)), by_file


def _sentences(error: ValidationError, given: Mapping[str, str], path: str | Path | None) -> Iterator[str]:
    """One sentence a wrong setting, in the words of the source that gave it."""
    known = {one.key: one for one in settings()}
    said = set()
    for detail in error.errors():
        places = [str(part) for part in detail["loc"]]
        key = ".".join(places)
        # Within a list the place goes on below the setting: exchange.symbols.0
        one = next((one for one in known.values() if f"{key}.".startswith(f"{one.key}.")), None)
        name = given.get(one.key if one else key) or f"{key} in {path}"
        if one is not None:
            hidden = one.is_secret or name == f"{one.env}{FILE_SUFFIX}"
            value = "a value not shown here" if hidden else _shown(detail["input"])
            if one.key not in said:
                yield f"{name} is {value}: it must be {one.allowed}"
            said.add(one.key)
        elif detail["type"] == "extra_forbidden":
            close = difflib.get_close_matches(key, known, 1)
            hint = (
                f"did you mean {close[0]}?" if close else f"known are {_names_below('.'.join(places[:-1]))}"
            )
            yield f"{name} is no setting: {hint}"
        else:
            yield f"{name} is {_shown(detail['input'])}: it must be a section with {_names_below(key)}"


def _shown(value: object) -> str:
    text = without_passwords(repr(value))
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def _names_below(section: str) -> str:
    depth = section.count(".") + 1 if section else 0
    below = (one.key.split(".") for one in settings() if not section or one.key.startswith(f"{section}."))
    return ", ".join(dict.fromkeys(places[depth] for places in below))
