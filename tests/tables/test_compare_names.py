"""Names in tables of a comparison: cut, and never so that two of them read the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
from comparisons import comparison, contrast
from hypothesis import given, settings
from hypothesis import strategies as st

from mambabench.compare.result import Comparison
from mambabench.tables.compare import terminal
from mambabench.tables.compare.names import apart
from mambabench.tables.compare.terminal import as_text

SUBJECTS = [f"hendrycksTest-{a}_{b}" for a in ("high_school", "college") for b in ("biology", "physics")]


def of_tasks(names: list[str], candidates: list[str], **changes: object) -> Comparison:
    made = comparison(
        1, dict.fromkeys(candidates, 3.0), changes=(), calibrations=(), ranking=None, overall=()
    )
    found = [contrast(c, task=n, label=n, **changes) for n in names for c in candidates]
    return replace(made, contrasts=tuple(found), ranking=None)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("ab_", max_size=12), max_size=12), st.integers(2, 8))
def test_different_names_are_shown_differently(names: list[str], letters: int) -> None:
    shown = apart(names, letters)
    assert set(shown) == set(names)
    assert len(set(shown.values())) == len(set(names))
    assert all(shown[name] == name for name in names if len(name) <= letters)


def test_no_more_room_is_taken_than_tells_names_apart() -> None:
    assert max(map(len, apart(["piqa", *SUBJECTS], 14, 28).values())) == 14
    late = [f"hendrycksTest-{a}_computer_science" for a in ("high_school", "college")]
    assert 14 < max(map(len, apart(late, 14, 28).values())) <= 28
    middle = [f"{'a' * 40}{b}{'c' * 40}" for b in "xy"]
    assert apart(middle, 14, 28) == {name: name for name in middle}


@pytest.mark.parametrize("width", [80, 100, 160])
def test_each_row_of_a_table_can_be_told_from_the_others(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setattr(terminal, "_WIDTH_OF_FILES", width)
    checkpoints = ["a-run-with-a-long-name@step10000", "a-run-with-a-long-name@step20000"]
    lines = as_text(of_tasks(SUBJECTS, checkpoints)).splitlines()
    rows = [line.split() for line in lines if line.startswith(" ") and " +3.0 " in line]
    assert len(rows) == 8
    assert len({row[0] for row in rows[::2]}) == len(SUBJECTS)
    assert len({row[0] for row in rows[1::2]}) == 1
    assert not {row[0] for row in rows[1::2]} & set(rows[0])


def test_unpaired_stands_once_where_it_holds_for_all() -> None:
    shown = of_tasks(["piqa", "sciq"], ["tuned"], paired=False, n_won=None, n_lost=None)
    assert f"{shown.title}: acc_norm, unpaired" in as_text(shown).splitlines()
    assert "(unpaired)" not in as_text(shown)
    first, second = shown.contrasts
    mixed = as_text(replace(shown, contrasts=(replace(first, paired=True), second)))
    assert f"{shown.title}: acc_norm" in mixed.splitlines()
    assert mixed.count("not distinguishable (unpaired)") == 1


def test_long_tables_below_the_first_keep_what_tells_most() -> None:
    names = [f"task{i}" for i in range(200)]
    shown = of_tasks(names, ["tuned"])
    nats = replace(shown.contrasts[0], family="log-likelihoods", measure="log-likelihood", headline=False)
    below = [
        replace(nats, task=name, label=name, p_value=0.001 if name == "task150" else 0.5) for name in names
    ]
    text = as_text(replace(shown, contrasts=(*shown.contrasts, *below)))
    table = text[text.index("Log-likelihood of") :]
    assert text.count("task199 ") == 1
    assert "task150 " in table
    assert sum(line.startswith(" task") for line in table.splitlines()) == 97  # with its header
    assert "Of 200 tasks those that tell most; `--json` has all." in table


def test_categories_and_calibration_name_tasks_apart() -> None:
    shown = comparison(4, {"tuned": 9.0})
    new = dict(zip(sorted({c.task for c in shown.changes}), SUBJECTS, strict=True))
    text = as_text(
        replace(
            shown,
            changes=tuple(replace(c, label=new[c.task]) for c in shown.changes),
            calibrations=tuple(replace(c, label=new[c.task]) for c in shown.calibrations),
        )
    )
    table = text[text.index("Calibration: ") :]
    found = [line.split()[0] for line in table.splitlines() if line.startswith(" hend")]
    assert len(found) == len(set(found)) == 4
