"""Items to look through: who stands beside whom, and which items are shown."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scored_runs import Samples, choice_samples, drawn, stored_run, task_record

from mambabench.frames.api import load_runs
from mambabench.frames.samples import SideItems
from mambabench.report.items import browse, browser
from mambabench.report.items_summary import changed, counted, summary_of

RIGHT = [-1.0, -2.0]
WRONG = [-2.0, -1.0]


def answered(pattern: str, *, prompt: str = "Question {}?", first: int = 0) -> Samples:
    """Samples of which the items marked + are right; a digit says by how much one is wrong."""
    scores = [RIGHT if c == "+" else WRONG if c == "-" else [-2.0 - int(c), -1.0] for c in pattern]
    samples = choice_samples(scores, [0] * len(scores), prompt=prompt)
    return samples[first:]


def stored(root: Path, **models: dict[str, Samples]) -> Path:
    for name, tasks in models.items():
        records = {
            task: task_record(task, len(samples), n_docs_total=max(len(samples), 6))
            for task, samples in tasks.items()
        }
        stored_run(root, name, tasks, records=records)
    return root


def test_sides_stand_together_with_changed_items_first(tmp_path: Path) -> None:
    stored(tmp_path, base={"t": answered("++--++")}, tuned={"t": answered("+-+-+-")})
    found = browser(load_runs(tmp_path))
    assert found is not None
    (task,) = found.tasks
    assert (task.key, task.title, task.models, task.n_items) == ("items-t", "t", ("base", "tuned"), 6)
    assert [item.doc_id for item in task.items] == [1, 2, 5, 0, 3, 4]
    lost = task.items[0]
    assert (lost.question, lost.right_answer, lost.member) == ("Question 1?", "choice 0", "t")
    assert [(a.text, a.right, a.log_likelihood) for a in lost.answers] == [
        ("choice 0", True, -1.0), ("choice 1", False, -2.0),
    ]  # fmt: skip


def test_the_baseline_stands_first_and_others_keep_their_order(tmp_path: Path) -> None:
    stored(tmp_path, a={"t": answered("++")}, b={"t": answered("+-")}, c={"t": answered("-+")})
    found = browser(load_runs(tmp_path, baseline="b"))
    assert found is not None
    assert found.tasks[0].models == ("b", "a", "c")


def test_what_the_comparison_read_gives_the_same_as_reading_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = {"t": answered("++--++"), "u": answered("-+-+")}
    stored(tmp_path, base=tasks, tuned={"t": answered("+-+-+-"), "u": answered("+-+-")})
    runs = load_runs(tmp_path)
    again = browse(runs.runs)
    assert runs.compared is not None

    def refuse(self: SideItems) -> Any:
        raise AssertionError("read again")

    monkeypatch.setattr(SideItems, "items", property(refuse))
    assert browser(runs) == again


def test_a_cut_takes_the_largest_changes_of_each_model(tmp_path: Path) -> None:
    stored(
        tmp_path,
        base={"t": answered("+" * 8)},
        one={"t": answered("9875++++")},
        two={"t": answered("++++++13")},
    )
    runs = load_runs(tmp_path)
    shown = {}
    for most in (2, 3, 7, 100):
        found = browser(runs, most_items=most)
        assert found is not None
        assert found.tasks[0].n_items == 8
        shown[most] = [item.doc_id for item in found.tasks[0].items]
    assert shown == {2: [0, 7], 3: [0, 1, 7], 7: [0, 1, 2, 3, 6, 7, 4], 100: [0, 1, 2, 3, 6, 7, 4, 5]}
    with pytest.raises(ValueError, match="without items"):
        browser(runs, most_items=0)


def test_who_was_asked_otherwise_has_a_list_of_its_own(tmp_path: Path) -> None:
    other = answered("+-+", prompt="Asked otherwise {}?")
    stored(
        tmp_path,
        base={"t": answered("+++")},
        odd={"t": other},
        odd2={"t": other},
        tuned={"t": answered("--+")},
    )
    found = browse(load_runs(tmp_path).runs)
    assert found is not None
    assert [(task.key, task.title, task.models) for task in found.tasks] == [
        ("items-t", "t", ("base", "tuned")),
        ("items-t-2", "t (odd, odd2)", ("odd", "odd2")),
    ]
    assert found.tasks[1].items[0].question == "Asked otherwise 0?"


def test_who_has_few_items_takes_none_from_the_others(tmp_path: Path) -> None:
    stored(
        tmp_path,
        base={"t": answered("++++++")},
        few={"t": answered("+-")},
        tuned={"t": answered("----++")},
    )
    runs = load_runs(tmp_path)
    for found in (browse(runs.runs), browser(runs)):
        assert found is not None
        assert [(task.title, task.models, len(task.items)) for task in found.tasks] == [
            ("t", ("base", "tuned"), 6),
            ("t (few)", ("base", "few"), 2),
        ]


def test_sides_that_only_overlap_in_pairs_stand_alone(tmp_path: Path) -> None:
    whole = answered("+" * 6)
    stored(
        tmp_path, a={"t": whole}, b={"t": whole[:4]}, c={"t": whole[2:]}, d={"t": [*whole[:2], *whole[4:]]}
    )
    found = browse(load_runs(tmp_path).runs)
    assert found is not None
    assert [task.models for task in found.tasks] == [("a",), ("b",), ("c",), ("d",)]
    assert [task.n_items for task in found.tasks] == [6, 4, 4, 4]


def test_one_side_only_and_none_at_all(tmp_path: Path) -> None:
    stored(tmp_path / "one", base={"t": answered("+-")}, other={"u": answered("+")})
    found = browser(load_runs(tmp_path / "one"))
    assert found is not None
    assert [(task.title, task.models) for task in found.tasks] == [("t", ("base",)), ("u", ("other",))]
    assert [answer.right for item in found.tasks[0].items for answer in item.answers] == [True, False]
    assert browse([]) is None


def test_what_is_not_finite_is_not_shown(tmp_path: Path) -> None:
    scores = np.array([[-1.0, -2.0], [-math.inf, -1.0]])
    stored(tmp_path, base={"t": choice_samples(scores, [0, 0])})
    found = browser(load_runs(tmp_path))
    assert found is not None
    assert [item.answers[0].log_likelihood for item in found.tasks[0].items] == [-1.0, None]


def test_damaged_samples_leave_the_others(tmp_path: Path) -> None:
    stored(tmp_path, base={"t": answered("+-")}, tuned={"t": answered("-+")})
    next(tmp_path.glob("*base*/samples/*")).write_bytes(b"PAR1")
    found = browser(load_runs(tmp_path))
    assert found is not None
    assert [task.models for task in found.tasks] == [("tuned",)]


def test_names_of_tasks_make_different_keys(tmp_path: Path) -> None:
    stored(tmp_path, base={"A b": answered("+"), "a-b": answered("+"), "中": answered("+")})
    found = browser(load_runs(tmp_path))
    assert found is not None
    assert sorted(task.key for task in found.tasks) == ["items-a-b", "items-a-b-2", "items-task"]


def test_models_can_be_left_out(tmp_path: Path) -> None:
    stored(tmp_path, a={"t": answered("+")}, b={"t": answered("-")})
    found = browse(load_runs(tmp_path).runs, without={"a"})
    assert found is not None
    assert found.tasks[0].models == ("b",)
    assert browse(load_runs(tmp_path).runs, without={"a", "b"}) is None


def test_the_summary_counts_what_changed(tmp_path: Path) -> None:
    scores, right = drawn(40, seed=1)
    sides = [scores + np.random.default_rng(k).normal(0, 3, scores.shape) for k in range(3)]
    stored(tmp_path, **{name: {"t": choice_samples(s, right)} for name, s in zip("abc", sides, strict=True)})
    found = browser(load_runs(tmp_path))
    assert found is not None
    (task,) = found.tasks
    accuracy = [np.argmax(s, axis=1) == right for s in sides]
    table = summary_of(task)
    assert table is not None
    for place, row in enumerate(table.rows, 1):
        before, after = accuracy[0], accuracy[place]
        counts = [after & ~before, before & ~after, before & after, ~before & ~after]
        assert [cell.numbers[0] for cell in row[1:]] == [count.sum() for count in counts]
        won, lost = changed(task, place)
        assert sorted(item.doc_id for item in won) == np.flatnonzero(after & ~before).tolist()
        assert sorted(item.doc_id for item in lost) == np.flatnonzero(before & ~after).tolist()
    assert counted(task) == "40 items, asked of a, b, c."
