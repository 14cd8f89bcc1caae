"""What the fuzzers start from: one message of each layout, and recorded ones where there are recordings."""

from __future__ import annotations

import os
from pathlib import Path

from tradeback.exchange.recording import read_recording

CHECKOUT = Path(__file__).resolve().parents[2]
RECORDED_EACH = 40

_TRADE = (
    '{"e":"trade","E":1672515782136,"s":"BNBBTC","t":12345,"p":"0.00100000","q":"100.50000000",'
    '"T":1672515782136,"m":true,"M":true}'
)
_OLD_TRADE = _TRADE.replace('"T"', '"b":88,"a":50,"T"')
_AGG_TRADE = (
    '{"e":"aggTrade","E":1672515782136,"s":"BNBBTC","a":12345,"p":"0.001","q":"100","f":100,"l":105,'
    '"T":1672515782136123,"m":false,"M":true}'
)
_QUOTE = (
    '{"u":400900217,"s":"BNBBTC","b":"25.35190000","B":"31.21","a":"25.36520000","A":"123456789.00000000"}'
)

MESSAGES = [
    *[_TRADE, _OLD_TRADE, _AGG_TRADE, _QUOTE],
    *[f'{{"stream":"bnbbtc@trade","data":{text}}}' for text in (_TRADE, _OLD_TRADE)],
    f'{{"stream":"bnbbtc@aggTrade","data":{_AGG_TRADE}}}',
    f'{{"data":{_QUOTE},"stream":"bnbbtc@bookTicker"}}',
    f'{{"stream":"bnbbtc@bookTicker","data":{_QUOTE}}}',
    _TRADE.replace(",", " , ").replace(":", " : "),
    '{"result":null,"id":1}',
    '{"code":2,"msg":"Invalid request: \\"x\\""}',
    '{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}',
]

COMMANDS = [
    '{"type":"subscribe","symbols":["BTCUSDT","ETHUSDT"]}',
    '{"type":"unsubscribe","symbols":["BTCUSDT"]}',
    '{"type":"ping"}',
    '{"type":"subscribe","symbols":["\\u00e9",1,null,[],{}]}',
]


def write_messages(folder: Path) -> int:
    """One file a seed; how many there are. The folder is never committed."""
    recordings = Path(os.environ.get("TRADEBACK_RECORDINGS", CHECKOUT.parent / "shared" / "data"))
    texts = list(MESSAGES)
    for path in sorted(recordings.glob("ws_*.jsonl.gz")):
        lines = [text for _, text in read_recording(path)]
        texts += [text for text in lines[:: max(1, len(lines) // RECORDED_EACH)] if len(text) < 2000]
    return _write(folder, texts)


def write_commands(folder: Path) -> int:
    return _write(folder, COMMANDS)


def _write(folder: Path, texts: list[str]) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(texts):
        (folder / f"seed-{number:04d}").write_bytes(text.encode())
    return len(texts)
