from collections.abc import Mapping, Sequence

from tradeback.model import Tick

def encode_ticks(ticks: Sequence[Tick], prefixes: Mapping[int, bytes]) -> bytes: ...
