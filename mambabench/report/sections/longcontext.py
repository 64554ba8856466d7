"""What models still know at each length: recall, effective contexts and the loss by context.

section = longcontext_section(Rows(runs))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from mambabench.report.document import EMPTY, Block, Cell, Column, Section, Table, Tone
from mambabench.report.format import Row, Rows, figure, integer, measured, seconds, size, some, unique, whole
from mambabench.report.sections.layout import (
    FEW_MODELS,
    MOST_COLUMNS,
    MOST_ROWS,
    findings,
    first_rows,
    grids,
    table,
    thinned,
)

MEAN: Final = "mean"
"""Name of the mean over tasks among the tasks of frame effective_contexts."""
_MOST_LENGTHS: Final = 10
_USUAL_RULE: Final = "90% of short"
ABOVE_CHANCE: Final = "90% above chance"
"""Rule of effective contexts where guessing alone would keep 90%."""


def longcontext_section(rows: Rows) -> Section | None:
    """Return the section, or None where no length was probed."""
    blocks: list[Block] = [*_means(rows), *_by_task(rows), *_losses(rows)]
    if not blocks:
        return None
    lead = (
        "Recall is the share of questions about the text that are answered rightly; in means tasks count "
        "alike. Loss is that of the same words at every length of context before them. "
        "Brackets hold 95% intervals."
    )
    said = findings(rows, ("longcontext",))
    return Section("long-context", "What models still know at length", (*blocks, *said), lead)


def _means(rows: Rows) -> list[Table]:
    """Return what each length gives and costs; of many models recall alone."""
    found = rows("recall_means")
    if not found:
        return []
    if len(found) > MOST_ROWS:
        return _grid("recall-means", "Recall by length", "recall_means", found, "accuracy", "%", rows)
    columns = [
        Column("model"),
        Column("length", "tokens", numeric=True),
        Column("recall [95%]", "%", numeric=True),
        Column("loss", "nats", numeric=True),
        Column("bits a byte", numeric=True),
        Column("time to first token", numeric=True),
        Column("time per token", numeric=True),
        Column("peak memory", numeric=True),
        Column("state", numeric=True, note="of one sequence"),
        Column("limits"),
    ]
    body = [
        [
            Cell(row["label"]),
            integer(row["length_tokens"]),
            figure(row["accuracy"], "%", row["interval_low"], row["interval_high"]),
            figure(row["loss_nats"], "nats"),
            figure(row["bits_per_byte"], "bits/byte"),
            measured(row["ttft_s"], seconds),
            measured(row["tpot_s"], seconds),
            measured(row["peak_bytes"], size),
            measured(row["state_bytes"], size),
            Cell(row["flags"] or "", tone="doubt"),
        ]
        for row in found
    ]
    return [table("recall-means", "What a length gives and what it costs", "recall_means", columns, body)]


def _by_task(rows: Rows) -> list[Table]:
    """Return accuracy by task and length with effective contexts."""
    found = [row for row in rows("recall") if row["metric"] == "accuracy" or row["status"] != "ok"]
    contexts = {(row["label"], row["task"]): row for row in rows("effective_contexts") if row["headline"]}
    tables = _effective(contexts)
    if found:
        tables += _grid(
            "recall", "Recall by task and length", "recall", found, "value", "%", rows, by_task=True
        )
    return tables


def _effective(contexts: dict[tuple[str, str], Row]) -> list[Table]:
    """Return up to which length each model keeps its recall, with tasks in columns."""
    if not contexts:
        return []
    labels = unique(label for label, _ in contexts)
    tasks = sorted(unique(task for _, task in contexts), key=lambda task: task != MEAN)
    names = {task: "mean over tasks" if task == MEAN else task for task in tasks}
    by_task = len(labels) <= FEW_MODELS
    lines, others = (tasks, labels) if by_task else (labels, tasks)

    def cell_of(other: str) -> Callable[[int], Cell]:
        def cell(i: int) -> Cell:
            row = contexts.get((other, lines[i]) if by_task else (lines[i], other))
            return EMPTY if row is None else _kept(row)

        return cell

    return grids(
        "effective-contexts",
        "Longest length that keeps the recall of the shortest one",
        "effective_contexts",
        heads=[Column("task" if by_task else "model")],
        names=[(Cell(names.get(line, line)),) for line in lines],
        columns=[
            (Column(names.get(other, other), "tokens", numeric=True), cell_of(other)) for other in others
        ],
        notes=["Kept is 90% of it, or 90% of what is above chance where guessing would reach that. In "
               "brackets the ends of the 95% interval; + stands for beyond the longest length measured."],
    )  # fmt: skip


def _kept(row: Row) -> Cell:
    if row["ever_above_chance"] is False:
        return Cell("not above chance", tone="bad")
    note = "" if row["rule"] == _USUAL_RULE else row["rule"] or ""
    low, high, length = row["length_low_tokens"], row["length_high_tokens"], row["length_tokens"]
    if length is None:
        return Cell("none", tone="bad", note=note or "not above chance at the shortest length")
    if low is None:
        return integer(length, note=note)
    ends = f"{whole(low)}+" if high is None else f"{whole(low)}, {whole(high)}"
    numbers = (length, low) if high is None else (length, low, high)
    return Cell(f"{whole(length)} [{ends}]", numbers, note=note)


def _grid(
    key: str, title: str, frame: str, found: list[Row], column: str, unit: str, rows: Rows, *,
    by_task: bool = False,
) -> list[Table]:  # fmt: skip
    """Return figures with lengths in columns."""
    by: dict[Any, Row] = {}
    lines: dict[tuple[str, str], Row] = {}
    for row in found:
        line = (row["task"] if by_task else "", row["label"])
        lines.setdefault(line, row)
        by[(*line, row["length_tokens"])] = row
    order = {task: i for i, task in enumerate(unique(task for task, _ in lines))}
    kept = sorted(lines, key=lambda line: order[line[0]])
    all_lengths = sorted(unique(row["length_tokens"] for row in found))
    lengths = thinned(all_lengths, _MOST_LENGTHS)
    notes = []
    if len(lengths) < len(all_lengths):
        notes.append(f"{len(lengths)} of {len(all_lengths)} lengths; frame {frame} has all.")
    shown, more = first_rows(kept, frame, "line")
    if by_task and any(_guessed(row) for row in found):
        notes.append("With a question mark: not above chance by its interval.")
    notes += _past(found, "length_tokens")

    def at(length: int) -> Callable[[int], Cell]:
        def cell(i: int) -> Cell:
            row = by.get((*shown[i], length))
            return EMPTY if row is None else _recalled(row, column, unit)

        return cell

    heads = [*([Column("task")] if by_task else []), Column("model")]
    return grids(
        key,
        title,
        frame,
        heads=heads,
        names=[tuple(Cell(name) for name in (line if by_task else line[1:])) for line in shown],
        columns=[(Column(whole(length), "tokens", numeric=True), at(length)) for length in lengths],
        most=_MOST_LENGTHS,
        notes=[*notes, *more],
    )


def _past(found: Sequence[Row], length: str) -> list[str]:
    """Say from which length on models are past what they were trained on."""
    first: dict[str, int] = {}
    for row in found:
        if row.get("past_training_length"):
            first[row["label"]] = min(row[length], first.get(row["label"], row[length]))
    said = [f"{label} from {whole(tokens)} tokens" for label, tokens in first.items()]
    return [f"Past the training length: {some(said)}."] if said else []


def _guessed(row: Row) -> bool:
    low, chance = row.get("interval_low"), row.get("chance")
    return low is not None and chance is not None and bool(low <= chance)


def _recalled(row: Row, column: str, unit: str) -> Cell:
    if row[column] is None:
        status = row.get("status") or ""
        if status in ("", "ok"):
            return EMPTY
        return Cell(status, tone="faint" if status == "unsupported" else "bad", note=row["detail"] or "")
    past = bool(row.get("past_training_length"))
    tone: Tone = "faint" if _guessed(row) else "doubt" if past else ""
    found = figure(row[column], unit, row["interval_low"], row["interval_high"])
    mark = " ?" if _guessed(row) else ""
    return Cell(f"{found.text}{mark}", found.numbers, tone)


def _losses(rows: Rows) -> list[Table]:
    """Return the loss by context, contexts in rows, models in columns."""
    found = rows("context_losses")
    tables: list[Table] = []
    corpora = unique(row["corpus"] for row in found)
    for i, corpus in enumerate(corpora, 1):
        own = [row for row in found if row["corpus"] == corpus]
        tables += _losses_of(own, f"context-losses-{i}" if len(corpora) > 1 else "context-losses", corpus)
    return tables


def _losses_of(found: Sequence[Row], key: str, corpus: str) -> list[Table]:
    contexts = sorted(unique(row["context_tokens"] for row in found))
    by = {(row["label"], row["context_tokens"]): row for row in found}
    labels = unique(row["label"] for row in found)

    def at(label: str) -> Callable[[int], Cell]:
        def cell(i: int) -> Cell:
            row = by.get((label, contexts[i]))
            return EMPTY if row is None else _loss(row)

        return cell

    notes = ["Nats a token: models with different tokenizers compare by bits per byte only, in frame "
             "context_losses."]  # fmt: skip
    notes += _past(found, "context_tokens")
    return grids(
        key,
        f"Loss by length of context{f': {corpus}' if corpus else ''}",
        "context_losses",
        heads=[Column("context", "tokens", numeric=True)],
        names=[(integer(context),) for context in contexts],
        columns=[(Column(label, "nats", numeric=True), at(label)) for label in labels],
        most=MOST_COLUMNS,
        notes=notes,
    )


def _loss(row: Row) -> Cell:
    if row["loss_nats"] is None:
        failed = row["status"] not in (None, "ok")
        return Cell(row["status"], tone="bad", note=row["detail"] or "") if failed else EMPTY
    past = bool(row["past_training_length"])
    ends = row["loss_nats_low"], row["loss_nats_high"]
    return figure(row["loss_nats"], "nats", *ends, tone="doubt" if past else "")
