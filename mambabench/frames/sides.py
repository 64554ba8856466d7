"""Models of loaded runs as sides of a comparison, and as much of each as can be compared with others.

    sides, opened = scored_sides(runs)
    compare_sides(sides, sides[0], CompareOptions(), opened)

A file that is damaged costs the task that it holds: the task is then left out of the model's side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from mambabench.compare.result import Side
from mambabench.compare.sources import has_rows
from mambabench.errors import StoreError
from mambabench.store import StoredRun

if TYPE_CHECKING:
    from pathlib import Path

    from mambabench.frames.load import LoadedRun
    from mambabench.schema import CellRecord


class OpenRun(StoredRun):
    """A run that was read before; what cannot be used of it can be left out.

    Args:
        run: scored, with a manifest that can be read.
    """

    def __init__(self, run: LoadedRun) -> None:
        assert run.stored is not None
        self.path = run.path
        self.manifest = run.stored.manifest
        done = Counter((cell.model, cell.task.task) for cell in run.cells if cell.status == "ok")
        self._cells = [
            cell
            for cell in run.cells
            # Of two results of one task nobody can tell which is meant.
            if cell.status != "ok" or (done[cell.model, cell.task.task] == 1 and self._can_be_read(cell))
        ]

    def cells(self) -> list[CellRecord]:
        """Return the cells that are not left out."""
        return self._cells

    def leave_out(self, text: str) -> bool:
        """Leave out the cells whose samples a text names; return whether there are any."""
        kept = [cell for cell in self._cells if str(self.samples_path_of(cell)) not in text]
        found = len(kept) < len(self._cells)
        self._cells = kept
        return found

    def _can_be_read(self, cell: CellRecord) -> bool:
        try:
            has_rows(self.samples_path_of(cell))
        except StoreError:
            return False
        return True


def scored_sides(runs: Iterable[LoadedRun]) -> tuple[list[Side], dict[Path, OpenRun]]:
    """Return the models with results of the zero-shot and imported runs, and those runs by directory."""
    sides: list[Side] = []
    opened: dict[Path, OpenRun] = {}
    for run in runs:
        if run.manifest is None or run.manifest.kind not in ("zeroshot", "imported"):
            continue
        one = opened[run.path] = OpenRun(run)
        done = [cell for cell in one.cells() if cell.status == "ok"]
        for model in _in_order(run.manifest.models, {cell.model for cell in done}):
            sides.append(
                Side(
                    label=run.label(model),
                    model=model,
                    run=run.path,
                    kind=run.manifest.kind,
                    has_samples=any(
                        has_rows(one.samples_path_of(cell)) for cell in done if cell.model == model
                    ),
                    partial=run.manifest.partial,
                    origin=run.name,
                )
            )
    return sides, opened


def _in_order(models: Sequence[str], there: set[str]) -> list[str]:
    return [m for m in models if m in there] + sorted(there.difference(models))


def tasks_of(side: Side, opened: Mapping[Path, OpenRun]) -> frozenset[str]:
    """Return the tasks and groups of which a side has results."""
    cells = opened[side.run].cells()
    return frozenset(
        cell.task.group or cell.task.task
        for cell in cells
        if cell.model == side.model and cell.status == "ok"
    )


def choose(sides: Sequence[Side], first: Side, asked: Mapping[Side, frozenset[str]]) -> list[Side]:
    """Choose sides that go with one of them, so that most values are compared: tasks in common times sides.

    Args:
        sides: with `first` among them.
        first: that is kept in any case.
        asked: each side's tasks; labels may stand for several sides that have none in common.

    Returns:
        In their order; none if no other has a task of the first.
    """
    shared = {side: asked[side] & asked[first] for side in sides}

    def having(tasks: frozenset[str]) -> list[Side]:
        return [side for side in sides if side is first or tasks <= shared[side]]

    def worth(found: Sequence[Side]) -> tuple[int, int]:
        common = frozenset.intersection(*(shared[side] for side in found))
        return len(common) * (len(found) - 1), len(found)

    sets = dict.fromkeys(shared[side] for side in sides if side is not first and shared[side])
    return max((having(tasks) for tasks in sets), default=[], key=worth)
