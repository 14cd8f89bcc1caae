from collections.abc import Iterable
from os import PathLike
from typing import Any, Final

MAGIC: Final[bytes]
VERSION: Final[int]
BUCKET_RULE: Final[str]
START_TIME: Final[tuple[str, str, str]]
SERVER_VALUES: Final[tuple[tuple[int, str, str, str], ...]]
SERVER_HISTOGRAMS: Final[tuple[tuple[int, str, str], ...]]

class Stats:
    layout: Final[dict[str, Any]]
    @staticmethod
    def create(
        path: str | PathLike[str],
        process: str,
        values: Iterable[tuple[int, str, str, str]] = ...,
        histograms: Iterable[tuple[int, str, str]] = ...,
    ) -> Stats: ...
    @staticmethod
    def in_memory(
        values: Iterable[tuple[int, str, str, str]] = ...,
        histograms: Iterable[tuple[int, str, str]] = ...,
    ) -> Stats: ...
    def close(self) -> None: ...
    def value(self, name: str) -> int: ...
    def increase(self, name: str, amount: int = 1) -> None: ...
    def put(self, name: str, value: int) -> None: ...
    def observe_ns(self, name: str, ns: int) -> None: ...
    def histogram_count(self, name: str) -> int: ...
    def bucket_count(self, name: str, bucket: int) -> int: ...
