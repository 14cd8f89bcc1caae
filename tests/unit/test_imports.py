"""Who may import whom: the rooms of the house and the direction of the arrows between them.

Imports are parsed from the Python files, cimports and imports from the Cython ones.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT

PACKAGE = CHECKOUT / "tradeback"

# Rooms, named by the beginning of a module's name, and the rooms that each may import from besides itself.
# The longest name that fits a module is its room.
FIRST = {"tradeback.errors", "tradeback.config", "tradeback.model"}
COMPOSITION_ROOTS = {"tradeback.cli", "tradeback.commands", "tradeback.server.app", "tradeback.recorder.app"}
ROOMS: dict[str, set[str]] = {
    "tradeback": set(),
    "tradeback.errors": set(),
    "tradeback.model": set(),
    "tradeback.config": {"tradeback.errors"},
    "tradeback.tokens": {"tradeback.errors"},
    "tradeback.passwords": {"tradeback.errors"},
    "tradeback.performance": {"tradeback.errors", "tradeback.store.stats"},
    "tradeback.log": {"tradeback.config", "tradeback.errors"},
    "tradeback.ceilings": {"tradeback.errors"},
    "tradeback.resources": {"tradeback.ceilings", "tradeback.config", "tradeback.errors"},
    "tradeback.exchange": FIRST,
    "tradeback.exchange.sim.command": {"tradeback.exchange", *FIRST},
    "tradeback.store": FIRST,
    "tradeback.store.cache_local": {"tradeback._fast.tablefile", "tradeback.store.base", *FIRST},
    "tradeback.store.history_influx": {"tradeback._fast.lineproto", "tradeback.store", *FIRST},
    "tradeback.store.influx_points": {"tradeback._fast.record", "tradeback.store", *FIRST},
    "tradeback.store.stats": {"tradeback.errors"},
    "tradeback.client": {"tradeback._fast.batch", "tradeback.errors"},
    "tradeback.recovery": {"tradeback._fast", "tradeback.model"},
    "tradeback.recorder": {
        "tradeback._fast",
        "tradeback.control",
        "tradeback.exchange",
        "tradeback.recovery",
        "tradeback.resources",
        "tradeback.store.base",
        "tradeback.store.bus_layout",
        "tradeback.store.stats",
        "tradeback.store.timing",
        *FIRST,
    },
    "tradeback.control": FIRST,
    "tradeback.server": {
        "tradeback._fast",
        "tradeback.control",
        "tradeback.exchange",
        "tradeback.resources",
        "tradeback.store.base",
        "tradeback.store.stats",
        "tradeback.tokens",
        *FIRST,
    },
    "tradeback.api": {
        "tradeback.log",
        "tradeback.passwords",
        "tradeback.resources",
        "tradeback.store.base",
        "tradeback.store.stats",
        "tradeback.store.timing",
        "tradeback.tokens",
        *FIRST,
    },
    # The composition roots put the rest together.
    "tradeback.server.app": {"tradeback"},
    "tradeback.recorder.app": {"tradeback"},
    "tradeback.commands": {"tradeback"},
    "tradeback.cli": {"tradeback"},
}

# Within _fast a module may import from those of the layers before its own, and from its own layer.
LAYERS = [
    {"epoll", "clock", "status", "record"},
    {
        "arbitrate",
        "decode",
        "json",
        "names",
        "predicted",
        "table",
        "tablefile",
        "journal",
        "segment",
        "cursor",
        "batch",
        "stats",
        "lineproto",
    },
    {"fanout", "ingest"},
    {"listener"},
]
ALONE = {"epoll"}  # it imports nothing of ours
# What _fast may import of the rest, outside the hot path: a fault of the data folder is found there and must be the
# DataFolderError that commands tell in a sentence. `errors` imports nothing, so no circle can come of it.
ERRORS_ONLY = {"tradeback.errors"}

# Each driver of a database or a broker, and picows for Cython, is imported in one file.
ONE_FILE_EACH: dict[str, str | tuple[str, ...]] = {
    # For its errors; the history speaks to it without SQLAlchemy, whose rows cost more than SQLite does itself.
    "sqlite3": (
        "store/sqlite.py",
        "store/history_file.py",
        "store/history_sqlite.py",
        "store/backup.py",  # for its way to copy what others write
    ),
    "alembic": "store/migrations/",
    "mysql": "store/mysql.py",
    "influxdb_client": "store/influx.py",
    "redis": ("store/cache_redis.py", "store/announce_redis.py"),
    "nats": (
        "store/nats_connection.py",
        "store/announce_nats.py",
        "store/requests_nats.py",
        "store/bus_nats.py",
        "store/bus_jetstream.py",
    ),
}

_STATEMENT = re.compile(
    r"^\s*(?:from\s+(?P<base>[\w.]+)\s+c?import\s+(?P<names>\([^)]*\)|[^\n#]*)"
    r"|c?import\s+(?P<whole>[\w., ]+))",
    re.MULTILINE,
)


def python_imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            # `from package import module` names a module, `from module import thing` does not.
            yield from (f"{node.module}.{name.name}" for name in node.names)


def cython_imports(path: Path) -> Iterator[str]:
    without_docstrings = re.sub(r'"""(?:.|\n)*?"""', "", path.read_text())
    for match in _STATEMENT.finditer(without_docstrings):
        if match["base"]:
            names = re.sub(r"#.*", "", match["names"]).strip("()").replace("\n", " ")
            yield from (f"{match['base']}.{name.split()[0]}" for name in names.split(",") if name.strip())
        else:
            yield from (name.split()[0] for name in match["whole"].split(",") if name.strip())


def module_of(path: Path) -> str:
    parts = path.relative_to(CHECKOUT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> set[str]:
    """Names that the file imports, ours only, cut to what is a module."""
    found = python_imports(path) if path.suffix in {".py", ".pyi"} else cython_imports(path)
    return {existing_module(name) for name in found if name == "tradeback" or name.startswith("tradeback.")}


def existing_module(name: str) -> str:
    while "." in name:
        path = CHECKOUT / name.replace(".", "/")
        if path.is_dir() or any(path.with_suffix(suffix).exists() for suffix in (".py", ".pyx", ".pxd")):
            break
        name = name.rpartition(".")[0]
    return name


def within(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def room_of(module: str) -> str:
    return max((room for room in ROOMS if within(module, room)), key=len)


def sources(*suffixes: str) -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*") if path.suffix in suffixes)


@pytest.mark.parametrize("path", sources(".py"), ids=module_of)
def test_python_modules_keep_to_their_rooms(path: Path) -> None:
    module = module_of(path)
    if within(module, "tradeback._fast"):
        assert imports_of(path) <= {"tradeback._fast"}
        return
    room = room_of(module)
    for name in imports_of(path):
        allowed = within(name, room) or any(within(name, other) for other in ROOMS[room])
        assert allowed, f"{module} imports {name}; {room} may import from {sorted(ROOMS[room])} and itself"


def layer_of(name: str) -> int:
    for number, layer in enumerate(LAYERS):
        if name in layer:
            return number
    raise AssertionError(f"_fast/{name} has no layer: name it in LAYERS")


@pytest.mark.parametrize("path", sources(".pyx", ".pxd"), ids=lambda path: path.name)
def test_cython_modules_keep_to_their_layers(path: Path) -> None:
    for name in imports_of(path):
        if name in ERRORS_ONLY:
            continue
        assert within(name, "tradeback._fast"), f"{path.name} imports {name}"
        other = name.rpartition(".")[2]
        if other == path.stem:
            continue
        assert path.stem not in ALONE, f"{path.name} imports {name}: it stands alone"
        assert layer_of(other) <= layer_of(path.stem), f"{path.name} imports {name}, of a later layer"


def test_picows_is_cimported_in_the_listener_only() -> None:
    using = {
        path.stem
        for path in sources(".pyx", ".pxd")
        if re.search(r"^\s*(from|c?import)\s+picows", path.read_text(), re.M)
    }
    assert using <= {"listener"}


def test_the_core_knows_no_asyncio_no_logging_and_no_configuration() -> None:
    for path in sources(".pyx", ".pxd"):
        if path.stem not in {"listener", "epoll"}:
            roots = {name.partition(".")[0] for name in cython_imports(path)}
            assert not roots & {"asyncio", "logging", "structlog", "picows", "socket"}, path.name


@pytest.mark.parametrize(("driver", "place"), ONE_FILE_EACH.items())
def test_each_driver_is_imported_in_one_place(driver: str, place: str | tuple[str, ...]) -> None:
    for path in sources(".py"):
        if any(name == driver or name.startswith(f"{driver}.") for name in python_imports(path)):
            assert path.relative_to(PACKAGE).as_posix().startswith(place), f"{path} imports {driver}"


def test_stores_are_opened_by_composition_roots_only() -> None:
    for path in sources(".py"):
        if any(
            name.endswith((".open_catalog", ".open_history", ".open_accounts", ".open_cache"))
            for name in python_imports(path)
        ):
            # Users are in the catalog's database, and the names of symbols come from there.
            opens_below = module_of(path) in {"tradeback.store.accounts", "tradeback.store.histories"}
            assert opens_below or any(within(module_of(path), root) for root in COMPOSITION_ROOTS), path


def test_the_environment_is_read_in_the_configuration_only() -> None:
    for path in sources(".py"):
        if not within(module_of(path), "tradeback.config"):
            reads = re.findall(r"\bos\.(?:environ|getenv)\b", path.read_text())
            # `up` hands it on to the processes it starts; systemd speaks through it, which is no setting.
        assert not reads or path.name in {"up.py", "supervisor.py"}, path


def test_the_rules_find_what_they_forbid(tmp_path: Path) -> None:
    python = tmp_path / "a.py"
    python.write_text("def f():\n    from tradeback.store import catalog\n    import sqlite3\n")
    assert set(python_imports(python)) == {"tradeback.store.catalog", "sqlite3"}
    cython = tmp_path / "a.pyx"
    cython.write_text(
        '"""from nowhere import nothing"""\n'
        "from tradeback._fast.record cimport (\n    Event,  # a comment\n    JournalRecord,\n)\n"
        "cimport picows.picows as p, cython\n"
        "cdef int f():\n    import os\n"
    )
    assert set(cython_imports(cython)) == {
        "tradeback._fast.record.Event",
        "tradeback._fast.record.JournalRecord",
        "picows.picows",
        "cython",
        "os",
    }
    assert existing_module("tradeback._fast.record.Event") == "tradeback._fast.record"
    assert room_of("tradeback.store.sqlite") == "tradeback.store"
    assert not within("tradeback.storehouse", "tradeback.store")
