"""What is asked of a model, in token ids, and the key under which its answer is kept.

A key depends on the ids alone: where the context ends matters (the same ids split elsewhere ask
another question), which model answers does not (answers are filed by checkpoint).

    >>> a = LoglikelihoodRequest((1, 2), (3,)).key
    >>> a == LoglikelihoodRequest((1,), (2, 3)).key
    False
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from mambabench.fingerprint import canonical_json
from mambabench.models.base import SamplingOptions

_KEY_BYTES = 32


@dataclass(frozen=True)
class LoglikelihoodRequest:
    """How likely is `continuation` after `context`? Both are token ids, neither is empty."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]

    @cached_property
    def key(self) -> str:
        """Digest of the request, 64 hexadecimal digits."""
        return _key(b"loglikelihood", _pack(self.context), _pack(self.continuation))


@dataclass(frozen=True)
class GenerationRequest:
    """Continue `context` until a stop string, an end-of-text token or `max_new_tokens`."""

    context: tuple[int, ...]
    max_new_tokens: int
    stop: tuple[str, ...]
    options: SamplingOptions
    eos_ids: tuple[int, ...] = ()
    """Ids that end a text."""
    repeat: int = 0
    """Which draw of a repeated sampled request this is; 0 for greedy ones."""

    @cached_property
    def key(self) -> str:
        """Digest of the request, 64 hexadecimal digits."""
        how = [self.max_new_tokens, self.stop, vars(self.options), self.eos_ids, self.repeat]
        return _key(b"generation", _pack(self.context), canonical_json(how).encode())


@dataclass(frozen=True)
class LoglikelihoodAnswer:
    """Natural-log probability of the whole continuation, and whether each token was the most likely."""

    logprob: float
    is_greedy: bool


def _pack(ids: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(ids)}i", *ids)


def _key(*parts: bytes) -> str:
    hasher = hashlib.blake2b(digest_size=_KEY_BYTES)
    for part in parts:
        hasher.update(struct.pack("<q", len(part)))
        hasher.update(part)
    return hasher.hexdigest()
