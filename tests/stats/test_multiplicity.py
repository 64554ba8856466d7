"""Corrections against statsmodels, and errors over families by simulation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mambabench.stats.multiplicity import Correction, adjusted

p_values = st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=12)


# statsmodels takes long to import, and its Holm collects garbage each time.
@settings(max_examples=15, deadline=None)
@given(p_values, st.sampled_from(["holm", "bh"]))
def test_corrections_are_statsmodels(values: list[float | None], correction: Correction) -> None:
    from statsmodels.stats.multitest import multipletests

    known = [p for p in values if p is not None]
    ours = adjusted(values, correction)
    theirs = multipletests(known, method={"holm": "holm", "bh": "fdr_bh"}[correction])[1] if known else []
    assert [p is None for p in ours] == [p is None for p in values]
    assert [p for p in ours if p is not None] == pytest.approx(list(theirs), rel=1e-12)
    for before, after in zip(values, ours, strict=True):
        assert after is None or (before is not None and before <= after * (1 + 1e-12) and after <= 1)


def test_corrections_by_hand() -> None:
    assert adjusted([0.01, 0.04, 0.03], "holm") == pytest.approx([0.03, 0.06, 0.06])
    assert adjusted([0.01, 0.04, 0.03], "bh") == pytest.approx([0.03, 0.04, 0.04])
    assert adjusted([0.01, 0.04, 0.03], "none") == [0.01, 0.04, 0.03]


@pytest.mark.parametrize("correction", ["holm", "bh", "none"])
def test_what_was_not_tested_does_not_count(correction: Correction) -> None:
    assert adjusted([], correction) == []
    assert adjusted([None, None], correction) == [None, None]
    assert adjusted([None, 0.04, None], correction) == [None, 0.04, None]


def test_errors_of_a_family_are_bounded() -> None:
    rng = np.random.default_rng(0)
    n_families, true, false = 800, 6, 4
    any_false, shares = [], []
    for _ in range(n_families):
        ps = [*rng.uniform(size=true), *rng.uniform(0, 0.002, size=false)]
        any_false.append(any(p is not None and p < 0.05 for p in adjusted(ps, "holm")[:true]))
        found = [p is not None and p < 0.05 for p in adjusted(ps, "bh")]
        shares.append(sum(found[:true]) / max(1, sum(found)))
    # Three standard errors of a rate of 5% over so many families.
    assert np.mean(any_false) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / n_families)
    assert np.mean(shares) < 0.05


@pytest.mark.parametrize("bad", [math.nan, -0.1, 1.1, math.inf])
def test_what_is_no_p_value_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="p-value"):
        adjusted([0.1, bad], "holm")


def test_an_unknown_correction_is_refused() -> None:
    unknown: Any = "bonferroni"
    with pytest.raises(ValueError, match="holm, bh and none"):
        adjusted([0.1, 0.2], unknown)
