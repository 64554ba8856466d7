"""Stored runs as text for a terminal: a list, what they take on the disk, what was verified.

    render_list(overviews(place(Path("results")).runs), sys.stdout)

Names and texts of runs come from files, so all of it is made harmless before it is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TextIO

from mambabench.store.usage import KINDS, Taken
from mambabench.tables.compare.format import harmless, shortened
from mambabench.tables.console import console_on, fitting, no_room
from mambabench.units import size

if TYPE_CHECKING:
    from pathlib import Path

    from rich.table import Table

    from mambabench.compare.verify import Verified
    from mambabench.store.overview import Overview
    from mambabench.store.usage import Usage

_WIDTH_OF_FILES: Final = 200
_MOST_LETTERS: Final = 40
_MOST_PROBLEMS: Final = 10
STYLES: Final[Mapping[str, str]] = {
    "complete": "green", "partial": "yellow", "interrupted": "yellow", "failed": "bold red",
    "unreadable": "bold red", "running": "cyan", "agrees": "green", "differs": "bold red",
    "outdated": "yellow", "not checked": "dim",
}  # fmt: skip
_GIVEN_BACK: Final = ("complete", "partial")


def row_of(run: Overview) -> dict[str, Any]:
    """Return what a list says of a run, as plain data; texts are as they were read."""
    return {
        "path": str(run.path),
        "name": run.path.name,
        "kind": run.kind,
        "suite": run.suite,
        "models": list(run.models),
        "state": run.state,
        "n_results": run.n_ok,
        "n_failed": len(run.failed),
        "n_expected": run.n_expected,
        "created_utc": run.created_utc,
        "size_bytes": run.size_bytes,
        "n_files": run.n_files,
        "written_by": run.written_by,
        "problems": list(run.problems),
    }


def render_list(runs: Sequence[Overview], out: TextIO, *, with_place: bool = False) -> None:
    """Write a table of runs, a row each, with what is wrong with those that cannot be read below it.

    Args:
        runs: in the order of the rows.
        out: where it is written.
        with_place: whether runs are named by their paths, as those of several places must be.
    """
    console = console_on(out, _WIDTH_OF_FILES)
    rows = [_cells(run, with_place) for run in runs]
    columns: list[tuple[str, str]] = [
        (name, "right" if name in ("done", "size") else "left")
        for name in ("run", "kind", "suite", "models", "state", "done", "made", "size")
    ]

    def draw(kept: Sequence[tuple[str, str]], narrow: bool) -> Table:
        table = _table()
        for name, side in kept:
            _column(table, name, side, folds=narrow and name == "run")
        for row in rows:
            table.add_row(*(_styled(row[name]) for name, _ in kept))
        return table

    table, _, left_out = fitting(console, columns, ("suite", "models", "kind", "made", "size"), draw)
    console.print(table)
    if left_out:
        console.print(no_room(left_out), soft_wrap=True)
    for run in runs:
        for problem in run.problems[:_MOST_PROBLEMS]:
            console.print(harmless(f"{_name(run, with_place)}: {problem}"), soft_wrap=True)
        if run.written_by:
            text = f"{_name(run, with_place)} is being written by {run.written_by}"
            console.print(harmless(text), soft_wrap=True)


def _cells(run: Overview, with_place: bool) -> dict[str, str]:
    models = ", ".join(run.models)
    return {
        "run": harmless(_name(run, with_place)),
        "kind": harmless(run.kind),
        "suite": shortened(harmless(run.suite), _MOST_LETTERS),
        "models": shortened(harmless(models), _MOST_LETTERS),
        "state": run.state,
        "done": done(run),
        "made": harmless(run.created_utc[:16].replace("T", " ")),
        "size": size(run.size_bytes),
    }


def done(run: Overview) -> str:
    """Return how much of a run is there."""
    if not run.manifests:
        return ""
    text = f"{run.n_ok:,}"
    if run.n_expected is not None:
        text += f" of {run.n_expected:,}"
    elif run.missing:
        text += " of more"
    return f"{text}, {len(run.failed):,} failed" if run.failed else text


def _name(run: Overview, with_place: bool) -> str:
    return str(run.path) if with_place else run.path.name


def usage_rows(found: Iterable[tuple[Overview, Usage]]) -> list[dict[str, Any]]:
    """Return what each run takes, and what of it could be done without, as plain data."""
    return [
        {
            "path": str(run.path),
            "name": run.path.name,
            "state": run.state,
            "n_files": usage.total.n_files,
            "size_bytes": usage.total.size_bytes,
            "disk_bytes": usage.total.disk_bytes,
            "by_kind_bytes": {kind: taken.size_bytes for kind, taken in usage.by_kind.items()},
            "spare_answers_bytes": _spare(run, usage),
        }
        for run, usage in found
    ]


def _spare(run: Overview, usage: Usage) -> int:
    taken = usage.by_kind.get("answers") if run.state in _GIVEN_BACK else None
    return taken.size_bytes if taken else 0


def render_usage(found: Sequence[tuple[Overview, Usage]], out: TextIO, *, with_place: bool = False) -> None:
    """Write what runs take by kind of file, the largest first, with totals and what could be given back."""
    console = console_on(out, _WIDTH_OF_FILES)
    ordered = sorted(found, key=lambda pair: (-pair[1].total.size_bytes, pair[0].path.name))
    sums = {kind: sum((u.by_kind.get(kind, Taken()) for _, u in ordered), Taken()) for kind in KINDS}
    kinds = [kind for kind in KINDS if sums[kind].size_bytes]
    names = ["run", *kinds, "all", "on disk"]
    columns = [(name, "left" if name == "run" else "right") for name in names]
    total = sum((usage.total for _, usage in ordered), Taken())

    def row(name: str, by_kind: Mapping[str, Taken], all_of_it: Taken) -> dict[str, str]:
        sizes = {kind: size(by_kind[kind].size_bytes) if kind in by_kind else "" for kind in kinds}
        ends = {"all": size(all_of_it.size_bytes), "on disk": size(all_of_it.disk_bytes)}
        return {"run": harmless(name), **sizes, **ends}

    rows = [row(_name(run, with_place), usage.by_kind, usage.total) for run, usage in ordered]

    def draw(kept: Sequence[tuple[str, str]], narrow: bool) -> Table:
        table = _table()
        for name, side in kept:
            _column(table, name, side, folds=narrow and name == "run")
        for one in rows:
            table.add_row(*(one[name] for name, _ in kept))
        if len(rows) > 1:
            last = row(f"{len(rows):,} runs", sums, total)
            table.add_section()
            table.add_row(*(last[name] for name, _ in kept))
        return table

    smallest = sorted(kinds, key=lambda kind: sums[kind].size_bytes)
    table, _, left_out = fitting(console, columns, smallest, draw)
    console.print(table)
    for line in (no_room(left_out), *spare_words(ordered)):
        if line:
            console.print(harmless(line), soft_wrap=True)


def spare_words(found: Sequence[tuple[Overview, Usage]]) -> list[str]:
    """Return sentences on what could be given back."""
    lines = []
    spare = [(run, n) for run, usage in found if (n := _spare(run, usage))]
    if spare:
        n_bytes = sum(n for _, n in spare)
        lines.append(
            f"{size(n_bytes)} are answers of {_runs(len(spare))} of which every result is there. Tables, "
            "comparisons and reports do not need them: deleting the folders `answers` is safe unless results "
            "are deleted and computed again, or lm-eval's files are still to be exported."
        )
    states = [u.by_kind["states"].size_bytes for r, u in found if "states" in u.by_kind and not r.missing]
    if states:
        lines.append(
            f"{size(sum(states))} are states of models that no result waits for; they can be deleted."
        )
    unknown = [usage for _, usage in found if usage.unknown]
    if unknown:
        taken = sum(usage.by_kind["other"].size_bytes for usage in unknown)
        n = sum(len(usage.unknown) for usage in unknown)
        names = ", ".join(name for usage in unknown for name in usage.unknown[:3])
        lines.append(
            f"{size(taken)} in {n:,} {'file' if n == 1 else 'files'} are none of ours: "
            f"{shortened(names, 2 * _MOST_LETTERS)}."
        )
    return lines


def _runs(number: int) -> str:
    return f"{number:,} {'run' if number == 1 else 'runs'}"


def verified_rows(found: Iterable[Verified]) -> list[dict[str, Any]]:
    """Return what was verified as plain data."""
    return [
        {
            "path": str(one.path),
            "name": one.path.name,
            "written_by": one.written_by,
            "checks": [
                {
                    "what": check.what,
                    "outcome": check.outcome,
                    "n": check.n,
                    "how": check.how,
                    "problems": list(check.problems),
                }
                for check in one.checks
            ],
        }
        for one in found
    ]


def render_verified(one: Verified, out: TextIO) -> None:
    """Write what was verified of a run, and what does not agree."""
    console = console_on(out, _WIDTH_OF_FILES)
    console.print(harmless(str(one.path)), style="bold", soft_wrap=True)
    if one.written_by:
        text = f"  not checked: it is being written by {one.written_by}"
        console.print(harmless(text), soft_wrap=True)
        return
    for check in one.checks:
        number = f"{check.n:,}" if check.n else ""
        line = f"  {check.outcome:<11}  {check.what:<11}  {number:>9}  {check.how}"
        console.print(harmless_line(line), style=STYLES[check.outcome], soft_wrap=True)
        for problem in check.problems[:_MOST_PROBLEMS]:
            console.print(f"{'':15}{harmless(problem)}", soft_wrap=True)
        if len(check.problems) > _MOST_PROBLEMS:
            rest = len(check.problems) - _MOST_PROBLEMS
            console.print(f"{'':15}and {rest:,} more: `--json` names all", soft_wrap=True)


def harmless_line(text: str) -> str:
    """Return a line that keeps the spaces by which it is laid out, without what a terminal obeys."""
    return " ".join(harmless(part) for part in text.split(" "))


def staging_words(place: Path, left: Sequence[Path]) -> str:
    """Say what killed processes have left in a directory of runs; empty where that is nothing."""
    if not left:
        return ""
    names = harmless(", ".join(path.name for path in left[:3]))
    more = f" and {len(left) - 3:,} more" if len(left) > 3 else ""
    return (
        f"{harmless(str(place))} also holds {names}{more}: a run being made or deleted at the moment, or "
        "what is left of one; the next such command on the same machine removes what is left."
    )


def _table() -> Table:
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, pad_edge=False)


def _column(table: Table, name: str, side: str, *, folds: bool) -> None:
    justify: Any = side
    table.add_column(name, justify=justify, no_wrap=not folds, overflow="fold" if folds else "ellipsis")


def _styled(text: str) -> Any:
    from rich.text import Text

    return Text(text, style=STYLES.get(text, ""))
