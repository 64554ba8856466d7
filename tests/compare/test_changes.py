"""Items won, lost and shifted, and the words that are shown of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from changed_items import aligned_runs, chosen, sampled
from scored_runs import Samples

from mambabench.compare.changes import task_changes
from mambabench.compare.items import AlignedTask
from mambabench.compare.result import CompareOptions, Shift, TaskChanges
from mambabench.compare.texts import ANSWER_CHARS, SCREENFUL_CHARS, chosen_of, read_texts
from mambabench.errors import StoreError
from mambabench.schema import MetricRecord

WORDS = ["no", "perhaps", "certainly not"]


def answered(*likelihoods: tuple[float, float, float]) -> Samples:
    """Items whose right answer is the first choice."""
    return [chosen(i, f"Question {i}?", WORDS, 0, scores) for i, scores in enumerate(likelihoods)]


def changes(task: AlignedTask, **options: Any) -> TaskChanges:
    (found,) = task_changes(task, "base", ["tuned"], CompareOptions(**options))
    return found


@pytest.fixture
def flipped(tmp_path: Path) -> AlignedTask:
    # By acc: item 0 lost, 1 won, 2 lost by more, 3 stays right and shifts most, 4 stays wrong.
    before = answered((-1, -2, -9), (-3, -2, -9), (-1, -2, -9), (-1, -20, -30), (-5, -2, -9))
    after = answered((-3, -2, -9), (-1, -2, -9), (-7, -4, -6), (-9, -20, -30), (-5.5, -2, -9))
    (task,) = aligned_runs(tmp_path, [{"quiz": before}, {"quiz": after}])
    return task


class TestFlips:
    def test_are_counted_and_sorted_by_the_shift(self, flipped: AlignedTask) -> None:
        found = changes(flipped)
        assert (found.n, found.n_won, found.n_lost) == (5, 1, 2)
        assert [one.doc_id for one in found.lost] == [2, 0]
        assert [one.doc_id for one in found.won] == [1]
        assert [(one.doc_id, one.change) for one in found.shifts] == [
            (3, "shift"), (2, "lost"), (0, "lost"), (1, "won"), (4, "shift"),
        ]  # fmt: skip

    def test_say_what_each_side_answered(self, flipped: AlignedTask) -> None:
        found = changes(flipped, n_examples=1)
        assert found.lost == (
            Shift(
                candidate="tuned", task="quiz", member="quiz", doc_id=2, change="lost", baseline_value=1.0,
                candidate_value=0.0, baseline_log_likelihood=-1.0, candidate_log_likelihood=-7.0,
                text="Question 2?", right_answer="no", baseline_answer="no", candidate_answer="perhaps",
            ),
        )  # fmt: skip
        assert (len(found.won), len(found.shifts)) == (1, 1)

    def test_without_examples_no_text_is_read(self, flipped: AlignedTask) -> None:
        paths = {path for side in flipped.sides for path in side.samples_paths}
        for path in paths:
            path.write_bytes(b"damaged")
        found = changes(flipped, n_examples=0)
        assert (found.n_won, found.won, found.shifts) == (1, (), ())
        with pytest.raises(StoreError, match="cannot read the samples"):
            changes(flipped)

    def test_other_items_are_not_parsed(self, flipped: AlignedTask) -> None:
        path = flipped.sides[0].samples_paths[0]
        table = pq.read_table(path)
        texts = ["{not JSON" if i == 4 else text for i, text in enumerate(table["arguments"].to_pylist())]
        column = table.schema.get_field_index("arguments")
        damaged = table.set_column(column, table.schema.field(column), pa.array(texts, pa.large_string()))
        pq.write_table(damaged, path)
        assert [one.text for one in changes(flipped, n_examples=2).lost] == ["Question 2?", "Question 0?"]
        assert read_texts(flipped, [4])[4].question == ""

    def test_sides_without_labels_are_refused(self, flipped: AlignedTask) -> None:
        with pytest.raises(ValueError, match="2 sides"):
            task_changes(flipped, "base", ["tuned", "other"], CompareOptions())


class TestRules:
    def test_acc_norm_divides_by_characters(self, tmp_path: Path) -> None:
        # Each é takes two bytes: by bytes, and undivided, the first choice would win.
        choices = ["ééé", "aaaa", "zz"]
        one = [chosen(0, "?", choices, 2, (-4.0, -4.4, -90.0))]
        other = [chosen(0, "?", choices, 2, (-3.0, -4.4, -91.0))]
        (task,) = aligned_runs(tmp_path, [{"q": one}, {"q": other}], metrics=("acc_norm", "acc"))
        by = {
            rule: [
                None if at is None else int(at[0]) for at in (chosen_of(side, rule) for side in task.sides)
            ]
            for rule in ("acc", "acc_norm", "acc_bytes")
        }
        assert by == {"acc": [0, 0], "acc_norm": [1, 0], "acc_bytes": [0, 0]}
        (shift,) = changes(task).shifts
        assert (shift.baseline_answer, shift.candidate_answer) == ("aaaa", "ééé")

    def test_the_score_holds_where_the_rule_says_otherwise(self, tmp_path: Path) -> None:
        odd = [{**chosen(0, "?", WORDS, 0, (-1, -2, -90)), "acc_norm": 0.0}]
        (task,) = aligned_runs(tmp_path, [{"q": odd}, {"q": odd}], metrics=("acc_norm", "acc"))
        # By its own rule acc_norm takes the second choice of the one, and the right one of the other.
        agrees = [{**chosen(0, "?", WORDS, 0, (-1, -20, -90)), "acc_norm": 0.0}]
        (other,) = aligned_runs(tmp_path / "2", [{"q": agrees}, {"q": agrees}], metrics=("acc_norm", "acc"))
        assert read_texts(task, [0])[0].answers == ("perhaps", "perhaps")
        assert read_texts(other, [0])[0].answers == ("", "")


class TestKinds:
    def test_beginnings_of_one_sentence_are_the_choices(self, tmp_path: Path) -> None:
        arguments = [
            ("The trophy did not fit the case because the case", " was too small."),
            ("The trophy did not fit the case because the cup", " was too small."),
        ]
        items = [
            [sampled(0, arguments, " was too small.", [(a, False), (b, False)], acc=acc)]
            for a, b, acc in ((-1.0, -2.0, 1.0), (-2.0, -1.0, 0.0))
        ]
        (task,) = aligned_runs(tmp_path, [{"winogrande": one} for one in items])
        (lost,) = changes(task).lost
        assert lost.text == "The trophy did not fit the case because the _ was too small."
        assert (lost.right_answer, lost.baseline_answer, lost.candidate_answer) == ("case", "case", "cup")

    def test_a_continuation_is_the_answer_where_it_was_likeliest(self, tmp_path: Path) -> None:
        items = [
            [sampled(0, [("The dog chased the", " cat")], " cat", [(score, right)], acc=float(right))]
            for score, right in ((-0.5, True), (-3.0, False))
        ]
        (task,) = aligned_runs(tmp_path, [{"lambada": one} for one in items], output_type="loglikelihood")
        (lost,) = changes(task).lost
        assert (lost.right_answer, lost.baseline_answer, lost.candidate_answer) == ("cat", "cat", "")
        assert (lost.baseline_log_likelihood, lost.candidate_log_likelihood) == (-0.5, -3.0)

    def test_flips_go_by_the_accuracy_where_the_headline_is_a_perplexity(self, tmp_path: Path) -> None:
        def words(*scores: float) -> Samples:
            return [
                sampled(i, [("The dog chased the", " cat")], " cat", [(score, score > -1)],
                        perplexity=score, acc=float(score > -1))
                for i, score in enumerate(scores)
            ]  # fmt: skip

        pairs = [words(-0.5, -3.0), words(-4.0, -0.7)]
        records = [
            [
                MetricRecord(
                    metric="perplexity",
                    value=float(np.exp(-np.mean([sample["perplexity"] for sample in samples]))),
                    unit="perplexity",
                    n=2,
                    higher_is_better=False,
                ),
                MetricRecord(metric="acc", value=0.5, unit="fraction", n=2),
            ]
            for samples in pairs
        ]
        (task,) = aligned_runs(
            tmp_path,
            [{"lambada": one} for one in pairs],
            metrics=("perplexity", "acc"),
            output_type="loglikelihood",
            records=records,
        )
        found = changes(task)
        assert (found.n_won, found.n_lost) == (1, 1)
        assert [(one.doc_id, one.baseline_value, one.candidate_value) for one in found.lost] == [
            (0, 1.0, 0.0)
        ]
        assert found.lost[0].candidate_log_likelihood == -4.0

    def test_of_generation_what_the_filter_left_is_shown(self, tmp_path: Path) -> None:
        items = [
            [
                {**sampled(i, [(f"{i} + 1 =", {"until": ["\n"]})], str(i + 1), [text], acc=acc),
                 "filtered_resps": [text.strip()]}
                for i, (text, acc) in enumerate(answers)
            ]
            for answers in ([(" 1", 1.0), (" 2", 1.0)], [(" 1", 1.0), (" 7 \ud83d", 0.0)])
        ]  # fmt: skip
        (task,) = aligned_runs(tmp_path, [{"sums": one} for one in items], output_type="generate_until")
        found = changes(task)
        (lost,) = found.lost
        assert (lost.text, lost.right_answer, lost.baseline_answer) == ("1 + 1 =", "2", "2")
        # Half of a surrogate pair cannot be written.
        assert lost.candidate_answer == "7 ?"
        assert (found.n_won, found.n_lost, found.shifts) == (0, 1, ())

    def test_texts_shift_by_the_word(self, tmp_path: Path) -> None:
        def texts(long: float, short: float) -> Samples:
            return [
                {**sampled(i, [(f"{'word ' * n}",)], "", [score], word_perplexity=0.0),
                 "word_perplexity": (score, n), "filtered_resps": [score]}
                for i, (score, n) in enumerate(((long, 100), (short, 4)))
            ]  # fmt: skip

        pairs = [texts(-300.0, -12.0), texts(-310.0, -16.0)]
        records = [[perplexity(samples)] for samples in pairs]
        (task,) = aligned_runs(
            tmp_path, [{"texts": one} for one in pairs], metrics=("word_perplexity",),
            output_type="loglikelihood_rolling", records=records,
        )  # fmt: skip
        found = changes(task)
        # The long text lost 0.1 nats a word, the short one 1.
        assert [one.doc_id for one in found.shifts] == [1, 0]
        assert (found.n_won, found.n_lost, found.categories) == (None, None, ())
        shift = found.shifts[0]
        assert (shift.baseline_value, shift.baseline_log_likelihood, shift.right_answer) == (None, -12.0, "")
        assert shift.text == "word word word word"


def perplexity(samples: Samples) -> MetricRecord:
    pairs = [sample["word_perplexity"] for sample in samples]
    value = float(np.exp(-sum(score for score, _ in pairs) / sum(n for _, n in pairs)))
    return MetricRecord(metric="word_perplexity", value=value, unit="perplexity", n=2, higher_is_better=False)


def test_long_words_are_cut_where_they_say_least(tmp_path: Path) -> None:
    question = "Example. " * 500 + "And now: what?"
    choices = ["yes " * 300, "no"]
    items = [[chosen(0, question, choices, 0, scores)] for scores in ((-1.0, -2.0), (-2.0, -1.0))]
    (task,) = aligned_runs(tmp_path, [{"q": one} for one in items])
    (lost,) = changes(task).lost
    assert len(lost.text) == SCREENFUL_CHARS
    assert lost.text.startswith("…")
    assert lost.text.endswith("And now: what?")
    assert len(lost.baseline_answer) == ANSWER_CHARS
    assert lost.baseline_answer.startswith("yes yes")


def test_members_of_a_group_are_told_apart(tmp_path: Path) -> None:
    def subject(name: str, likelihood: float) -> Samples:
        return [chosen(0, f"{name}?", WORDS, 0, (likelihood, -2, -9))]

    sides = [
        {"g_birds": subject("birds", -1), "g_bees": subject("bees", -1)},
        {"g_birds": subject("birds", -1), "g_bees": subject("bees", -5)},
    ]
    (task,) = aligned_runs(tmp_path, sides, group="g")
    (lost,) = changes(task).lost
    assert (lost.task, lost.member, lost.doc_id, lost.text) == ("g", "g_bees", 0, "bees?")


def test_a_metric_without_yes_or_no_has_only_shifts(tmp_path: Path) -> None:
    items = [[sampled(0, [("Sum up", {"until": []})], "a", ["b"], f1=score)] for score in (0.25, 0.75)]
    records = [[MetricRecord(metric="f1", value=score, unit="fraction", n=1)] for score in (0.25, 0.75)]
    (task,) = aligned_runs(
        tmp_path,
        [{"sums": one} for one in items],
        metrics=("f1",),
        output_type="generate_until",
        records=records,
    )
    found = changes(task)
    assert (found.n_won, found.won, found.shifts, found.categories) == (None, (), (), ())
