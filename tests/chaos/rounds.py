"""How many rounds of killing: ten in `make test`, a hundred in `make chaos`."""

from __future__ import annotations

import os

ROUNDS = 100 if os.environ.get("TRADEBACK_CHAOS") == "1" else 10
