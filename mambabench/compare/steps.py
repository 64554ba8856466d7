"""Training steps, read from names and from what trainers leave: which checkpoint of which run of training.

    step_of("out/checkpoint-500")           # 500; so do step500, iter_0000500, global_step500, @step500
    stepped("pythia-160m@step1000")         # Stepped(series='pythia-160m', step=1000)

A folder's `trainer_state.json` goes before its name. Epochs are no steps, nor are sizes such as `ckpt-7b`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TRAINER_STATE: Final = "trainer_state.json"
"""What transformers' Trainer writes into each checkpoint, with `global_step` in it."""
_NUMBER: Final = r"[-_=:. ]{0,2}(\d{1,12})(k|m)?(?![A-Za-z0-9]|[.,]\d)"
_STEP: Final = re.compile(rf"(?<![A-Za-z])(?:global[-_ ]?)?steps?{_NUMBER}", re.IGNORECASE)
_OTHER: Final = re.compile(rf"(?<![A-Za-z])(?:checkpoint|ckpt|iteration|iter){_NUMBER}", re.IGNORECASE)
_NOT_SERIES: Final = re.compile(
    r"(?<![A-Za-z])(?:epochs?[-_=:. ]{0,2}\d+(?:\.\d+)?|tokens[-_=:. ]?\d+(?:\.\d+)?[kmbt]?)(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_FILE_ENDING: Final = re.compile(r"\.(?:jsonl?|pt|pth|bin|ckpt|safetensors|gguf)$", re.IGNORECASE)
_SEPARATORS: Final = "-_=:.@#/ "
_BARE: Final = ("checkpoint", "ckpt", "checkpoints", "model")
_MULTIPLES: Final = {"": 1, "k": 1_000, "m": 1_000_000}


@dataclass(frozen=True)
class Stepped:
    """A checkpoint's place in a run of training."""

    series: str
    """Name of the run of training: what is left of the checkpoint's name, or the folder that it lies in;
    empty where neither says anything."""
    step: int


def step_of(named: str | Path) -> int | None:
    """Return the training step that a name or a folder stands for, None where it stands for none.

    Args:
        named: a model's name, a revision, a file or a folder; it need not exist.
    """
    found = stepped(named)
    return None if found is None else found.step


def stepped(named: str | Path) -> Stepped | None:
    """Return the run of training and the step that a name or a folder stands for, None for no step.

    Args:
        named: as for `step_of`. In a path the last part counts, or the one before it if that has no step.
    """
    parts = [part for part in re.split(r"[/\\]+", str(named)) if part not in ("", ".")]
    recorded = _recorded(named)
    for place in range(len(parts) - 1, max(-1, len(parts) - 3), -1):
        if (match := _match(parts[place])) is not None:
            step = int(match[1]) * _MULTIPLES[(match[2] or "").lower()]
            left = parts[place][: match.start()] + "\n" + parts[place][match.end() :]
            series = _series(left) or (_series(parts[place - 1]) if place else "")
            return Stepped(series, step if recorded is None else recorded)
    if recorded is None:
        return None
    return Stepped(_series(parts[-1]) if parts else "", recorded)


def _match(text: str) -> re.Match[str] | None:
    """Return the last step in a text; one that calls itself a step goes before a checkpoint's number."""
    for pattern in (_STEP, _OTHER):
        if found := list(pattern.finditer(text)):
            return found[-1]
    return None


def _series(left: str) -> str:
    """Return what a name says besides its step, where the step stood marked by a line break."""
    text = _NOT_SERIES.sub("\n", _FILE_ENDING.sub("", left))
    words = [word.strip(_SEPARATORS) for word in text.split("\n")]
    kept = [word for word in words if word and word.lower() not in _BARE]
    return "-".join(kept) if kept != [".."] else ""


def _recorded(named: str | Path) -> int | None:
    """Return the step that a trainer wrote down; a damaged record says nothing."""
    try:
        state = json.loads((Path(named) / TRAINER_STATE).read_bytes())
    except (OSError, ValueError):
        return None
    step = state.get("global_step") if isinstance(state, dict) else None
    return step if isinstance(step, int) and not isinstance(step, bool) and step >= 0 else None
