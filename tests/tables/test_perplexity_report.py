"""The perplexity table: what each row says, what is noted under it, and how it is printed."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest

from mambabench.fingerprint import digest
from mambabench.long_schema import ContextRecord, CorpusRecord, PerplexityRecord, PositionRecord
from mambabench.plots.longcontext.perplexity import draw_loss_by_position
from mambabench.plots.palette import PAPER
from mambabench.schema import MetricRecord
from mambabench.tables.longcontext import perplexity_terminal
from mambabench.tables.longcontext.perplexity import PerplexityTable, build_perplexity_table
from mambabench.tables.longcontext.perplexity_terminal import as_text

CORPUS = CorpusRecord(
    name="books", kind="directory", part="whole", source="path", n_documents=3, n_bytes=12345, n_words=2000,
    sha256=digest("books"),
)  # fmt: skip
FULL = ContextRecord(mode="full")
SLIDING = ContextRecord(mode="sliding", window_tokens=64, stride_tokens=32)


def metric(name: str, value: float, half: float | None = 0.1) -> MetricRecord:
    known = {} if half is None else {"interval_low": value - half, "interval_high": value + half}
    unit: Any = "bits_per_byte" if name == "bits_per_byte" else "perplexity"
    return MetricRecord(metric=name, value=value, unit=unit, n=3, higher_is_better=False, **known)


def record(
    model: str = "m",
    losses: tuple[float, ...] = (5.0, 4.0, 3.0, 3.05),
    context: ContextRecord = FULL,
    n_documents: int = 3,
    **changes: Any,
) -> PerplexityRecord:
    edges = (0, 16, 32, 64, 128, 256, 512, 1024, 2048)
    places = tuple(
        PositionRecord(
            first_token=edges[i], end_token=edges[i + 1], n_tokens=1000, n_documents=n_documents,
            loss_nats=loss, interval_low=None if n_documents == 1 else loss - 0.2,
            interval_high=None if n_documents == 1 else loss + 0.2,
        )
        for i, loss in enumerate(losses)
    )  # fmt: skip
    half = None if n_documents == 1 else 0.1
    fields: dict[str, Any] = {
        "fingerprint": digest(model), "checkpoint_fingerprint": digest(["c", model]), "model": model,
        "corpus": CORPUS, "context": context, "status": "ok", "positions": places,
        "metrics": (metric("bits_per_byte", 1.2345, half), metric("token_perplexity", 234567.0, half)),
        "n_documents": n_documents, "n_tokens": 4000, "n_bytes": 12345, "longest_document_tokens": 120,
        "training_length_tokens": 64, "past_training_length": True,
    }  # fmt: skip
    return PerplexityRecord(**{**fields, **changes})


def lines(table: PerplexityTable) -> list[str]:
    return [re.sub(r"\s+", " ", line).strip() for line in as_text(table).splitlines()]


def test_what_is_printed() -> None:
    table = build_perplexity_table(
        [record("long", n_documents=1), record("other", n_documents=1, context=SLIDING)]
    )
    printed = lines(table)
    assert printed[0] == "books: 3 documents, 12,345 bytes"
    assert "long full context 1.2345 2.35e+05 1 4,000" in printed
    assert "other sliding window of 64, stride 32 1.2345 2.35e+05 1 4,000" in printed
    # The last bucket ends where the longest document does, and only a full context goes past the training.
    assert "32 to 63 3.000 3.000" in printed
    assert "64 to 119 3.050* 3.050" in printed
    assert "* past the training length" in printed


def test_intervals_and_documents_are_shown_where_there_are_several() -> None:
    printed = lines(build_perplexity_table([record()]))
    assert "[1.1345, 1.3345] [2.35e+05, 2.35e+05]" in printed
    assert "0 to 15 5.000 [4.800, 5.200] 3" in printed


@pytest.mark.parametrize(
    ("width", "left_out"),
    [
        (80, ["word ppl, byte ppl, documents, tokens, token ppl", "intervals"]),
        (120, ["word ppl, byte ppl"]),
        (200, []),
    ],
)
def test_columns_are_left_out_rather_than_cut(
    monkeypatch: pytest.MonkeyPatch, width: int, left_out: list[str]
) -> None:
    monkeypatch.setattr(perplexity_terminal, "_WIDTH_OF_FILES", width)
    names = ("bits_per_byte", "byte_perplexity", "word_perplexity", "token_perplexity")
    metrics = tuple(metric(name, 123456.0, 1000.0) for name in names)
    found = [
        record(name, context=SLIDING, metrics=metrics)
        for name in ("first-model", "second-model", "third-model-with-a-long-name")
    ]
    printed = as_text(build_perplexity_table(found))
    assert "…" not in printed
    assert max(map(len, printed.splitlines())) <= width
    assert re.findall("No room for (.*): a wider", printed) == left_out
    assert "[1.22e+05, 1.24e+05]" in printed
    assert ("[4.800, 5.200]" in printed) == (width > 80)


def test_models_with_other_buckets_stand_side_by_side() -> None:
    longer = record("long", losses=(5.0,) * 6, longest_document_tokens=400, n_tokens=9000)
    printed = lines(build_perplexity_table([record("short"), longer]))
    assert "64 to 127 3.050* [2.850, 3.250] 3 5.000* [4.800, 5.200] 3" in printed
    assert "256 to 399 5.000* [4.800, 5.200] 3" in printed


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        (
            (5.0, 4.0, 3.0, 2.9),
            "m: loss is lowest at positions 64 to 119, 2.900 nats a token: the last ones.",
        ),
        ((5.0, 4.0, 3.0, 3.05), "lowest at positions 32 to 63, 3.000 nats a token, and within 0.1 of that"),
        ((5.0, 4.0, 3.0, 4.5), "at the last ones, 64 to 119, past its training length, it is 1.500 higher"),
    ],
)
def test_words_say_where_loss_is_lowest_and_what_follows(losses: tuple[float, ...], words: str) -> None:
    [said] = build_perplexity_table([record(losses=losses)]).words
    assert words in said


def test_buckets_of_few_tokens_decide_nothing() -> None:
    found = record(losses=(1.0, 4.0, 3.0, 3.5))
    few = found.positions[0].model_copy(update={"n_tokens": 16})
    [said] = build_perplexity_table(
        [found.model_copy(update={"positions": (few, *found.positions[1:])})]
    ).words
    assert "positions 32 to 63, 3.000 nats a token (lower ones are of too few tokens or documents)" in said


def test_positions_that_one_of_several_documents_reaches_decide_nothing() -> None:
    found = record(losses=(5.0, 4.0, 3.0, 1.0))
    alone = found.positions[3].model_copy(update={"n_documents": 1})
    [said] = build_perplexity_table(
        [found.model_copy(update={"positions": (*found.positions[:3], alone)})]
    ).words
    assert "positions 32 to 63" in said


def test_notes_say_what_limits_the_figures() -> None:
    unsupported = record("u", (), status="unsupported", detail="no positions", metrics=(), n_documents=1)
    same = build_perplexity_table([record("a"), record("b")]).notes
    notes = "\n".join(
        build_perplexity_table(
            [record("a", n_documents=1), record("b", n_documents=1, context=SLIDING, n_tokens=9), unsupported]
        ).notes
    )
    assert "u: unsupported: no positions" in notes
    for words in ("different contexts", "Tokenizers differ", "No intervals"):
        assert words in notes
        assert not any(words in note for note in same)
    assert "a was trained on 64 tokens and predicts from more here." in notes
    partial = build_perplexity_table([record(partial=True)])
    assert "Partial: only some" in partial.notes[-1]
    assert "PARTIAL" in lines(partial)[0]


def test_the_table_is_plain_json() -> None:
    table = build_perplexity_table([record()])
    assert (
        json.loads(json.dumps(table.as_json(), allow_nan=False))["rows"][0]["positions"][3]["end_token"]
        == 120
    )


def test_the_figure_shows_every_loss_band_and_training_length() -> None:
    table = build_perplexity_table([record("a"), record("b", (4.0, 3.0), context=SLIDING)])
    figure = draw_loss_by_position(table)
    assert figure is not None
    axes = figure.axes[0]
    marked = {(round(x, 1), y) for m in axes.lines if m.get_label() == "_mark" for x, y in m.get_xydata()}
    assert {y for _, y in marked} == {5.0, 4.0, 3.0, 3.05}
    assert (round((32 * 64) ** 0.5, 1), 3.0) in marked
    hollow = [m for m in axes.lines if m.get_label() == "_mark" and m.get_markerfacecolor() == PAPER]
    assert [m.get_ydata()[0] for m in hollow] == [3.05]
    assert len([c for c in axes.collections if c.get_label() == "_band"]) == 2
    assert [text.get_text() for text in axes.texts] == ["trained on 64"]
    low, high = axes.get_ylim()
    assert low < 2.8
    assert high > 5.2
    assert axes.get_xscale() == "log"
    legend = {text.get_text() for text in figure.legends[0].get_texts()}
    assert legend == {"a, full context", "b, sliding window of 64, stride 32", "past the training length"}
    assert figure.description.splitlines()[0] == "Loss by position"
    assert table.words[0] in figure.description


def test_one_bucket_and_nothing_at_all_can_be_drawn() -> None:
    one = draw_loss_by_position(build_perplexity_table([record(losses=(5.0,), longest_document_tokens=9)]))
    assert one is not None
    one.canvas.draw()
    assert draw_loss_by_position(build_perplexity_table([record(losses=(), status="unsupported")])) is None


@pytest.mark.parametrize("losses", [(math.inf, 3.0), (math.nan, 3.0), (math.inf, math.inf)])
def test_a_loss_that_overflowed_is_a_gap(losses: tuple[float, ...]) -> None:
    figure = draw_loss_by_position(build_perplexity_table([record(losses=losses)]))
    assert figure is not None
    figure.canvas.draw()
    low, high = figure.axes[0].get_ylim()
    assert math.isfinite(low)
    assert math.isfinite(high)
    assert low < high
