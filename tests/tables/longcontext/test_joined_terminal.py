"""Long-context tables as they are printed: narrow and wide, one row and many."""

from __future__ import annotations

from dataclasses import replace

import pytest
from long_records import CASES, TEN, loss_record, recall_record, small, usual

from mambabench.tables.longcontext import terminal
from mambabench.tables.longcontext.flags import ADVICE, FEW_PROCESSES, PAST_TRAINING
from mambabench.tables.longcontext.table import LongTable, build_long_table
from mambabench.tables.longcontext.terminal import as_text

NARROW = {("usual", 80), ("wide", 80), ("long", 80), ("long", 120)}


def printed(table: LongTable, width: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(terminal, "_WIDTH_OF_FILES", width)
    return [line.rstrip() for line in as_text(table).splitlines()]


@pytest.mark.parametrize("width", [80, 120, 200])
@pytest.mark.parametrize("case", sorted(CASES))
def test_all_fits(case: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    table = CASES[case]()
    lines = printed(table, width, monkeypatch)
    assert all(len(line) <= width for line in lines)
    text = "\n".join(lines)
    assert ("a wider terminal shows more" in text) == ((case, width) in NARROW)
    for row in table.rows:
        # Every model and length has its line of joined figures.
        assert any(
            line.split()[:2] == [row.model[: 18 if width < 200 else 30].rstrip(), f"{row.length_tokens:,}"]
            or f" {row.length_tokens:,} " in line
            for line in lines
        )
    for task in table.tasks:
        assert f"{task} (chance 25%)" in text


def test_one_line_holds_what_a_length_gives_and_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(usual(), 200, monkeypatch)
    (line,) = [line for line in lines if line.split()[:2] == ["pythia-160m", "4,096"]]
    row = usual().row("pythia-160m", 4096)
    assert row.recall_mean is not None
    assert row.ttft_s is not None
    cells = line.split()
    assert cells[2] == f"{100 * row.recall_mean.value:.1f}%"
    assert cells[4] == "2.780"
    assert cells[7:9] == [f"{row.ttft_s.value:.2f}", "s"]
    assert cells[-3:] == ["307", "MB", "[a,b]"]
    text = " ".join(lines)
    assert f"[a] {PAST_TRAINING}: {ADVICE[PAST_TRAINING]}." in text
    assert f"[b] {FEW_PROCESSES}: {ADVICE[FEW_PROCESSES]}." in text
    assert "recall: mean of 3 tasks, each counting alike" in text


def test_recall_by_task_marks_guesses_and_names_effective_contexts(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(usual(), 120, monkeypatch)
    start = lines.index("Recall by task and length, in %")
    section = [line.split() for line in lines[start:] if line.strip()]
    needle = section[section.index(["needle", "(chance", "25%)"]) + 1]
    assert needle == ["mamba-130m", "512", "(256", "to", "512)", "100", "96", "76", "54", "(24)"]
    copying = section[section.index(["copying", "(chance", "25%)"]) + 2]
    assert copying == ["pythia-160m", "chance", "(28)", "(30)", "(30)", "(26)", "(26)"]


def test_chance_is_not_rounded_to_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [recall_record("m", f"of_{n}", 256, 0.5, n_choices=n)[0] for n in (8, 15, 50)]
    lines = printed(build_long_table("a run", records, [], rows={}), 120, monkeypatch)
    for words in ("of_8 (chance 12.5%)", "of_15 (chance 6.7%)", "of_50 (chance 2%)"):
        assert words in [line.strip() for line in lines]


def test_lengths_without_a_path_are_dashes_and_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(CASES["long"](), 200, monkeypatch)
    start = lines.index("Recall by task and length, in %")
    name = "transformer-with-a-name-of-3"
    mine = [line.split() for line in lines[start:] if line.strip().startswith(name)]
    assert len(mine) == len(TEN)
    assert all(line[-4:] == ["-"] * 4 for line in mine)
    said = [line for line in lines if "learned positions end" in line]
    assert len(said) == 1
    assert said[0].startswith(
        "transformer-with-a-name-of-36-letters at 8,192 and 3 more: recall, loss unsupported: "
    )


def test_loss_alone_has_no_columns_of_recall_or_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [loss_record("[m]", length, 3.0) for length in (256, 512)]
    table = build_long_table(
        "[bold]", [], [r for r, _ in made], rows={r.fingerprint: q for r, q in made}, partial=True
    )
    lines = printed(table, 80, monkeypatch)
    # Names are printed as they are, whatever they look like.
    assert lines[0] == "[bold]   PARTIAL: not everything has been measured"
    header = " ".join(lines[1:4])
    assert "loss" in header
    assert "recall" not in " ".join(lines)
    assert "TTFT" not in " ".join(lines)
    assert sum(line.split()[:1] == ["[m]"] for line in lines) == 2


def test_a_small_table(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line for line in printed(small(), 80, monkeypatch) if line]
    assert lines[0] == "a run"
    assert lines[4].split() == ["mamba-130m", "256", "98.0%", "90-100%", "2.900", "2.79-3.01", "1.046"]
    assert lines[-1] == "In brackets: not above chance by its 95% interval."


def test_one_length_has_no_column_of_effective_contexts(monkeypatch: pytest.MonkeyPatch) -> None:
    table = small()
    shortest = replace(table, lengths=(256,), rows=table.rows[:1])
    lines = [line for line in printed(shortest, 80, monkeypatch) if line]
    assert not any("90% kept" in line for line in lines)
    assert ["mamba-130m", "98"] in [line.split() for line in lines]
