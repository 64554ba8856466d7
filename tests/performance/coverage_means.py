"""Means, ratios and averages over the same items: coverage and false positives, simulated.

Differences are drawn as measures give them: normal, skewed (exponential, log-normal), with heavy tails
(Student's t on 3 degrees of freedom), most of them exactly 0, and of values that tie. Cases whose name ends
in "(too skewed)" are there to show where no interval holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
from performance.coverage_rows import Row, Section

from mambabench.stats import bootstrap
from mambabench.stats.combined import average_effect, quantile
from mambabench.stats.effect import Effect
from mambabench.stats.paired_mean import mean_effect, mean_equivalence
from mambabench.stats.totals import Totals
from mambabench.stats.unpaired import unpaired_binary

Floats = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Floats]


def normal(rng: np.random.Generator, n: int) -> Floats:
    return rng.standard_normal(n)


def student(rng: np.random.Generator, n: int) -> Floats:
    return rng.standard_t(3, n)


def exponential(rng: np.random.Generator, n: int) -> Floats:
    return rng.exponential(1, n)


def signs(rng: np.random.Generator, n: int) -> Floats:
    return rng.choice([-1.0, 1.0], n)


def log_normal(sigma: float) -> Draw:
    return lambda rng, n: rng.lognormal(0, sigma, n)


def sparse(share: float, draw: Draw) -> Draw:
    """Return draws of which only a share is not 0."""
    return lambda rng, n: np.where(rng.random(n) < share, draw(rng, n), 0.0)


COVERED: dict[str, tuple[Draw, float]] = {
    "normal": (normal, 0.0),
    "exponential": (exponential, 1.0),
    "t on 3 df": (student, 0.0),
    "normal, half are 0": (sparse(0.5, normal), 0.0),
    "normal, 80% are 0": (sparse(0.2, normal), 0.0),
    "t on 3 df, 80% are 0": (sparse(0.2, student), 0.0),
    "exponential, half are 0": (sparse(0.5, exponential), 0.5),
    "exponential, 80% are 0": (sparse(0.2, exponential), 0.2),
    "exponential, 95% are 0 (too skewed)": (sparse(0.05, exponential), 0.05),
    "log-normal, sigma 1 (too skewed)": (log_normal(1.0), math.exp(0.5)),
    "log-normal, sigma 2 (too skewed)": (log_normal(2.0), math.exp(2.0)),
}
NULLS: dict[str, Draw] = {
    "normal": normal,
    "t on 3 df": student,
    "plus and minus 1": signs,
    "plus and minus 1, 80% are 0": sparse(0.2, signs),
    "quarters, 80% are 0": sparse(0.2, lambda rng, n: rng.integers(-4, 5, n) / 4),
    "normal, 80% are 0": sparse(0.2, normal),
}
SIZES: dict[str, Callable[[int], Floats]] = {
    "equal": lambda g: np.full(g, 20.0),
    "log-normal, sigma 1": lambda g: np.ceil(20 * np.exp(np.random.default_rng(g).standard_normal(g))),
    "one with a quarter": lambda g: np.append(np.full(g - 1, 20.0), 20.0 * (g - 1) // 3),
    "one with half": lambda g: np.append(np.full(g - 1, 20.0), 20.0 * (g - 1)),
}
"""Of clusters."""
SHARED = (0.0, 0.1, 0.5, 1.0)
"""Shares of the variance that items of a cluster have in common."""


def student_interval(repeats: int = 10_000) -> Iterator[Row]:
    """Rows of the paired t interval."""
    for n in (30, 100, 200, 500):
        for name, (draw, mean) in COVERED.items():
            x = draw(np.random.default_rng(n), n * repeats).reshape(repeats, n)
            half = quantile(0.95, n - 1) * x.std(axis=1, ddof=1) / math.sqrt(n)
            yield _row(n, name, float((np.abs(x.mean(axis=1) - mean) <= half).mean()), repeats)


def bootstrap_interval(repeats: int = 2000) -> Iterator[Row]:
    """Rows of the BCa interval over 1,000 replicates, below its threshold too."""
    limits = bootstrap.N_FOR_BOOTSTRAP, bootstrap.ALIKE_FOR_BOOTSTRAP
    bootstrap.N_FOR_BOOTSTRAP = bootstrap.ALIKE_FOR_BOOTSTRAP = 2
    try:
        for n in (100, 200, 500, 1000, 2500):
            for name, (draw, mean) in COVERED.items():
                rng = np.random.default_rng(n)
                few = repeats if n <= 500 else repeats // 2
                covered = 0
                for seed in range(few):
                    values = draw(rng, n)
                    if np.ptp(values) == 0 or np.count_nonzero(values) < 2:
                        # Refused at any threshold, so that nothing wrong is claimed.
                        covered += 1
                        continue
                    interval = bootstrap.bca(values, replicates=1000, seed=seed)
                    covered += interval.low <= mean <= interval.high
                yield _row(n, name, covered / few, few)
    finally:
        bootstrap.N_FOR_BOOTSTRAP, bootstrap.ALIKE_FOR_BOOTSTRAP = limits


def clustered(repeats: int = 10_000) -> Iterator[Row]:
    """Rows of the clustered interval; the number is that of the clusters."""
    for n in (5, 10, 20, 57):
        for name, sized in SIZES.items():
            sizes = sized(n)
            rest = sizes.sum() - sizes
            half = quantile(0.95, Totals(sizes, sizes).degrees_of_freedom())
            shares = []
            for shared in SHARED:
                rng = np.random.default_rng(n)
                spread = np.sqrt((1 - shared) * sizes + shared * sizes**2)
                sums = rng.standard_normal((repeats, n)) * spread
                ratio = sums.sum(axis=1) / sizes.sum()
                moves = (sums - ratio[:, None] * sizes) / rest
                error = np.sqrt((moves**2).sum(axis=1) * (n - 1) / n)
                shares.append(float((np.abs(ratio) <= half * error).mean()))
            yield _row(n, f"sizes {name}", min(shares), repeats, max(shares))


def no_difference(repeats: int = 4000) -> Iterator[Row]:
    """Rows of `mean_effect`'s p-values below 5% where neither side is better."""
    for n in (1, 2, 3, 5, 6, 8, 10, 12, 16, 17, 20, 30, 100):
        for clusters in (None, np.arange(3 * n) // 3):
            shares = []
            for draw in NULLS.values():
                rng = np.random.default_rng(n)
                zeros = np.zeros(n if clusters is None else 3 * n)
                found = [
                    mean_effect(draw(rng, len(zeros)), zeros, clusters=clusters).p_value < 0.05
                    for _ in range(repeats // 4 if clusters is not None else repeats)
                ]
                shares.append(sum(found) / len(found))
            name = "items" if clusters is None else "clusters of 3"
            yield _row(n, f"{name}, {len(NULLS)} kinds of differences", min(shares), len(found), max(shares))
        rng = np.random.default_rng(n)
        skewed = [mean_effect(exponential(rng, n) - 1, np.zeros(n)).p_value < 0.05 for _ in range(repeats)]
        yield _row(
            n, "items, exponential minus 1 (sides differ, but not by mean)", sum(skewed) / repeats, repeats
        )


def at_the_margin(repeats: int = 4000) -> Iterator[Row]:
    """Rows of `mean_equivalence` where the difference is just the margin."""
    for n in (5, 10, 30, 100, 300):
        for name, draw in (
            ("normal", normal),
            ("normal, 80% are 0", sparse(0.2, normal)),
            ("t on 3 df", student),
        ):
            rng = np.random.default_rng(n)
            margin = 6 / math.sqrt(n)
            found = [
                mean_equivalence(draw(rng, n) + margin, np.zeros(n), margin) < 0.05 for _ in range(repeats)
            ]
            yield _row(n, name, sum(found) / repeats, repeats)


def averages(repeats: int = 1000) -> Iterator[Row]:
    """Rows of the mean of tasks whose differences are rare, skewed or over few clusters."""
    from mambabench.stats.paired_binary import binary_effect

    def rare(rng: np.random.Generator, n: int) -> Effect:
        u = rng.random(n)
        return binary_effect(u < 0.02, (u > 0.01) & (u < 0.03))

    def often(rng: np.random.Generator, n: int) -> Effect:
        return binary_effect(rng.random(n) < 0.5, rng.random(n) < 0.5)

    def subjects(rng: np.random.Generator, n: int) -> Effect:
        clusters = np.arange(n) % 5
        return mean_effect(normal(rng, n) + normal(rng, 5)[clusters], np.zeros(n), clusters=clusters)

    for n in (100, 200):
        for name, kinds in (
            ("5 tasks, 2% differ", [rare] * 5),
            ("5 tasks, half differ", [often] * 5),
            ("57 tasks, 2% differ", [rare] * 57),
            ("3 tasks of 5 clusters", [subjects] * 3),
            ("1 task of 5 clusters, 3 of items", [subjects, often, often, often]),
        ):
            rng = np.random.default_rng(n)
            few = repeats // 10 if len(kinds) > 5 else repeats
            covered = 0
            for _ in range(few):
                effect = average_effect([kind(rng, n) for kind in kinds])
                covered += effect.low <= 0 <= effect.high
            yield _row(n, name, covered / few, few)


def unpaired_interval() -> Iterator[Row]:
    """Rows of Newcombe's interval and of Fisher's test, summed over all outcomes."""
    from scipy.stats import binom

    for n, m in ((10, 10), (10, 30), (30, 30), (100, 100)):
        effects = [[unpaired_binary(i, n, j, m) for j in range(m + 1)] for i in range(n + 1)]
        low, high, p = (
            np.array([[getattr(effect, name) for effect in row] for row in effects])
            for name in ("low", "high", "p_value")
        )
        covered, found = [], []
        for a in np.linspace(0.05, 0.95, 19):
            one = binom.pmf(np.arange(n + 1), n, a)
            for b in np.linspace(0.05, 0.95, 19):
                chances = np.outer(one, binom.pmf(np.arange(m + 1), m, b))
                covered.append(float(chances[(low <= a - b) & (a - b <= high)].sum()))
                if a == b:
                    found.append(float(chances[p < 0.05].sum()))
        yield Row(n, f"and {m}: interval covers, any two of 5 to 95%", "sum", min(covered), max(covered))
        yield Row(n, f"and {m}: found where both are alike", "sum", min(found), max(found))


def _row(n: int, cases: str, least: float, repeats: int, largest: float | None = None) -> Row:
    ends = (least, least if largest is None else largest)
    error = max(math.sqrt(max(share * (1 - share), 1 / repeats) / repeats) for share in ends)
    return Row(n, cases, f"simulation, ± {error:.1%}", *ends)


SECTIONS = {
    "mean-t": Section("Student's interval of a mean difference", "coverage", student_interval),
    "bootstrap": Section("The BCa interval of a mean difference", "coverage", bootstrap_interval),
    "clusters": Section("The clustered interval, by clusters", "coverage", clustered),
    "mean-test": Section("Tests of a mean difference where there is none", "found", no_difference),
    "mean-equivalence": Section("Equivalence of means at the margin", "found", at_the_margin),
    "average": Section("The interval of a mean over tasks", "coverage", averages),
    "unpaired": Section("Proportions of other items", "share", unpaired_interval),
}
