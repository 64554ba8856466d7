"""What somebody wants of a model: lengths, conversations at once, and bounds that must be kept.

>>> Wish(prompt_len_tokens=2000, gen_len_tokens=200, recall_percent=90.0).length_tokens
2200
>>> parse_percent("90%"), parse_seconds("50ms"), parse_seconds("1.5s")
(90.0, 0.05, 1.5)
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final, Literal

from mambabench.errors import UsageError

Preference = Literal["quality", "speed", "memory"]
PREFERENCES: Final[tuple[Preference, ...]] = ("quality", "speed", "memory")

_WHOLE_PERCENT = 100.0
_SECONDS: Final = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0}
_NUMBER = r"\s*(\d+(?:\.\d*)?|\.\d+)\s*"
_PERCENT = re.compile(rf"{_NUMBER}%\s*")
_TIME = re.compile(rf"{_NUMBER}({'|'.join(_SECONDS)})\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Wish:
    """What a model is to do, and what it may take; a bound that is None is not asked for.

    Raises:
        UsageError: a bound that can have no meaning.
    """

    prompt_len_tokens: int
    gen_len_tokens: int
    conversations: int = 1
    """Sequences that are generated for at once, as one batch."""
    memory_bytes: int | None = None
    """None for that of the device that runs were measured on, where it was recorded."""
    recall_percent: float | None = None
    """Least mean accuracy over recall tasks."""
    quality_percent: float | None = None
    """Least average accuracy over a suite's tasks."""
    ttft_s: float | None = None
    """Longest time to the first token."""
    tpot_s: float | None = None
    """Longest mean time of a later token."""
    prefer: Preference = "quality"
    """What decides among those that keep all bounds."""

    def __post_init__(self) -> None:
        if self.tpot_s is not None and self.gen_len_tokens == 1:
            raise UsageError(
                "--tpot bounds the tokens after the first, and --gen-len 1 has none",
                hint="Leave `--tpot` out, or generate more.",
            )

    @property
    def length_tokens(self) -> int:
        """Prompt and output together: how far back a model must remember."""
        return self.prompt_len_tokens + self.gen_len_tokens


def parse_percent(text: str, *, name: str = "a share") -> float:
    """Return the percent of a text such as "90%".

    Raises:
        UsageError: it is no percentage from above 0 to 100; also for a bare number, which may mean a share of
            1 as well.
    """
    match = _PERCENT.fullmatch(text)
    value = float(match[1]) if match else math.nan
    if not 0 < value <= _WHOLE_PERCENT:
        raise UsageError(f"{name} '{text}' is not a percentage above 0% and up to 100%", hint="Write 90%.")
    return value


def parse_seconds(text: str, *, name: str = "a time") -> float:
    """Return the seconds of a text such as "50ms", "2s" or "1.5min".

    Raises:
        UsageError: it is no time above 0 with its unit.
    """
    match = _TIME.fullmatch(text)
    value = float(match[1]) * _SECONDS[match[2].lower()] if match else 0.0
    if not 0 < value < math.inf:
        raise UsageError(f"{name} '{text}' is not a time with its unit", hint="Write 2s or 50ms.")
    return value
