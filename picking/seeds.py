"""Random numbers: one seed, and a named stream for every use of it.

A stream depends only on the seed and its names, never on what was drawn before. So the number of
workers, the order of the work and an interruption change nothing, and no random state is saved.
"""

import hashlib

import numpy as np


def stream_seed(seed: int, *names: str | int) -> int:
    """Return the 63-bit seed of the stream ``names`` under ``seed``."""
    text = "/".join(str(part) for part in (seed, *names))
    digest = hashlib.sha256(text.encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """Return a NumPy generator for the stream ``names``, e.g. ``stream(42, "hide", "a.jpg")``."""
    return np.random.default_rng(stream_seed(seed, *names))
