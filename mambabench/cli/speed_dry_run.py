"""A sweep that is only planned: its points, what each is expected to take, and what cannot be measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mambabench.cli.options import print_json

if TYPE_CHECKING:
    from mambabench.sweep.options import SpeedPlan

_FIRST_STEPS = 12
_LONGEST_NAME = 48


def show_plan(plan: SpeedPlan, *, as_json: bool) -> None:
    """Print a plan; nothing is started."""
    document = _document(plan)
    if as_json:
        print_json(document)
        return
    from rich.console import Console
    from rich.table import Table

    from mambabench.tables.speed.format import size

    table = Table(box=None, pad_edge=False, header_style="bold")
    # A name may be a path: the figures beside it stay readable.
    table.add_column("model", max_width=_LONGEST_NAME, overflow="fold")
    for heading in ("batch", "prompt", "gen", "arm", "attention"):
        right = heading in ("batch", "prompt", "gen")
        table.add_column(heading, justify="right" if right else "left", no_wrap=True)
    for heading in ("weights", "state", "peak, expected"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in document["points"]:
        sizes = [size(row[key]) if row[key] is not None else "" for key in _BYTES]
        remark = row["obstacle"] or ("" if row["fits"] is not False else "does not fit")
        table.add_row(
            row["model"], str(row["batch_size"]), f"{row['prompt_len_tokens']:,}",
            str(row["gen_len_tokens"]), row["arm"], row["attention"], *sizes, remark,
        )  # fmt: skip
    Console(width=160, highlight=False, markup=False).print(table)
    for line in (*document["notes"], *_sentences(document)):
        click.echo(line)


_BYTES = ("weights_bytes", "state_bytes", "expected_bytes")


def _document(plan: SpeedPlan) -> dict[str, Any]:
    from mambabench.sweep.plan import forecast

    rows = []
    rough_s = 0.0
    for point in plan.points:
        expected = forecast(plan, point)
        obstacle = plan.obstacles.get(point, "")
        if expected is not None and not obstacle:
            rough_s += expected.rough_s * plan.options.processes
        rows.append(
            {
                **point.model_dump(mode="json"),
                "weights_bytes": None if expected is None else expected.weights_bytes,
                "state_bytes": None if expected is None else expected.state_bytes,
                "expected_bytes": None if expected is None else expected.peak_bytes,
                "fits": None if expected is None else expected.fits,
                "obstacle": obstacle,
            }
        )
    started = [step for step in plan.steps if step.point not in plan.obstacles]
    places = {point: place for place, point in enumerate(plan.points)}
    return {
        "schema_version": 1,
        "dry_run": True,
        "kind": plan.options.kind,
        "device": plan.device,
        "device_name": plan.device_name,
        "dtype": plan.dtype,
        "weights": plan.weights,
        "budget_bytes": plan.options.budget_bytes,
        "points": rows,
        "n_processes": len(started),
        "rough_s": round(rough_s),
        "order": [{"replicate": s.replicate, "point": places[s.point]} for s in started],
        "notes": list(plan.notes),
    }


def _sentences(document: dict[str, Any]) -> list[str]:
    rows, order = document["points"], document["order"]
    n_obstacles = sum(bool(row["obstacle"]) for row in rows)
    n_too_large = sum(row["fits"] is False and not row["obstacle"] for row in rows)
    minutes = document["rough_s"] / 60
    about = f"{minutes / 60:,.1f} hours" if minutes >= 90 else f"{max(1, round(minutes))} min"
    plural = "s" if len(rows) != 1 else ""
    lines = [
        f"{len(rows)} point{plural} on {document['device_name']} in {document['dtype']}, "
        f"{document['weights']} weights: {document['n_processes']} processes, roughly {about} "
        "(by round figures for such machines)"
    ]
    if n_obstacles:
        lines.append(f"{n_obstacles} of them cannot exist: rows without a process")
    if n_too_large:
        lines.append(f"{n_too_large} of them are expected not to fit: measured all the same, until one fails")
    shown = []
    for step in order[:_FIRST_STEPS]:
        row = rows[step["point"]]
        shown.append(f"{row['model']} {row['batch_size']}x{row['prompt_len_tokens']} {row['arm']}")
    if shown:
        more = f", and {len(order) - len(shown)} more" if len(order) > len(shown) else ""
        lines.append(f"order: {'; '.join(shown)}{more}")
    lines.append("dry run: nothing was started")
    return lines
