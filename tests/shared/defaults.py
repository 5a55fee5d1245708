"""Options of containers in tests; a module of its own, for there is more than one `conftest`."""

from __future__ import annotations

from typing import Any

from container_magic.cgroups.facts import probe

# without a memory controller of its own an ordinary user has only what best effort gives
DEFAULTS: dict[str, Any] = {
    "timeout": "60s",
    "warm": 1,  # the pool is on; more than one would only take time from the next test
    **({"mem": "256M"} if "memory" in probe().controllers else {"best_effort": True}),
}
