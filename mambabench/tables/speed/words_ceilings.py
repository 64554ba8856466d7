"""What the machine itself reaches, in sentences: the lines that a sweep's figures are held against.

for sentence in ceiling_words(table):
    print(sentence)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mambabench.speed_schema import CeilingsRecord
from mambabench.tables.speed.format import Write, flops, listed, plural, size

if TYPE_CHECKING:
    from mambabench.tables.speed.table import SpeedTable


def ceiling_words(table: SpeedTable) -> list[str]:
    """Say what copies, reads and matrix products reach on each device, measured and by the data sheet."""
    said = []
    for device in dict.fromkeys(c.device for c in table.ceilings):
        here = [c for c in table.ceilings if c.device == device]
        sheet = next((c.sheet_bytes_per_s for c in here if c.sheet_bytes_per_s), None)
        parts = [
            _line("copies read and write", [(c.round, c.copy_bytes_per_s) for c in here], _rate, sheet),
            _line("reading alone does", [(c.round, c.read_bytes_per_s) for c in here], _rate, None),
        ]
        parts += [
            _products([c for c in here if c.dtype == d], d) for d in dict.fromkeys(c.dtype for c in here)
        ]
        known = [part for part in parts if part]
        if known:
            said.append(f"Ceilings of {device} ({here[0].device_name}): {'; '.join(known)}.")
    return said


def _products(here: Sequence[CeilingsRecord], dtype: str) -> str:
    sheet = next((c.sheet_flops_per_s for c in here if c.sheet_flops_per_s), None)
    rounds = [(c.round, c.matmul_flops_per_s) for c in here]
    return _line(f"{dtype} matrix products do", rounds, flops, sheet)


def _line(
    words: str, rounds: Sequence[tuple[int, Sequence[float]]], write: Write, sheet: float | None
) -> str:
    """Return the best figure, the best of each round where there are several, and how far repeats fall."""
    from mambabench.tables.speed.table import bests

    by_round = bests(rounds)
    if not by_round:
        return ""
    figures = [figure for _, repeats in rounds for figure in repeats]
    parts = []
    if len(by_round) > 1:
        parts.append(f"rounds at best {listed([write(best) for best in by_round.values()])}")
    parts.append(f"down to {write(min(figures))} in {plural(len(figures), 'repeat')}")
    if sheet is not None:
        parts.append(f"{write(sheet)} by its data sheet")
    return f"{words} {write(max(figures))} at best ({', '.join(parts)})"


def _rate(value: float) -> str:
    return f"{size(value)}/s"
