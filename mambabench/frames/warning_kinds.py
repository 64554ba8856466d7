"""The closed list of what limits what runs say: each with its severity and the way out.

>>> KINDS["interrupted"].severity
'wrong'
>>> [kind for kind in KINDS if kind not in SEVERITY]
[]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from mambabench.tables.longcontext import flags as long_flags
from mambabench.tables.speed import flags as speed_flags

Severity = Literal["wrong", "doubt", "note"]
SEVERITIES: Final[tuple[Severity, ...]] = ("wrong", "doubt", "note")
"""The gravest first: a figure is missing or unusable; it may mislead; worth knowing."""


@dataclass(frozen=True)
class WarningKind:
    """A kind of warning."""

    severity: Severity
    advice: str
    """The way out, a sentence."""


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


_OWN: Final[dict[str, WarningKind]] = {
    "unreadable run": WarningKind(
        "wrong", "`mambabench runs verify` says which files; restore them from a copy or leave the run out."
    ),
    "unreadable part": WarningKind(
        "wrong", "Delete the files that are named and run the same command: it computes them again."
    ),
    "no answers": WarningKind(
        "wrong", "Delete the records beside the files that are named and run the same command again."
    ),
    "interrupted": WarningKind("wrong", "The same command finishes the run."),
    "failed cells": WarningKind("wrong", "The same command tries again; what went wrong is said here."),
    "failed points": WarningKind("wrong", "The same command tries again; what went wrong is said here."),
    "certificate failed": WarningKind(
        "wrong", "Believe nothing of it; `--engine as-shipped` or `--arm shipped` runs the model's own code."
    ),
    "resuming differs": WarningKind(
        "wrong", "Going on from the kept state is not the same as forwarding again: do not use these times."
    ),
    "not a number": WarningKind(
        "wrong", "The forward overflowed or a text was empty; try `--dtype float32` and look at the samples."
    ),
    "not compared with the model as shipped": WarningKind(
        "doubt", "Run without `--no-verify` in a new directory, so that a difference would be noticed."
    ),
    "history is not noticed": WarningKind(
        "doubt", "Replies are the same without the history; use trained weights or a longer turn."
    ),
    "partial": WarningKind("doubt", "Run without `--limit` for figures that others can be held against."),
    "differs from published": WarningKind(
        "doubt", "Check weights, tokenizer and prompts against those of the source that is named."
    ),
    "no samples": WarningKind(
        "doubt", "Delete the records of these cells and run the same command: it scores them again."
    ),
    "few items": WarningKind("doubt", "Score more items, or name tasks that have more."),
    "few processes": WarningKind(
        "doubt", "From 6 processes on there are intervals; `--processes 6` adds to the same run."
    ),
    "random weights": WarningKind(
        "doubt", "Answers of random weights mean nothing; name trained ones. Speed hardly depends on them."
    ),
    "compared differently": WarningKind(
        "doubt", "Compare like with like: the same tasks, items, prompts and versions on both sides."
    ),
    "not compared": WarningKind("doubt", "Run the models on the same tasks, or show them one by one."),
    "resumed elsewhere": WarningKind("doubt", "Run it again in a new directory where parts must be alike."),
    "different weights": WarningKind(
        "doubt", "Rename one of the models' directories, or leave one of the runs out."
    ),
    "mixed machines": WarningKind(
        "doubt", "Compare speeds within a machine only, or measure all models on one."
    ),
    "mixed versions": WarningKind("doubt", "Run all models with the same versions where differences count."),
    "out of memory": WarningKind("note", "An answer in itself: the point needs more memory than there was."),
    "cannot be measured": WarningKind("note", "The model or the device has no such point; leave it out."),
    "imported": WarningKind("note", "Another program computed it; nothing of it was checked here."),
    "said while computing": WarningKind("note", "As it was said at the time."),
    "about the text": WarningKind("note", "Keep it in mind where models or texts are compared."),
}  # fmt: skip
"""Those that are not flags of a table."""

_OF_FLAGS: Final[dict[str, Severity]] = {
    speed_flags.PAST_TRAINING: "note",
    speed_flags.NOT_STEADY: "doubt",
    speed_flags.FEW_REPEATS: "doubt",
    speed_flags.FEW_PREFILLS: "note",
    speed_flags.SHORT: "doubt",
    speed_flags.OUTLIERS: "note",
    speed_flags.FEW_TOKENS: "note",
    speed_flags.DIFFER: "doubt",
    speed_flags.OUTCOMES_DIFFER: "doubt",
    speed_flags.PATHS_DIFFER: "doubt",
    speed_flags.FALLBACK: "wrong",
    speed_flags.STATE_DIFFERS: "wrong",
    speed_flags.EMULATED: "note",
    speed_flags.NOT_POSITIVE: "doubt",
    speed_flags.ABOVE_CEILING: "doubt",
    speed_flags.CEILINGS_UNSTEADY: "doubt",
    speed_flags.BUSY: "doubt",
    speed_flags.NOT_CERTIFIED: "wrong",
    speed_flags.INCOMPLETE: "wrong",
    long_flags.UNSUPPORTED: "note",
    long_flags.FAILED: "wrong",
    long_flags.MISSING: "wrong",
    long_flags.FEW_SAMPLES: "doubt",
    long_flags.COST_FAILED: "doubt",
    long_flags.FEW_PROCESSES: "doubt",
}
SEVERITY: Final[dict[str, Severity]] = _OF_FLAGS | {name: kind.severity for name, kind in _OWN.items()}
"""By the kind's name."""

SPEED_ADVICE: Final = {flag: _sentence(words) for flag, words in speed_flags.ADVICE.items()}
# A warning says by itself what tables say above their footnotes.
LONG_ADVICE: Final = {
    flag: _sentence(words.replace("said above", "said here")) for flag, words in long_flags.ADVICE.items()
}

KINDS: Final[dict[str, WarningKind]] = {
    name: _OWN.get(name) or WarningKind(SEVERITY[name], (SPEED_ADVICE | LONG_ADVICE)[name])
    for severity in SEVERITIES
    for name in [*_OWN, *SPEED_ADVICE, *LONG_ADVICE]
    if SEVERITY[name] == severity
}
"""All kinds, the gravest first."""
