"""What a comparison says, as plain data: every format renders these and nothing else.

Values are in the units that are shown: fractions have become percent, their differences percentage points
("pt"). Perplexities are compared by their ratio, given as a change in percent. Differences are candidate
minus baseline.

    >>> Family("tasks", 6, "holm", 0.05).describe()
    '6 tests (tasks), p-values adjusted by Holm, 5% in all'
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Verdict = Literal["better", "worse", "equivalent", "not distinguishable", "not tested"]
Correction = Literal["holm", "bh", "none"]
FamilyName = Literal["tasks", "further metrics", "log-likelihoods", "overall", "speed"]
_CORRECTIONS: dict[Correction, str] = {
    "holm": "p-values adjusted by Holm, {alpha} in all",
    "bh": "p-values adjusted by Benjamini and Hochberg, {alpha} of what is found",
    "none": "p-values not adjusted, {alpha} each",
}


@dataclass(frozen=True)
class CompareOptions:
    """How sides are compared; the defaults are those of the command."""

    correction: Correction = "holm"
    alpha: float = 0.05
    margin_points: float = 1.0
    """Differences of accuracy within so many percentage points do not matter."""
    margin_percent: float = 1.0
    """Changes of a perplexity within so many percent do not matter."""
    margin_nats: float = 0.01
    """Differences of a mean log-likelihood within so many nats do not matter."""
    power: float = 0.8
    detect_points: float | None = None
    """Difference of accuracy for which the number of items is told; None for the margin."""
    replicates: int = 10_000
    """Of a bootstrap."""
    seed: int = 0
    cluster: str = "auto"
    """"auto": by subject within groups and by passages that several items share; "none"; or a field of the
    documents."""
    log_likelihoods: bool = True
    """Whether right answers' log-likelihoods are compared too."""
    n_examples: int = 5
    """Items shown of each kind for each task and candidate."""
    ranking: bool = False


@dataclass(frozen=True)
class Side:
    """What is compared: one model of one run."""

    label: str
    """As in tables: given by the user, or the model's name, made unique."""
    model: str
    run: Path
    kind: str
    """The run's kind, for example "zeroshot"."""
    has_samples: bool
    """Without them only totals can be compared."""
    partial: bool
    origin: str = ""
    """What was given on the command line."""


@dataclass(frozen=True)
class Family:
    """Tests whose errors are bounded together."""

    name: FamilyName
    n_tests: int
    correction: Correction
    alpha: float

    def describe(self) -> str:
        """Return one phrase with its size and correction."""
        how = _CORRECTIONS[self.correction].format(alpha=f"{100 * self.alpha:g}%")
        return f"{self.n_tests} {'test' if self.n_tests == 1 else 'tests'} ({self.name}), {how}"


@dataclass(frozen=True)
class Contrast:
    """One measure of one task: a candidate against the baseline."""

    candidate: str
    """Label of the side."""
    task: str
    label: str
    measure: str
    """Metric, or "log-likelihood" of the right answer in nats."""
    headline: bool
    """Whether this is the task's first metric, which enters the overall figure if it is an accuracy."""
    family: FamilyName
    """"tasks": the headlines, one a task; a suite's further metrics are tested apart from them."""
    unit: str
    """Of both values: "%", "ppl", "bits/byte", "nats" or ""."""
    effect_unit: str
    """Of the difference, its interval and the margin: "pt", "%", "bits/byte", "nats" or ""."""
    higher_is_better: bool
    paired: bool
    """Whether the same items were compared one by one; if not, only totals were."""
    n: int
    """Items compared; unpaired those of the baseline."""
    n_candidate: int
    """The same number when paired."""
    n_total: int
    """Items that the task has."""
    baseline_value: float | None
    """Over the items compared."""
    candidate_value: float | None
    difference: float | None
    low: float | None
    high: float | None
    """Ends of the 95% interval of the difference, not adjusted for other tests; None where undetermined."""
    interval_method: str
    test: str
    """For example "exact McNemar"; empty where nothing could be tested."""
    p_value: float | None
    p_adjusted: float | None
    n_won: int | None
    """Items that only the candidate has right; None unless every item is right or wrong."""
    n_lost: int | None
    n_clusters: int | None
    """Groups of items that are not independent; None where each item stands for itself."""
    cluster_name: str
    margin: float
    """Differences within plus and minus so much do not matter; for a ratio of perplexities the upper one."""
    p_equivalence: float | None
    p_equivalence_adjusted: float | None
    detectable: float | None
    """Smallest true difference that so many items show by this test with the asked-for power, at the level
    that is not adjusted; None where they show none, or do not tell how much items differ."""
    n_needed: int | None
    """Items after which a difference of the margin, or of `CompareOptions.detect_points` where that is given,
    would be shown with that power."""
    verdict: Verdict
    within_margin: bool = False
    """Whether a better or worse one is nevertheless equivalent within the margin."""
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Overall:
    """The mean difference over the tasks' headline accuracies, each task counting the same."""

    candidate: str
    n_tasks: int
    baseline_value: float
    """Mean accuracy in percent."""
    candidate_value: float
    difference: float
    low: float
    high: float
    """In percentage points."""
    p_value: float
    p_adjusted: float
    p_equivalence: float
    p_equivalence_adjusted: float
    detectable: float | None
    verdict: Verdict
    method: str
    within_margin: bool = False
    paired: bool = True
    """Whether all tasks in it were compared item by item."""


@dataclass(frozen=True)
class Shift:
    """One item of one candidate against the baseline."""

    candidate: str
    task: str
    member: str
    doc_id: int
    change: Literal["won", "lost", "shift"]
    """"won", "lost": right only with the candidate, or only with the baseline; "shift": neither."""
    baseline_value: float | None
    """Of the first metric by which items are right or wrong, else of the headline; in lm-eval's unit. None
    for perplexities, which no item has by itself."""
    candidate_value: float | None
    baseline_log_likelihood: float | None
    """Of the right answer, in nats."""
    candidate_log_likelihood: float | None
    text: str
    """What was asked, shortened from the left."""
    right_answer: str
    baseline_answer: str
    """What the baseline gave; empty where that is not known."""
    candidate_answer: str


@dataclass(frozen=True)
class CategoryChange:
    """What changed within one category of a task's items."""

    candidate: str
    task: str
    by: str
    """"subject", "answer length", "context length"."""
    category: str
    n: int
    n_won: int
    n_lost: int
    baseline_value: float
    """Accuracy in percent."""
    candidate_value: float
    difference: float
    low: float
    high: float
    """95% interval in points, not adjusted for the number of categories."""


@dataclass(frozen=True)
class CalibrationBin:
    """Items of about the same confidence."""

    low: float
    high: float
    """Bounds of the confidence, 0 to 1."""
    n: int
    mean_confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """Accuracy against confidence of one side on one task with choices."""

    side: str
    task: str
    label: str
    n: int
    accuracy: float
    mean_confidence: float
    error: float
    """Expected calibration error: mean distance of accuracy and confidence over the bins, by items, less what
    noise adds. It can be below the distance of all items' accuracy and confidence, which has its noise."""
    low: float
    high: float
    """95% interval of the error."""
    bins: tuple[CalibrationBin, ...]


@dataclass(frozen=True)
class TaskChanges:
    """Items of one task that changed between the baseline and a candidate."""

    candidate: str
    task: str
    label: str
    n: int
    n_won: int | None
    n_lost: int | None
    won: tuple[Shift, ...]
    """Examples, those with the largest shifts of log-likelihood first."""
    lost: tuple[Shift, ...]
    shifts: tuple[Shift, ...]
    """Largest shifts of the right answer's log-likelihood, whichever way."""
    categories: tuple[CategoryChange, ...]


@dataclass(frozen=True)
class Rank:
    """One side's place among all."""

    label: str
    strength: float
    """Bradley and Terry's, as the probability to win against an average side; ties count half."""
    low: float
    high: float
    """95% interval by a bootstrap over items."""
    group: int
    """From 1; the best of `groups`."""
    groups: tuple[int, ...] = ()
    """All that the side belongs to: two sides share one exactly where the items do not settle their order, so
    that groups overlap."""


@dataclass(frozen=True)
class Ranking:
    """All sides ranked by items won against each other."""

    ranks: tuple[Rank, ...]
    n_items: int
    n_decisive: int
    """Items on which at least two sides differ."""
    tasks: tuple[str, ...]
    replicates: int
    method: str


@dataclass(frozen=True)
class Comparison:
    """Candidates against a baseline on tasks."""

    baseline: Side
    candidates: tuple[Side, ...]
    title: str
    contrasts: tuple[Contrast, ...]
    """By task, measure, then candidate."""
    overall: tuple[Overall, ...]
    """One a candidate, where at least two tasks have an accuracy."""
    families: tuple[Family, ...]
    changes: tuple[TaskChanges, ...] = ()
    calibrations: tuple[Calibration, ...] = ()
    ranking: Ranking | None = None
    remarks: tuple[str, ...] = ()
    """Sentences that limit what was compared: partial runs, tasks that only some sides have, ..."""
    options: CompareOptions = field(default_factory=CompareOptions)
