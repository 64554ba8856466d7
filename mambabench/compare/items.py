"""Scored items as columns: what a comparison needs of a stored cell, and two sides laid side by side.

A `TaskItems` is one side's cell (one of lm-eval's tasks); an `AlignedTask` is what sides have in common of
one task or group of a suite, the same item in the same place of every column.

    measure = Measure("acc", "none", "fraction", "binary", np.array([1.0, 0.0]), None, True, 0.5)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mambabench.schema import CellRecord, Unit

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

MeasureKind = Literal["binary", "mean", "log mean", "ratio", "corpus"]
LOG_LIKELIHOOD = "log-likelihood"
"""Name of a measure of tasks with right answers: natural log of the right one's probability."""


@dataclass(frozen=True)
class Measure:
    """One number an item, in the order of the items.

    `recorded` is the value that the run itself states; columns from which it does not follow are refused.
    """

    name: str
    """lm-eval's name of the metric, or `LOG_LIKELIHOOD`."""
    filter: str
    """lm-eval's filter whose answer was scored; "none" where there is none."""
    unit: Unit
    kind: MeasureKind
    """"binary": each item is 0 or 1 and the value is their mean; "mean": any numbers and their mean;
    "log mean": log-likelihoods, the value is exp(-mean); "ratio": log-likelihoods over `weights`, the value
    is exp(-sum/sum), or -sum/sum/ln 2 where the unit is bits per byte; "corpus": no mean of single items, so
    that nothing can be tested."""
    values: Floats
    """[n]"""
    weights: Floats | None
    """[n], for a ratio the words or bytes of each item."""
    higher_is_better: bool
    """Of the value."""
    recorded: float


@dataclass(frozen=True)
class Choices:
    """Log-likelihoods of every choice of multiple-choice items."""

    log_likelihoods: Floats
    """[n, most choices], NaN beyond an item's own."""
    lengths_bytes: Floats
    """[n, most choices], UTF-8 bytes of each choice's text without the space before it; NaN beyond."""
    lengths_chars: Floats
    """The same in characters, by which lm-eval's acc_norm divides."""
    right: Integers
    """[n], index of the right choice, the first where several are right."""


@dataclass(frozen=True)
class TaskItems:
    """One side's items of one of lm-eval's tasks, ordered by document."""

    cell: CellRecord
    samples_path: Path
    """Parquet of `mambabench.store.samples`, from which texts are read for the items that are shown."""
    doc_ids: Integers
    """[n], rising."""
    doc_hashes: tuple[str, ...]
    prompt_hashes: tuple[str, ...]
    """Of all texts asked, worked examples and choices included; empty where a program did not keep them."""
    target_hashes: tuple[str, ...]
    context_lengths_bytes: Integers
    """[n], UTF-8 bytes of the longest context of each item's requests."""
    measures: dict[str, Measure]
    """By name; of several filters the one that tables read."""
    choices: Choices | None
    """None where the task has no choices, or what was kept does not give back its accuracy."""
    cluster_texts: tuple[str, tuple[str, ...]] | None = None
    """Name of the document's field that several items share ("passage") and its digest for each item."""
    remarks: tuple[str, ...] = ()
    """What was left out and why, one sentence each."""


@dataclass(frozen=True)
class AlignedSide:
    """One side of an aligned task: columns over the items in common."""

    measures: dict[str, Measure]
    choices: Choices | None
    samples_paths: tuple[Path, ...]
    """One for each member."""


@dataclass(frozen=True)
class AlignedTask:
    """The items that two or more sides have in common of one task or group of a suite."""

    task: str
    """lm-eval's name of the task or the group."""
    label: str
    """Name in tables."""
    metrics: tuple[str, ...]
    """That are read, the headline first; the right answer's log-likelihood is not among them."""
    members: tuple[str, ...]
    """lm-eval's tasks pooled in it, itself alone where it is no group."""
    member_of: Integers
    """[n], which member an item belongs to."""
    doc_ids: Integers
    """[n], within the member."""
    doc_hashes: tuple[str, ...]
    context_lengths_bytes: Integers
    """[n]"""
    clusters: Integers | None
    """[n], equal numbers where items are not independent; None where each stands for itself."""
    cluster_name: str
    """What they share: "subject", or the document's field; empty without clusters."""
    n_total: int
    """Items that the task has, by what both sides say."""
    sides: tuple[AlignedSide, ...]
    """In the order asked for, the baseline first."""
    partial: bool
    """Whether fewer items are in common than the task has."""
    held_back_by: tuple[int, ...] = ()
    """Places of the sides that have fewer items than another one, so that less is compared."""
    remarks: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        """Items in common."""
        return len(self.doc_ids)

    @property
    def accuracy(self) -> str | None:
        """The first metric by which each item is right or wrong on every side; None where there is none."""
        for name in self.metrics:
            measures = [side.measures.get(name) for side in self.sides]
            if all(m is not None and m.kind == "binary" and m.higher_is_better for m in measures):
                return name
        return None
