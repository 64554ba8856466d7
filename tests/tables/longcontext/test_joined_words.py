"""The sentences of a long-context run, word for word, and what is left unsaid without data for it."""

from __future__ import annotations

import pytest
from long_records import MAMBA, PYTHIA, Run, long, loss_record, recall_record, recalls, small, usual

from mambabench.tables.longcontext.table import LongTable, build_long_table
from mambabench.tables.longcontext.words import (
    chance_words,
    compared_words,
    cost_words,
    effective_words,
    loss_words,
    span,
    words,
)


def rights(model: str, task: str, by_length: dict[int, int], n: int = 100, **more: int) -> list[object]:
    """Return records with so many of n questions right."""
    return [
        recall_record(model, task, length, 0.5, given=[1.0] * k + [0.0] * (n - k), n_samples=n, **more)
        for length, k in by_length.items()
    ]


def table_of(made: list[object]) -> LongTable:
    records, rows = [], {}
    for record, found in made:  # type: ignore[misc, attr-defined]
        records.append(record)
        rows[record.fingerprint] = found
    return build_long_table("a run", records, [], rows=rows)


def test_a_small_run() -> None:
    assert words(small()) == [
        "mamba-130m: effective context 256 tokens (95% interval 256 alone): recall in needle keeps 90% of "
        "its 98.0% at 256 tokens up to there; it was trained on 2,048.",
        "Loss of mamba-130m is still falling at 512 tokens of context, the longest measured; from 256 to 512 "
        "tokens it falls by 0.100 nats a token (95% interval 0.092 to 0.108) over 8 documents.",
    ]


def test_effective_contexts_of_means_and_tasks() -> None:
    made = rights("m", "a", {256: 100, 512: 100, 1024: 40}) + rights(
        "m", "b", {256: 100, 512: 100, 1024: 100}
    )
    assert effective_words(table_of(made)) == [
        "m: effective context 512 tokens (95% interval 512 alone): mean recall in 2 tasks keeps 90% of its "
        "100% at 256 tokens up to there.",
        "m task by task: a 512 (512 alone), b at least 1,024.",
    ]


def test_the_longest_length_and_open_ends_are_said() -> None:
    at_least = table_of(rights("m", "a", {256: 10, 512: 10}, n=10))
    assert effective_words(at_least) == [
        "m: effective context at least 512 tokens (95% interval from 256 on): recall in a keeps 90% of its "
        "100% at 256 tokens up to there, the longest length measured."
    ]
    unsure = table_of(rights("m", "a", {256: 10, 512: 8}, n=10))
    (effective,) = unsure.effective
    assert span(effective.headline) == "256 (256 or more)"
    assert "effective context 256 tokens (95% interval from 256 on)" in effective_words(unsure)[0]


def test_a_bar_above_chance_is_told_where_it_says_something_else() -> None:
    both = table_of(rights("m", "a", {256: 600, 512: 555, 1024: 545}, n=1000, n_choices=2))
    assert effective_words(both)[0].endswith(
        "at 256 tokens up to there, the longest length measured; of what is above chance (50.0%) it keeps "
        "90% up to 256 (256 alone)."
    )
    # Guessing alone would keep 90% of 54%.
    only = table_of(rights("m", "a", {256: 5400, 512: 5390, 1024: 5000}, n=10000, n_choices=2))
    assert effective_words(only) == [
        "m: effective context 512 tokens (95% interval 512 alone): recall in a keeps 90% of what is above "
        "chance of 54.0% at 256 tokens up to there."
    ]


def test_tasks_at_chance_are_named_and_nothing_is_said_of_length() -> None:
    at = {256: 25, 512: 25}
    made = rights("m", "a", at) + rights("m", "b", at) + rights("n", "a", at)
    made += rights("n", "b", {256: 99, 512: 99})
    assert chance_words(table_of(made)) == [
        "Not above chance at any length: every model in a; nothing can be said about length there.",
        "Not above chance at any length: m in b; nothing can be said about length there.",
    ]
    said = effective_words(table_of(rights("m", "a", at)))
    assert said == [
        "m: recall in a is not above chance (25.0%) at 256 tokens, and nothing can be said about its "
        "effective context."
    ]
    later = table_of(rights("m", "a", {256: 25, 512: 80}))
    assert chance_words(later) == [
        "m is not above chance in a at 256 tokens, though it is at a longer length: there is no "
        "short-context value to keep."
    ]


def test_one_length_is_not_told_as_an_effective_context() -> None:
    table = table_of(rights("m", "a", {256: 90}) + rights("n", "a", {256: 50}))
    assert effective_words(table) == [
        "m: recall in a is 90.0% at 256 tokens, the only length measured.",
        "n: recall in a is 50.0% at 256 tokens, the only length measured.",
    ]
    assert compared_words(table) == []


def test_models_are_told_apart_where_intervals_separate() -> None:
    short = {256: 100, 512: 20, 1024: 20, 2048: 20}
    made = rights("m", "a", short) + rights("n", "a", dict.fromkeys(short, 100))
    assert compared_words(table_of(made)) == [
        "n holds longer than m: at least 2,048 against 256 (256 alone), at least 8.00 times as long."
    ]
    made += rights("o", "a", {256: 100, 512: 100, 1024: 92, 2048: 88})
    assert compared_words(table_of(made))[-1] == "Not distinguishable by effective context: n and o."
    # Ends that meet leave both the same length.
    meeting = rights("m", "a", {256: 100, 512: 100, 1024: 20}) + rights(
        "n", "a", {256: 100, 512: 100, 1024: 88}
    )
    assert compared_words(table_of(meeting)) == ["Not distinguishable by effective context: m and n."]
    # Of more than three models each is held against the longest only.
    assert len(compared_words(long())) == 1
    assert compared_words(long())[0].count("transformer-with-a-name") == 3


def test_loss_that_stops_settles_and_rises() -> None:
    losses = {256: 3.0, 512: 2.7, 1024: 2.7, 2048: 3.1}
    made = [loss_record("m", n, loss, noise=0.002) for n, loss in losses.items()]
    table = build_long_table("a run", [], [r for r, _ in made], rows={r.fingerprint: q for r, q in made})
    found = table.trends[0].found
    assert found.rise is not None
    assert found.gain is not None
    (said,) = loss_words(table)
    assert said == (
        "Loss of m stops falling at 512 tokens of context: no longer one is lower by more than noise; from "
        f"256 to {found.best_tokens:,} tokens it falls by 0.300 nats a token (95% interval "
        f"{-found.gain.high:.3f} to {-found.gain.low:.3f}) over 8 documents; a gain of 1% of perplexity "
        "beyond 512 is ruled out; it rises from 2,048 on: at 2,048 tokens it is 0.400 nats a token (95% "
        f"interval {found.rise.low:.3f} to {found.rise.high:.3f}) above that at {found.best_tokens:,}, 1.49 "
        "times the perplexity."
    )


def test_loss_that_does_not_fall() -> None:
    made = [loss_record("m", n, 3.0 + i * 0.1, n_documents=2) for i, n in enumerate((256, 512))]
    table = build_long_table("a run", [], [r for r, _ in made], rows={r.fingerprint: q for r, q in made})
    (said,) = loss_words(table)
    assert said == (
        "Loss of m does not fall by more than noise beyond 256 tokens of context, the shortest measured "
        "(32 blocks compared, as documents are few); a gain of 1% of perplexity beyond 256 is ruled out; "
        "it rises from 512 on: at 512 tokens it is 0.100 nats a token (95% interval 0.093 to 0.107) above "
        "that at 256, 1.11 times the perplexity."
    )
    falls = [loss_record("m", n, 3.0 - i * 0.1, n_documents=2) for i, n in enumerate((256, 512))]
    whole = [loss_record("m", n, 3.0 - i * 0.1, n_documents=1) for i, n in enumerate((256, 512))]
    for found, ending in ((falls, "over 32 blocks, as documents are few."), (whole, "over 32 blocks.")):
        built = build_long_table("a", [], [r for r, _ in found], rows={r.fingerprint: q for r, q in found})
        assert loss_words(built)[0].endswith(ending)
    one = build_long_table("a run", [], [made[0][0]], rows={made[0][0].fingerprint: made[0][1]})
    assert loss_words(one) == []


def test_the_last_doubling_has_its_price() -> None:
    run = Run(lengths=(256, 512, 1024), models=("mamba-130m", "pythia-160m"), speeds=(MAMBA, PYTHIA),
              tasks={"needle": recalls({256: 0.9, 512: 0.9, 1024: 0.9})}, loss=lambda m, n: 3.0)  # fmt: skip
    table = run.table()
    mamba, pythia = cost_words(table)
    rows = {n: table.row("mamba-130m", n) for n in (512, 1024)}
    recall = [100 * r.recall_mean.value for r in rows.values() if r.recall_mean]
    assert mamba.startswith(
        f"The last doubling of mamba-130m, from 512 to 1,024 tokens: recall {recall[0]:.1f}% to "
        f"{recall[1]:.1f}%, loss 3.000 to 3.000 nats, first token "
    )
    assert mamba.endswith("peak memory 529 MB to 539 MB; its state stays at 2.8 MB from 256 tokens on.")
    assert pythia.endswith("; its state grows from 42.4 MB to 80.1 MB.")
    steps = Run(lengths=(256, 700), speeds=(MAMBA,), tasks={"needle": recalls({256: 0.9, 700: 0.9})})
    assert cost_words(steps.table())[0].startswith("The last step of mamba-130m, from 256 to 700 tokens: ")
    single = Run(lengths=(256,), speeds=(MAMBA,), tasks={"needle": recalls({256: 0.9})})
    assert cost_words(single.table()) == []


@pytest.mark.parametrize("make", [usual, long])
def test_sentences_end_and_are_not_repeated(make: object) -> None:
    said = words(make())  # type: ignore[operator]
    assert len(said) == len(set(said))
    assert all(s.endswith(".") and not s.endswith("..") and "  " not in s and "None" not in s for s in said)
    assert words(build_long_table("a run", [], [], rows={})) == []
