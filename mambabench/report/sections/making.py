"""How it was made: runs, versions, machines, models, commands and digests, enough to do it again.

section = making_section(Rows(runs))
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from mambabench.report.document import EMPTY, Block, Cell, Code, Column, Section, Table, Tone
from mambabench.report.format import Row, Rows, integer, measured, number, plural, size, unique
from mambabench.report.sections.layout import first_rows, table

_STATES: Final[dict[str, Tone]] = {
    "complete": "", "partial": "doubt", "interrupted": "doubt", "failed": "bad", "empty": "bad",
    "unreadable": "bad",
}  # fmt: skip
_LETTERS_OF_DIGEST: Final = 12
_SAME_OF_RUNS: Final = frozenset(("mambabench", "torch", "transformers", "lm-eval", "device"))
_SAME_OF_MODELS: Final = frozenset(("weights", "dtype", "device", "run by", "scan or attention", "tokenizer"))
"""Columns that are left out where they say the same of every row."""


def making_section(rows: Rows) -> Section:
    """Return the section."""
    runs, checkpoints = rows("runs"), rows("checkpoints")
    blocks: list[Block] = []
    if runs:
        blocks.append(_runs(runs))
    if checkpoints:
        blocks.append(_checkpoints(checkpoints))
    blocks += _codes(runs, checkpoints)
    lead = (
        "The commands below make the same runs again; equal digests mean equal weights, settings and suites."
        if runs
        else "There is no run."
    )
    return Section("how-made", "How it was made", tuple(blocks), lead)


def _runs(runs: Sequence[Row]) -> Table:
    columns = [
        Column("run"), Column("kind"), Column("state"), Column("suite"),
        Column("results", numeric=True, note="cells, processes or records that ended well"),
        Column("failed", numeric=True), Column("missing", numeric=True), Column("begun"),
        Column("mambabench"), Column("torch"), Column("transformers"), Column("lm-eval"), Column("device"),
        Column("size", numeric=True), Column("problem"),
    ]  # fmt: skip
    shown, notes = first_rows(runs, "runs", "run")
    body = [
        [
            Cell(row["run"]), Cell(row["kind"] or ""),
            Cell(row["state"] or "", tone=_STATES.get(row["state"] or "", "")), Cell(row["suite"] or ""),
            integer(row["n_results"]), integer(row["n_failed"] or None, tone="bad"),
            integer(row["n_missing"] or None, tone="doubt"), Cell(row["created_utc"] or ""),
            *(Cell(row[name] or "") for name in ("mambabench", "torch", "transformers", "lm_eval")),
            Cell(row["device_name"] or ""), measured(row["size_bytes"], size),
            Cell(row["problem"] or "", tone="bad"),
        ]
        for row in shown
    ]  # fmt: skip
    for name, said in (("host", "Machine"), ("git", "Working directory at commit")):
        values = unique(row[name] or None for row in runs)
        if values:
            notes.append(f"{said}: {'; '.join(values[:4])}{' and more' if len(values) > 4 else ''}.")
    columns, body, alike = _apart(columns, body, _SAME_OF_RUNS)
    return table("runs", plural(len(runs), "run"), "runs", columns, body, [*alike, *notes])


def _checkpoints(checkpoints: Sequence[Row]) -> Table:
    columns = [
        Column("model"), Column("family"), Column("parameters", numeric=True), Column("weights"),
        Column("dtype"), Column("device"), Column("run by"), Column("scan or attention"),
        Column("tokenizer"), Column("revision"), Column("adapter"),
        Column("weights' digest", note="sha256, its beginning"),
        Column("error over shipped", numeric=True, note="of the fast path over that of the shipped one"),
    ]  # fmt: skip
    by: dict[tuple[Cell, ...], None] = {}
    for row in checkpoints:
        by.setdefault(tuple(_checkpoint(row)))
    shown, notes = first_rows(list(by), "checkpoints", "model")
    columns, lines, alike = _apart(columns, shown, _SAME_OF_MODELS)
    return table(
        "checkpoints", "Models as they were loaded", "checkpoints", columns, lines, [*alike, *notes]
    )  # fmt: skip


def _apart(
    columns: Sequence[Column], rows: Sequence[Sequence[Cell]], names: Collection[str]
) -> tuple[list[Column], list[list[Cell]], list[str]]:
    """Take out columns that say the same of every row, and say it once."""
    said = []
    kept = []
    for j, column in enumerate(columns):
        values = {row[j].text for row in rows}
        if column.title in names and len(rows) > 1 and len(values) == 1 and "" not in values:
            said.append(f"{column.title} {values.pop()}")
        else:
            kept.append(j)
    notes = [f"All: {', '.join(said)}."] if said else []
    return [columns[j] for j in kept], [[row[j] for j in kept] for row in rows], notes


def _checkpoint(row: Row) -> list[Cell]:
    weights = row["weights"] or ""
    if row["weights"] == "random" and row["seed"] is not None:
        weights = f"random, seed {row['seed']}"
    return [
        Cell(row["label"]), Cell(row["family"] or ""), measured(row["n_parameters"], _count), Cell(weights),
        Cell(row["dtype"] or ""), Cell(row["device_name"] or row["device"] or ""),
        *(Cell(row[name] or "") for name in ("implementation", "kernel_path", "tokenizer")),
        Cell(" ".join(part for part in (row["hub_id"], row["revision"]) if part)), Cell(row["adapter"] or ""),
        Cell((row["weights_sha256"] or "")[:_LETTERS_OF_DIGEST], note=row["weights_sha256"] or ""),
        _certificate(row),
    ]  # fmt: skip


def _count(value: float) -> str:
    """Return a number of parameters with three digits."""
    for factor, letter in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if value >= 0.9995 * factor:
            return f"{number(value / factor)} {letter}"
    return number(value)


def _certificate(row: Row) -> Cell:
    if row["certificate_ratio"] is None:
        return EMPTY
    tone: Tone = "bad" if row["certificate_passed"] is False else ""
    word = " failed" if row["certificate_passed"] is False else ""
    return Cell(f"{row['certificate_ratio']:.2f}{word}", (row["certificate_ratio"],), tone)


def _codes(runs: Sequence[Row], checkpoints: Sequence[Row]) -> list[Code]:
    """Return commands, settings and digests, a line each."""
    commands = unique(row["command"] or None for row in runs)
    settings = [f"{row['run']}  {row['settings']}" for row in runs if row["settings"]]
    digests = [f"{row['run']}  run  {row['identity']}" for row in runs if row["identity"]]
    for kind in ("weights_sha256", "config_sha256"):
        digests += [
            f"{row['label']}  {kind.removesuffix('_sha256')}  {row[kind]}" for row in checkpoints if row[kind]
        ]
    return [
        Code(label, "\n".join(unique(lines)))
        for label, lines in (("Commands", commands), ("Settings", settings), ("Digests", digests))
        if lines
    ]
