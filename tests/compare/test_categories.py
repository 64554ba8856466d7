"""Flips by subject and by length: every item in one category, counts that a loop gives, readable ranges."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from aligned_items import aligned_task, measure
from changed_items import aligned_runs, chosen
from hypothesis import given, settings
from hypothesis import strategies as st

from mambabench.compare import categories
from mambabench.compare.categories import MOST_CATEGORIES, categories_of, category_changes, length_bins
from mambabench.compare.items import AlignedSide, AlignedTask, Choices
from mambabench.stats.paired_binary import binary_effect


def asked(n: int, *, seed: int = 0, members: int = 1) -> AlignedTask:
    """Random flips of choices of many lengths."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(5, 200, (n, 3)).astype(float)
    choices = Choices(-rng.random((n, 3)), lengths, lengths, rng.integers(0, 3, n))
    sides = [measure("binary", rng.integers(0, 2, n)) for _ in range(3)]
    return aligned_task(
        *[[side] for side in sides],
        task="mmlu",
        members=tuple(f"mmlu_s{i}" for i in range(members)) if members > 1 else ("mmlu",),
        member_of=rng.integers(0, members, n),
        context_lengths_bytes=rng.integers(40, 3000, n),
        sides=tuple(AlignedSide({"acc": side}, choices, ()) for side in sides),
    )


def test_every_item_counts_once_in_each_kind() -> None:
    task = asked(230, members=4)
    found = category_changes(task, ["one", "two"])
    for number, label in enumerate(("one", "two"), 1):
        before, after = (task.sides[i].measures["acc"].values for i in (0, number))
        kinds = categories_of(task)
        assert list(kinds) == ["subject", "answer length", "context length"]
        rows = iter(found[label])
        for by, (names, which) in kinds.items():
            for place, name in enumerate(names):
                mine = [i for i in range(230) if which[i] == place]
                row = next(rows)
                assert (row.candidate, row.task, row.by, row.category) == (label, "mmlu", by, name)
                assert row.n == len(mine)
                assert row.n_won == sum(after[i] > before[i] for i in mine)
                assert row.n_lost == sum(after[i] < before[i] for i in mine)
                assert row.baseline_value == pytest.approx(100 * np.mean([before[i] for i in mine]))
                assert row.candidate_value == pytest.approx(100 * np.mean([after[i] for i in mine]))
                assert row.difference == pytest.approx(row.candidate_value - row.baseline_value)
                effect = binary_effect(after[mine], before[mine])
                assert (row.low, row.high) == pytest.approx((100 * effect.low, 100 * effect.high))
        assert next(rows, None) is None


def test_subjects_lose_the_group_before_their_name() -> None:
    names, which = categories_of(asked(200, members=3))["subject"]
    assert names == ("s0", "s1", "s2")
    assert set(which.tolist()) == {0, 1, 2}


def test_many_subjects_keep_the_largest_apart() -> None:
    task = asked(3000, members=MOST_CATEGORIES + 7)
    names, which = categories_of(task)["subject"]
    assert len(names) == MOST_CATEGORIES
    assert names[-1] == "8 smaller ones"
    sizes = np.bincount(task.member_of)
    apart = {int(name.removeprefix("s")) for name in names[:-1]}
    assert min(sizes[list(apart)]) >= max(sizes[[i for i in range(len(sizes)) if i not in apart]])
    for place, name in enumerate(names[:-1]):
        assert set(task.member_of[which == place]) == {int(name.removeprefix("s"))}


RANGE = re.compile(r"(?:(up to|over) ([\d,]+)|([\d,]+)(?: to ([\d,]+))?) bytes")


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 5000) | st.integers(0, 12), min_size=1, max_size=200))
def test_ranges_hold_what_they_say(lengths: list[int]) -> None:
    names, which = length_bins(np.array(lengths))
    assert set(which.tolist()) == set(range(len(names)))
    if len(names) == 1:
        assert names == ("all",)
        return
    for length, place in zip(lengths, which, strict=True):
        match = RANGE.fullmatch(names[place])
        assert match is not None
        end, bound, first, last = (part.replace(",", "") if part else None for part in match.groups())
        low = int(bound) + 1 if end == "over" and bound else int(first or 0)
        high = int(bound) if end == "up to" and bound else int(last or first or 10**9)
        assert low <= length <= high


def test_ranges_are_about_equally_full_and_round() -> None:
    rng = np.random.default_rng(0)
    names, which = length_bins(rng.integers(100, 1100, 2000))
    assert names == (
        "up to 300 bytes", "301 to 500 bytes", "501 to 700 bytes", "701 to 900 bytes", "over 900 bytes",
    )  # fmt: skip
    assert np.bincount(which).min() > 350


def test_few_items_are_not_parted_by_length() -> None:
    task = asked(30)
    assert categories_of(task) == {}
    assert category_changes(task, ["one", "two"]) == {"one": (), "two": ()}


def test_letters_as_choices_have_no_length(tmp_path: Path) -> None:
    items = [chosen(i, f"Question {'?' * i}", ["A", "B"], 0, (-1, -2)) for i in range(60)]
    (task,) = aligned_runs(tmp_path, [{"q": items}, {"q": items}])
    assert list(categories_of(task)) == ["context length"]


def test_without_right_and_wrong_there_are_no_categories() -> None:
    side = [measure("mean", np.linspace(0, 1, 100))]
    assert category_changes(aligned_task(side, side), ["tuned"]) == {"tuned": ()}


def test_equal_counts_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(categories, "binary_effect", lambda *a: calls.append(a) or binary_effect(*a))
    categories._effect.cache_clear()
    category_changes(asked(60), ["one", "two"])
    first = len(calls)
    category_changes(asked(60), ["one", "two"])
    assert 0 < first == len(calls)
    categories._effect.cache_clear()
