"""Sections made of frames: every figure is its frame's, wide data stays readable, texts are harmless."""

from __future__ import annotations

import itertools
import re

import pytest
from made_frames import (
    NASTY,
    Made,
    MadeFrames,
    contrasts,
    conversation,
    costs,
    lengths,
    made_runs,
    mixed,
    rows_of,
    scores,
    steps,
    sweep,
    texts,
)
from shown_numbers import check_tables

from mambabench.report.answers import answers
from mambabench.report.build import sections_of
from mambabench.report.document import Code, Section, Table, Words
from mambabench.report.format import Rows
from mambabench.report.sections.comparison import comparison_section
from mambabench.report.sections.conversation import conversation_section
from mambabench.report.sections.doubts import doubts_section
from mambabench.report.sections.layout import findings
from mambabench.report.sections.making import making_section
from mambabench.report.sections.quality import quality_section
from mambabench.report.sections.speed import speed_section

TWENTY = [f"model-{i}" for i in range(20)]
TEN = [f"task{i}" for i in range(10)]
PARTS: dict[str, Made] = {
    "nothing": {},
    "one model": scores(["a"], TEN[:3]),
    "two models": scores(["a", "b"], TEN[:3]) | contrasts(["b"], TEN[:3]),
    "twenty models": scores(TWENTY, TEN) | contrasts(TWENTY[1:], TEN),
    "many tasks": scores(["a", "b"], [f"t{i}" for i in range(57)]),
    "one step": steps(["ft"], (10,), ["piqa"]),
    "eighty steps": steps(["x", "y"], range(80), TEN),
    "lengths": lengths(["a", "b", "c"], (256, 512), ("needle", "pairs")),
    "many lengths": lengths(TWENTY, [2**i for i in range(5, 18)], TEN),
    "texts": texts(["a", "b", "c"]),
    "one sweep": sweep("latency", ["a"], (128,)),
    "forty points": sweep("memory", ["a", "b", "c", "d"], [2**i for i in range(4, 14)]),
    "wide sweep": sweep("throughput", TWENTY, (128,), [2**i for i in range(10)]),
    "conversation": conversation(["a", "b"], (512, 2048)),
    "costs": costs(TWENTY, (128, 1024)),
    "runs": made_runs(["a"]),
    "many runs": made_runs([f"m{i}" for i in range(90)]),
    "mixed": mixed(["base", "other"]),
    "nasty": mixed([NASTY, f"{NASTY} 2", "plain"]),
    "wide": mixed(TWENTY, 10),
}


def _sections(rows: Rows) -> list[Section]:
    return [*sections_of(rows).values(), doubts_section(rows), making_section(rows)]


def _tables(sections: list[Section]) -> list[Table]:
    return [block for section in sections for block in section.blocks if isinstance(block, Table)]


@pytest.fixture(params=PARTS, scope="module")
def made(request: pytest.FixtureRequest) -> Made:
    return PARTS[request.param]


@pytest.fixture(scope="module")
def rows(made: Made) -> Rows:
    return rows_of(made)


@pytest.fixture(scope="module")
def sections(rows: Rows) -> list[Section]:
    return _sections(rows)


@pytest.fixture(scope="module")
def tables(sections: list[Section]) -> list[Table]:
    return _tables(sections)


def test_every_figure_is_in_its_frame_and_shown_rounded(made: Made, tables: list[Table]) -> None:
    n = check_tables(tables, MadeFrames(made).frame)
    assert n > 0 or not made


def test_tables_are_whole_and_have_keys_of_their_own(sections: list[Section], tables: list[Table]) -> None:
    for keys in ([table.key for table in tables], [section.key for section in sections]):
        assert len(set(keys)) == len(keys)
    for table in tables:
        assert re.fullmatch(r"[a-z0-9-]+", table.key)
        assert table.rows, table.key
        assert {len(row) for row in table.rows} == {len(table.columns)}, table.key


def test_tables_stay_readable(tables: list[Table]) -> None:
    for table in tables:
        assert len(table.columns) <= 16, table.key
        assert len(table.rows) <= 80, table.key
        shown = [j for j in range(1, len(table.columns)) if any(row[j].text for row in table.rows)]
        assert len(shown) == len(table.columns) - 1, f"{table.key} has an empty column"


def test_nothing_that_a_terminal_obeys_is_left(rows: Rows, sections: list[Section]) -> None:
    said = []
    for section in sections:
        said += [section.title, section.lead]
        for block in section.blocks:
            if isinstance(block, Table):
                cells = [cell for row in block.rows for cell in row]
                said += [block.title, *block.notes, *(column.title for column in block.columns)]
                said += itertools.chain.from_iterable((cell.text, cell.note) for cell in cells)
            elif isinstance(block, Words):
                said += block.sentences
            elif isinstance(block, Code):
                said += block.text.split("\n")
    said += [sentence for words in answers(rows) for sentence in words.sentences]
    for text in said:
        assert text.isprintable(), repr(text)


def test_equal_frames_give_equal_sections(made: Made, rows: Rows, sections: list[Section]) -> None:
    again = rows_of(made)
    assert _sections(again) == sections
    assert answers(again) == answers(rows)


def test_names_with_markup_are_passed_on_as_they_are() -> None:
    tables = _tables(_sections(rows_of(PARTS["nasty"])))
    assert any("<script>alert(1)</script> | & % $ _ #" in row[0].text for t in tables for row in t.rows)


def test_a_comparison_on_one_task_names_it_once() -> None:
    made = contrasts(["b", "c"], ["piqa"])
    made["contrasts"] = [row for row in made["contrasts"] if row["task"] == "piqa"]
    table = next(t for t in _tables(_sections(rows_of(made))) if t.key == "comparison")
    assert table.title == "Differences from base: piqa, acc"
    assert [column.title for column in table.columns][:3] == ["model", "base", "value"]


def test_earlier_checkpoints_are_shown_by_step_alone() -> None:
    labels = [f"ft@{step}" for step in (0, 10, 20)]
    made = scores([*labels, "base"], ["piqa"]) | steps(["ft"], (0, 10, 20), ["piqa"])
    tables = {table.key: table for table in _tables(_sections(rows_of(made)))}
    assert [row[0].text for row in tables["zero-shot-overview"].rows] == ["ft@20", "base"]
    assert [row[0].text for row in tables["steps-ft-1"].rows] == ["0", "10", "20"]
    assert [row[1].text[-1] for row in tables["steps-ft-1"].rows] == ["~", "*", "~"]


def test_models_with_few_tasks_in_common_have_tables_of_their_own() -> None:
    one, other = scores(["a", "b"], ["x", "y", "z"]), scores(["c"], ["z", "u", "v", "w"])
    made = {name: one[name] + other[name] for name in one}
    tables = [t for t in _tables(_sections(rows_of(made))) if t.key.startswith("zero-shot")]
    assert [t.key for t in tables] == ["zero-shot-overview-1", "zero-shot-1", "zero-shot-2"]


def test_warnings_that_say_the_same_stand_once_the_worst_first() -> None:
    made = made_runs(["a", "b", "c"])
    tables = [t for t in _tables(_sections(rows_of(made))) if t.key.startswith("warnings")]
    assert [t.key for t in tables] == ["warnings-wrong", "warnings-doubt", "warnings-note"]
    (row,) = tables[1].rows
    assert [cell.text for cell in row] == ["few items", "a, b and c", "Few items.", "Take more."]


@pytest.mark.parametrize(
    ("method", "says"), [("t on log", "95% intervals"), ("range", "the slowest process")]
)
def test_conversations_say_what_stands_in_brackets(method: str, says: str) -> None:
    made = conversation(["a"], (512,))
    for row in made["conversation"]:
        row["method"] = method
    section = conversation_section(rows_of(made))
    assert section is not None
    assert "geometric means over processes of their medians" in section.lead
    [found] = [block for block in section.blocks if isinstance(block, Table)]
    assert [note for note in found.notes if says in note]


def test_sentences_of_several_runs_name_theirs() -> None:
    def said(*runs: str) -> list[str]:
        made = {"findings": [{"run": run, "kind": "latency", "text": "a is faster."} for run in runs]}
        return [sentence for words in findings(rows_of(made), ("latency",)) for sentence in words.sentences]

    assert said("one") == ["a is faster."]
    assert said("one", "two") == ["one: a is faster.", "two: a is faster."]


def test_a_cost_without_a_rival_has_no_star() -> None:
    made = costs(["a", "b"], (128, 1024))
    made["quality_cost"] = [
        row for row in made["quality_cost"] if row["label"] == "a" or row["length_tokens"] == 128
    ]
    section = quality_section(rows_of(made))
    assert section is not None
    assert "by values and not by intervals" in section.lead
    for found in (block for block in section.blocks if isinstance(block, Table)):
        stars = {(row[0].text, row[1].text): "*" in row[3].text for row in found.rows}
        assert stars == {("a", "128"): True, ("a", "1,024"): False, ("b", "128"): False}


@pytest.mark.parametrize("n_points", [2, 100])
def test_points_of_several_machines_name_theirs(n_points: int) -> None:
    made = sweep("latency", ["a", "b"], [2**i for i in range(n_points // 2)] if n_points > 2 else (128,))
    for row in made["speed"]:
        row["run"] = f"run of {row['label']}"
    made["runs"] = [
        {"run": f"run of {label}", "kind": "latency", "device_name": f"machine {label}"} for label in "ab"
    ]

    def texts_of() -> str:
        section = speed_section(rows_of(made))
        assert section is not None
        tables = [block for block in section.blocks if isinstance(block, Table) and block.frame == "speed"]
        return " ".join(cell.text for found in tables for row in found.rows for cell in row[:2])

    assert "machine a" in texts_of()
    assert "machine b" in texts_of()
    for row in made["runs"]:
        row["device_name"] = "machine a"
    assert "machine" not in texts_of()


def test_tasks_of_one_label_have_columns_of_their_own() -> None:
    found = contrasts([f"m{i}" for i in range(12)], ["t0", "t1", "t2"])["contrasts"]
    for row in found:
        if row["task"] != "overall":
            row |= {"task_label": "Recall", "difference": float(row["task"][1:]), "verdict": "better"}
    section = comparison_section(rows_of({"contrasts": found, "scores": scores(["base"], ["t0"])["scores"]}))
    assert section is not None
    [wide] = [
        block for block in section.blocks if isinstance(block, Table) and block.key == "comparison-tasks"
    ]
    assert [cell.numbers for cell in wide.rows[0][1:]] == [(0.0,), (1.0,), (2.0,)]
