"""The OpenAPI 3.1 document of the API: `document.py` puts it together, `page.py` answers it.

What a family of paths has is in `market.py`, `accounts.py` and `tradingview.py`, in the words of `parts.py`.
`tests/e2e/test_openapi.py` holds it against the table of routes and against what is answered, and
`tests/e2e/test_schemathesis.py` asks the API whatever comes of it.
"""
