"""The decoder against its oracle, on messages as the exchange could send them and on broken ones."""

from __future__ import annotations

import json
import random
from decimal import Decimal

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.reference.decode import decode_reference, resolve
from tradeback._fast.decode import DECODED_UNUSUAL, decode

SYMBOLS = st.one_of(
    st.from_regex(r"[A-Z0-9]{1,20}", fullmatch=True),
    st.from_regex(r"[A-Z0-9._-]{1,52}", fullmatch=True),
    st.sampled_from(
        ["BTCUSDT", "币安人生USDT", "btcusdt", "", "A" * 16, "B" * 17, "C" * 50, "D" * 51, "A@B", "A{"]
    ),
)
IDS = st.one_of(
    st.integers(0, 2**64 - 1),
    st.integers(0, 10**10),
    st.sampled_from([0, 9, 10**8, 10**16, 2**63, 2**64 - 1, 2**64, 10**20, -1, 1.5, 1e3, True, None, "1"]),
)
TIMES = st.one_of(
    st.integers(1_500_000_000_000, 2_000_000_000_000),
    st.integers(1_500_000_000_000_000, 2_000_000_000_000_000),
    st.integers(0, 2**64),
    st.sampled_from([10**14, 10**14 - 1, 10**17, 10**17 - 1, 9223372036854, 9223372036855, 2**63 - 1, 2**63]),
)
PLAIN = st.builds(
    lambda whole, places, fraction: f"{whole}.{fraction:0{places}d}"[: len(str(whole)) + 1 + places],
    st.integers(0, 10**12),
    st.integers(1, 20),
    st.integers(0, 10**20),
)
ODD = st.sampled_from(
    ["", ".", "1.", ".5", "1e5", "1E-7", "+1", "-1", "-0", "00.5", "0e99999", "1e400", "1e-400", " 1", "1 ",
     "1_0", "NaN", "Infinity", "inf", "0x10", "1,5", "1..2", "1.2.3", "9" * 19, "9" * 20, "9007199254740993",
     "18446744073709551615", "18446744073709551616", "0.000000000000000001", "0.0000000000000000001",
     "1" + "0" * 70, "1." + "0" * 70, "9007199254740992.5", "\u0663", None, 1, 1.5, True, [], {},
     "1\u00002", '1"', "1\\u0030"]
)  # fmt: skip
DECIMALS = st.one_of(
    PLAIN,
    st.decimals(min_value=0, max_value=10**9, places=8).map(lambda number: f"{number:f}"),
    st.integers(0, 10**25).map(str),
    st.floats(allow_nan=True).map(repr),
    st.text("0123456789.+-eE", max_size=70),
    ODD,
)
GOOD_DECIMALS = st.decimals(min_value=0, max_value=10**9, places=8).map(lambda number: f"{number:f}")


def payloads(
    kind: str, symbols: st.SearchStrategy[str], ids: object, times: object, decimals: object
) -> object:
    if kind == "bookTicker":
        return st.fixed_dictionaries(
            {"u": ids, "s": symbols, "b": decimals, "B": decimals, "a": decimals, "A": decimals}
        )
    own = {"t": ids} if kind == "trade" else {"a": ids}
    spans = {} if kind == "trade" else {"f": ids, "l": ids}
    return st.fixed_dictionaries(
        {"e": st.just(kind), "E": times, "s": symbols, **own, "p": decimals, "q": decimals, **spans}
        | {"T": times, "m": st.booleans(), "M": st.just(True)}
    )


@st.composite
def messages(draw: st.DrawFn, strange: bool) -> bytes:
    kind = draw(st.sampled_from(["trade", "aggTrade", "bookTicker"]))
    symbols = SYMBOLS if strange else st.from_regex(r"[A-Z0-9]{1,20}", fullmatch=True)
    ids = IDS if strange else st.integers(0, 2**63 - 1)
    times = TIMES if strange else st.integers(1_500_000_000_000, 2_000_000_000_000)
    payload = draw(payloads(kind, symbols, ids, times, DECIMALS if strange else GOOD_DECIMALS))
    if kind == "trade" and draw(st.booleans()):
        pairs = list(payload.items())
        at = [name for name, _ in pairs].index("T")
        payload = dict([*pairs[:at], ("b", draw(ids)), ("a", draw(ids)), *pairs[at:]])
    stream = f"{payload['s'].lower()}@{kind}"
    if strange:
        pairs = list(payload.items())
        change = draw(st.integers(0, 9))
        if change == 0:
            pairs = draw(st.permutations(pairs))
        elif change == 1:
            pairs.append((draw(st.sampled_from(["x", "zz", "e", "p", "u", "data"])), draw(JSON)))
        elif change == 2:
            pairs.pop(draw(st.integers(0, len(pairs) - 1)))
        payload = dict(pairs)
        if change == 3:
            stream = draw(
                st.sampled_from(["!bookTicker", "btcusdt@trade", "x@depth", "", "@trade", stream + "x"])
            )
    if draw(st.booleans()):
        envelope = {"stream": stream, "data": payload}
        if strange and draw(st.booleans()):
            envelope = dict(draw(st.permutations([*envelope.items(), ("id", draw(JSON))])))
        payload = envelope
    separators = (",", ":")
    if strange and draw(st.booleans()):
        separators = (" ,\n", "\t: ")
    return json.dumps(payload, separators=separators, ensure_ascii=draw(st.booleans())).encode()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(messages(strange=False))
def test_what_the_exchange_sends_needs_no_slow_path(data: bytes) -> None:
    found = decode(data)
    assert isinstance(found, dict)
    assert found == decode_reference(data)


@settings(max_examples=400, deadline=None)
@given(messages(strange=True))
def test_any_layout_and_any_value_mean_what_the_oracle_says(data: bytes) -> None:
    assert resolve(data) == decode_reference(data)


@settings(max_examples=300, deadline=None)
@given(messages(strange=False), st.integers(0, 2**32))
def test_broken_messages_mean_what_the_oracle_says(data: bytes, seed: int) -> None:
    chance = random.Random(seed)
    broken = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(broken))
        step = chance.randrange(5)
        if step == 0:
            broken[at] = chance.choice(b'0123456789.-+eE{}[],:" \\@tTaAbBxzZ\x00\x80\xff')
        elif step == 1:
            del broken[at : at + chance.randint(1, 4)]
        elif step == 2:
            broken[at:at] = bytes(chance.choice(b'0,"}{:1e.\\') for _ in range(chance.randint(1, 3)))
        elif step == 3:
            other = chance.randrange(len(broken))
            broken[at], broken[other] = broken[other], broken[at]
        else:
            broken[at:at] = broken[at : at + chance.randint(1, 40)]
    assert resolve(bytes(broken)) == decode_reference(bytes(broken)), bytes(broken)


@settings(max_examples=100, deadline=None)
@given(messages(strange=False), st.integers(0, 400), st.binary(max_size=64))
def test_what_lies_behind_a_message_changes_nothing(data: bytes, cut: int, padding: bytes) -> None:
    short = data[: min(cut, len(data))]
    assert decode(short, padding=data[len(short) :]) == decode(short)
    assert decode(data, padding=padding) == decode(data)


@settings(max_examples=500, deadline=None)
@given(st.one_of(PLAIN, GOOD_DECIMALS, st.integers(0, 10**19).map(str)))
@example("9007199254740993")
@example("9007199254740992.5")
@example("0.3")
@example("123456789012345678.9")
def test_decimals_are_the_doubles_that_float_gives(text: str) -> None:
    found = decode(b'{"u":1,"s":"X","b":"%s","B":"1","a":"1","A":"1"}' % text.encode())
    assert isinstance(found, dict)
    assert found["bid"].hex() == float(text).hex()
    trade = decode(b'{"e":"trade","E":1,"s":"X","t":1,"p":"1","q":"%s","T":1,"m":true}' % text.encode())
    if trade == DECODED_UNUSUAL:
        assert len(text.replace(".", "").lstrip("0")) > 19 or len(text.partition(".")[2]) > 18
    else:
        assert isinstance(trade, dict)
        assert Decimal(trade["qty_mantissa"]).scaleb(-trade["qty_scale"]) == Decimal(text)
        assert trade["qty"].hex() == float(text).hex()
