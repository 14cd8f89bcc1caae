"""How much the tests do: `make chaos` sets TRADEBACK_CHAOS=1 for the long forms."""

from __future__ import annotations

import os

CHAOS = os.environ.get("TRADEBACK_CHAOS") == "1"
