"""Coverage-guided fuzzing of plain Python: `python -m tests.fuzz.python messages|commands FLAGS CORPUS`.

messages: the decoder and its slow path together, held against the oracle.
commands: the parser of clients' messages: a command or a ProtocolError, whatever the bytes.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["tradeback.exchange.binance", "tradeback.server.protocol", "tests"]):
    from tests.reference.decode import decode_reference, resolve
    from tradeback.errors import ProtocolError
    from tradeback.exchange.binance import canonical_message
    from tradeback.server import protocol

MAX_SYMBOLS = 8
TEXT_MAX = 50


def messages(data: bytes) -> None:
    expected = decode_reference(data)
    found = resolve(data)
    if found != expected:
        raise AssertionError(f"{data!r}: {found} where the oracle says {expected}")
    if isinstance(expected, dict):
        # The slow path may be asked about any message, and must not change it.
        again = canonical_message(data)
        if again is None or resolve(again) != expected:
            raise AssertionError(f"{data!r} became {again!r}")


def commands(data: bytes) -> None:
    try:
        command = protocol.parse_command(data, MAX_SYMBOLS)
    except ProtocolError as error:
        if error.code not in protocol.ERROR_CODES or len(str(error)) > 10 * TEXT_MAX:
            raise AssertionError(f"{data!r}: {error.code}, {error}") from error
        return
    if isinstance(command, protocol.Subscribe | protocol.Unsubscribe):
        names = command.symbols
        if (
            not names
            or len(set(names)) != len(names)
            or any(not 0 < len(n.encode()) <= TEXT_MAX for n in names)
        ):
            raise AssertionError(f"{data!r}: {command}")


def main() -> None:
    targets = {"messages": messages, "commands": commands}
    atheris.Setup([sys.argv[0], *sys.argv[2:]], targets[sys.argv[1]])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
