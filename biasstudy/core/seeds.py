"""Random streams and results by name: whatever is named alike is the same on every machine."""

import hashlib
import json
from typing import Any


def digest(value: Any, length: int = 20) -> str:
    """Hexadecimal sha256 of the canonical JSON of a value (keys sorted, no spaces, floats by
    repr)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def seed_for(*names: Any) -> int:
    """Seed of the random stream with this name: seed_for(seed, "generator", t, "init").

    names    str or int           any number of them; other names give an independent stream
    returns  int in [0, 2**63)    the same on every machine; adding a stream moves no other
    source   seeds by name after DomainBed's seed_hash
    """
    return int(digest(list(names), 16), 16) >> 1
