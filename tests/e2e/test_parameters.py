"""Parameters are read strictly, and what is wrong is named: every parameter of the document, with what it cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.e2e.accounts import Accounts, accounts_api
from tests.e2e.api import Answer
from tests.servers.services import config_of
from tradeback.api.openapi.document import document
from tradeback.store.histories import open_history

SYMBOL = "BTCUSDT"
UDF = ("/udf/", "/api/v1/tradingview/")
# They take whatever is sent along: a probe, a browser on its way.
PASS_OVER = ("/api/v1/health", "/api/v1/ws")
NO_INTEGERS = [
    *(
        "",
        " ",
        "NaN",
        "nan",
        "inf",
        "-inf",
        "Infinity",
        "1e3",
        "1E3",
        "1.0",
        "1.",
        ".5",
        "0x10",
        "0b1",
        "1_0",
        "+5",
    ),
    *(
        " 5",
        "5 ",
        "5\n",
        "--5",
        "-",
        "five",
        "true",
        "null",
        "1,2",
        "[1]",
        "\u0661\u0662",
        "\uff19",
        "\u00b2",
        "\0",
    ),
    *(str(2**63), str(-(2**63) - 1), str(2**64), "9" * 30, "9" * 2_000),
]
NO_CHOICES = ["", " ", "x", "\0", "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")]
BAD = "bad_parameter"
DOCUMENT = document()


def parameters() -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Method, path with a symbol, name and schema of every parameter of a query."""
    for template, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            if method in ("head", "options"):
                continue
            path = template.replace("{symbol}", SYMBOL)
            for parameter in operation["parameters"]:
                if parameter["in"] == "query":
                    yield method.upper(), path, parameter["name"], parameter["schema"]


PARAMETERS = sorted(parameters(), key=str)
STRICT = sorted(
    (method.upper(), path.replace("{symbol}", SYMBOL))
    for path, methods in DOCUMENT["paths"].items()
    for method in methods
    if method not in ("head", "options") and not path.startswith(UDF) and path not in PASS_OVER
)


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Accounts]:
    folder = tmp_path_factory.mktemp("parameters")
    open_history(config_of(folder), write=True).close()
    with accounts_api(folder) as there:
        yield there


def with_needed(path: str, name: str) -> str:
    """The path with what it needs beside the parameter that is tried."""
    if not path.startswith(UDF):
        return f"{path}?"
    needed = {"symbol": SYMBOL, "resolution": "1", "symbols": SYMBOL}
    return f"{path}?" + "".join(f"{other}={value}&" for other, value in needed.items() if other != name)


def named(answer: Answer, path: str, name: str) -> bool:
    """Whether an answer is a refusal that names the parameter."""
    if answer.status != 400:
        return False
    if path.startswith(UDF):
        return set(answer.json) == {"s", "errmsg"} and str(answer.json["errmsg"]).startswith(f"{name}: ")
    error = answer.json["error"]
    return (error["code"], error["parameter"]) == (BAD, name) and name in error["message"]


@pytest.mark.parametrize(("method", "path", "name", "schema"), PARAMETERS)
def test_what_it_cannot_be_is_refused_by_name(
    there: Accounts, method: str, path: str, name: str, schema: dict[str, Any]
) -> None:
    if schema.get("type") == "integer":
        bad = [*NO_INTEGERS, str(schema["minimum"] - 1), str(schema["maximum"] + 1)]
    elif "enum" in schema:
        bad = [
            *NO_CHOICES,
            *(f"{one} " for one in schema["enum"]),
            *(f"{one}{one}" for one in schema["enum"]),
        ]
    else:
        bad = ["\0", "a\0b", *(["x" * (schema["maxLength"] + 1)] if "maxLength" in schema else [])]
    body = {"Content_Length": "0"} if method == "POST" else {}
    for value in bad:
        answer = there.api.ask(f"{with_needed(path, name)}{name}={quote(value)}", method, **body)
        assert named(answer, path, name), (value, answer)
        assert len(answer.body) < 1_000


@pytest.mark.parametrize(("method", "path", "name", "schema"), PARAMETERS)
def test_given_twice_it_is_refused_by_name(
    there: Accounts, method: str, path: str, name: str, schema: dict[str, Any]
) -> None:
    value = schema["enum"][0] if "enum" in schema else "1"
    answer = there.api.ask(f"{with_needed(path, name)}{name}={value}&{name}={value}", method)
    assert named(answer, path, name), answer


@pytest.mark.parametrize(("method", "path"), STRICT)
def test_an_unknown_one_is_refused_by_name(there: Accounts, method: str, path: str) -> None:
    for query, name in (
        ("x=1", "x"),
        ("Limit=1", "Limit"),
        ("%C3%A9=", "é"),
        ("=", ""),
        ("from%5B%5D=1", "from[]"),
    ):
        answer = there.api.ask(f"{path}?{query}", method)
        assert answer.status == 400, answer
        assert (answer.json["error"]["code"], answer.json["error"].get("parameter", "")) == (BAD, name)
    for query in ("%ff=1", "x=%ff", "&".join(f"a{n}=1" for n in range(30))):
        answer = there.api.ask(f"{path}?{query}", method)
        assert (answer.status, answer.json["error"]["parameter"]) == (400, "query")


@pytest.mark.parametrize("path", PASS_OVER)
def test_some_pass_everything_over(there: Accounts, path: str) -> None:
    assert there.api.ask(f"{path}?x=1&x=2&%ff").status == there.api.ask(path).status


@pytest.mark.parametrize("base", UDF)
def test_the_adapter_may_add_its_own(there: Accounts, base: str) -> None:
    own = "&currencyCode=USD&unitId=&session=regular&session=x&%C3%A9=1"
    for path in (
        f"symbols?symbol={SYMBOL}",
        f"history?symbol={SYMBOL}&resolution=1&from=0&to=1",
        "search?query=",
    ):
        assert there.api.ask(f"{base}{path}{own}").status == there.api.ask(f"{base}{path}").status == 200


def test_what_it_can_be(there: Accounts) -> None:
    bars = f"/api/v1/symbols/{SYMBOL}/bars"
    for query in (
        "from=0&to=9000000000",
        "from=0",
        "to=0",
        "limit=1",
        "limit=5000",
        "resolution=1d",
        "from=0007",
    ):
        assert there.api.get(f"{bars}?{query}")["bars"] == []


def test_searching(there: Accounts) -> None:
    def found(query: str) -> tuple[list[str], str]:
        answer = there.api.ask(f"/api/v1/symbols?{query}")
        assert answer.status == 200, answer
        return [row["symbol"] for row in answer.json], answer.headers["x-total-count"]

    assert found("") == (["BTCUSDT", "ETHUSDT", "ETHBTC"], "3")
    assert found("q=") == found("")
    # The base currency before the quote currency.
    assert found("q=btc") == (["BTCUSDT", "ETHBTC"], "2")
    assert found("q=ETH") == (["ETHBTC", "ETHUSDT"], "2")
    assert found("q=ethusdt") == (["ETHUSDT"], "1")
    assert found("q=eth/u") == found("q=ethu") == (["ETHUSDT"], "1")
    assert found("q=/") == (["BTCUSDT", "ETHBTC", "ETHUSDT"], "3")
    assert found("q=usdt&limit=1") == (["BTCUSDT"], "2")
    assert found("limit=2")[1] == "3"
    assert len(found("limit=2")[0]) == 2
    assert found("quote=USDT") == (["BTCUSDT", "ETHUSDT"], "2")
    assert found("base=ETH&quote=USDT") == (["ETHUSDT"], "1")
    assert found("q=b&quote=BTC") == (["ETHBTC"], "1")
    assert found("base=eth") == found("q=nothing") == found("q=%20") == ([], "0")
