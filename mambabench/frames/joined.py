"""Frame `quality_cost`: what a model gives beside what it takes, and which models no other one beats.

    runs.frame("quality_cost").query("cost == 'tpot_s' and on_front")

Accuracies are joined with the sweeps of models of the same name, recall with the cost that was measured with
it, at prompts of its length. A sweep does not say which weights it loaded: where a name stands for models of
different sizes, or its sweep's weights are of another size, nothing is joined; of a sweep of another dtype
nothing is where there is one of the same. Models compete where everything but the model and its way of
execution is equal: batch, prompt, generated tokens, chunks, dtype, machine and the tasks of a mean.
A model takes part in its fastest way of execution.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from mambabench.frames.loaded import loaded_as
from mambabench.frames.longcontext import cost_run
from mambabench.stats.square_and_add import mean_ends
from mambabench.tables.longcontext.joined import cost_rows
from mambabench.tables.speed.contenders import Field
from mambabench.tables.zeroshot import averaged

if TYPE_CHECKING:
    from mambabench.frames.api import Runs
    from mambabench.frames.load import LoadedRun
    from mambabench.schema import RunManifest
    from mambabench.speed_schema import PointRecord
    from mambabench.stats.replicates import Estimate
    from mambabench.tables.speed.table import SpeedRow, SpeedTable

COSTS: Final = ("tpot_s", "ttft_s", "peak_bytes", "gross_j_per_token")
"""Columns of `speed` that quality is held against; less is better of each."""
_TIMED: Final = ("latency", "throughput", "memory")


@dataclass(frozen=True)
class _Quality:
    """What a model gives; of recall at one length."""

    name: str
    label: str
    model: str
    run: str
    percent: float
    low: float | None
    high: float | None
    basis: tuple[str, ...]
    """Tasks that it is the mean over."""
    length_tokens: int | None = None


@dataclass(frozen=True)
class _Cost:
    """What a model takes at one point."""

    row: SpeedRow
    run: str
    made_utc: str
    device_name: str

    @property
    def setting(self) -> tuple[Hashable, ...]:
        """What two models must have in common to be compared."""
        return (*_place(self.row.point), self.device_name)


@dataclass
class _Joined:
    """A row in the making."""

    quality: _Quality
    cost: _Cost
    column: str
    estimate: Estimate
    on_front: bool = field(default=True)

    @property
    def group(self) -> tuple[Hashable, ...]:
        return self.quality.name, self.quality.basis, self.column, self.cost.setting

    @property
    def is_known(self) -> bool:
        return self.quality.percent == self.quality.percent and self.estimate.value == self.estimate.value


def rows_of_quality_cost(runs: Runs) -> list[dict[str, Any]]:
    """Return rows of frame `quality_cost`, accuracies before recall, models in the order of the runs."""
    found = [*_of_accuracies(runs.runs), *_of_recall(runs.runs)]
    by_group: dict[tuple[Hashable, ...], list[_Joined]] = {}
    for joined in found:
        by_group.setdefault(joined.group, []).append(joined)
    for group in by_group.values():
        for one in group:
            one.on_front = not any(_beats(other, one) for other in group)
    phrases = _Phrases(found)
    return [
        {
            "label": one.quality.label,
            "quality": one.quality.name,
            "quality_percent": one.quality.percent,
            "quality_low_percent": one.quality.low,
            "quality_high_percent": one.quality.high,
            "quality_run": one.quality.run,
            "length_tokens": one.cost.row.point.prompt_len_tokens,
            "cost": one.column,
            "cost_value": one.estimate.value,
            "cost_low": one.estimate.low,
            "cost_high": one.estimate.high,
            "cost_run": one.cost.run,
            "setting": phrases.of(one),
            "on_front": one.on_front if one.is_known else None,
            "way": _way(one.cost.row.point),
            "cost_method": one.estimate.method,
        }
        for one in found
    ]


def _beats(one: _Joined, other: _Joined) -> bool:
    """Tell whether another model gives as much for less, or more for as much."""
    if one.quality.label == other.quality.label or not (one.is_known and other.is_known):
        return False
    gains = one.quality.percent - other.quality.percent, other.estimate.value - one.estimate.value
    return min(gains) >= 0 and max(gains) > 0


def _of_accuracies(runs: Sequence[LoadedRun]) -> Iterator[_Joined]:
    costs = _Costs(runs)
    for quality in _accuracies(runs):
        yield from _joined(quality, costs.of(quality))


def _of_recall(runs: Sequence[LoadedRun]) -> Iterator[_Joined]:
    costs = _Costs(runs)
    for run in runs:
        if run.long is None:
            continue
        own = _own_costs(run, runs)
        for row in run.long.rows:
            mean = row.recall_mean
            if mean is None:
                continue
            quality = _Quality(
                "recall",
                run.label(row.model),
                row.model,
                run.name,
                100 * mean.value,
                None if mean.low is None else 100 * mean.low,
                None if mean.high is None else 100 * mean.high,
                run.long.mean_tasks,
                row.length_tokens,
            )
            measured = own.get((row.model, row.length_tokens))
            others = [c for c in costs.of(quality) if c.row.point.prompt_len_tokens == row.length_tokens]
            yield from _joined(quality, others if measured is None else [measured])


def _joined(quality: _Quality, costs: Iterable[_Cost]) -> Iterator[_Joined]:
    """Yield a row for each cost; of a setting that was measured twice, that of most processes."""
    for column in COSTS:
        best: dict[tuple[Hashable, ...], _Joined] = {}
        for cost in costs:
            estimate: Estimate | None = getattr(cost.row, column)
            if estimate is None:
                continue
            one, known = _Joined(quality, cost, column, estimate), best.get(cost.setting)
            if known is None or _worth(one) > _worth(known):
                best[cost.setting] = one
        yield from sorted(best.values(), key=lambda one: _place(one.cost.row.point))


def _worth(one: _Joined) -> tuple[int, str]:
    return one.estimate.n, one.cost.made_utc


def _accuracies(runs: Sequence[LoadedRun]) -> Iterator[_Quality]:
    for run in runs:
        if run.zeroshot is None:
            continue
        for average in run.zeroshot.averages:
            parts = averaged(average.model, run.zeroshot.rows)
            ends = [(r.value, r.low, r.high) for r in parts]
            known = [
                (v, a, b)
                for v, a, b in ends
                if v is not None and a is not None and b is not None and all(map(math.isfinite, (v, a, b)))
            ]
            low, high = mean_ends(known) if len(known) == average.n_tasks else (None, None)
            basis = tuple(f"{row.label} {row.metric}" for row in parts)
            label = run.label(average.model)
            yield _Quality(
                "average accuracy", label, average.model, run.name, average.value, low, high, basis
            )


class _Costs:
    """What models take in their fastest ways, found for what they give.

    Args:
        runs: all of them.
    """

    def __init__(self, runs: Sequence[LoadedRun]) -> None:
        self._loaded = loaded_as(runs)
        self._by_model: dict[str, list[_Cost]] = {}
        for run in runs:
            if run.speed is None or run.manifest is None or run.speed.kind not in _TIMED:
                continue
            for row in _fastest(run.speed):
                cost = _cost(row, run.name, run.manifest, run.speed)
                self._by_model.setdefault(row.point.model, []).append(cost)

    def of(self, quality: _Quality) -> list[_Cost]:
        """Return the costs of a name that may be those of the model of a quality."""
        found = self._by_model.get(quality.model, [])
        loaded = self._loaded.get(quality.model, {})
        own = loaded.get(quality.run)
        if own is None:
            # Nobody knows of which of several models it is.
            return found if len({one.shape for one in loaded.values()}) <= 1 else []
        others = [one for one in loaded.values() if one.shape != own.shape]
        # What may be of another model as well is of neither.
        found = [
            c
            for c in found
            if own.could_take(c.row) is not False
            and not any(o.could_take(c.row) is not False for o in others)
        ]
        alike = [c for c in found if c.row.point.dtype == own.dtype]
        taken = {one.dtype for one in loaded.values()} - {own.dtype}
        return alike or [c for c in found if c.row.point.dtype not in taken]


def _fastest(table: SpeedTable) -> Iterator[SpeedRow]:
    field_ = Field(table)
    for row in table.rows:
        if field_.place(row.point)[0] == field_.best(row.point.model):
            yield row


def _own_costs(run: LoadedRun, runs: Sequence[LoadedRun]) -> dict[tuple[str, int], _Cost]:
    """Return the cost that was measured with a long-context run, by model and length."""
    if run.long is None or run.long.speed is None or run.stored is None:
        return {}
    beside = cost_run(run.stored)
    if beside is None:
        return {}
    shown = (r.name for r in runs if r.path.resolve() == beside.path.resolve())
    name, table = next(shown, beside.path.name), run.long.speed
    return {key: _cost(row, name, beside.manifest, table) for key, row in cost_rows(table).items()}


def _cost(row: SpeedRow, run: str, manifest: RunManifest, table: SpeedTable) -> _Cost:
    return _Cost(row, run, manifest.created_utc, device_name(manifest, table, row.point.device))


def device_name(manifest: RunManifest, table: SpeedTable, device: str) -> str:
    """Return the product name of the device that a sweep ran on; empty where nothing says it."""
    named = next((c.device_name for c in table.ceilings if c.device == device and c.device_name), "")
    if named:
        return named
    environment: dict[str, Any] = manifest.environment
    if device == "cpu":
        processor = environment.get("processor")
        return str(processor.get("name") or "") if isinstance(processor, dict) else ""
    gpus, number = environment.get("gpus"), int(device.rpartition(":")[2] or 0) if ":" in device else 0
    known = isinstance(gpus, list) and number < len(gpus) and isinstance(gpus[number], dict)
    return str(gpus[number].get("name") or "") if known and isinstance(gpus, list) else ""


def _place(point: PointRecord) -> tuple[int, int, int, int, str, str]:
    return (
        point.prompt_len_tokens, point.batch_size, point.gen_len_tokens, point.prefill_chunk_tokens or 0,
        point.dtype, point.device,
    )  # fmt: skip


def _way(point: PointRecord) -> str:
    return point.arm if point.attention == "none" else f"{point.arm}, {point.attention} attention"


class _Phrases:
    """Settings in words: what is the same everywhere is not said of machines and tasks.

    Args:
        joined: all rows.
    """

    def __init__(self, joined: Sequence[_Joined]) -> None:
        self._bases: dict[str, list[tuple[str, ...]]] = {}
        machines: dict[str, set[str]] = {}
        for one in joined:
            bases = self._bases.setdefault(one.quality.name, [])
            if one.quality.basis not in bases:
                bases.append(one.quality.basis)
            machines.setdefault(one.cost.row.point.device, set()).add(one.cost.device_name)
        self._several = {device for device, names in machines.items() if len(names) > 1}

    def of(self, one: _Joined) -> str:
        """Return the setting of a row, equal for all rows that compete."""
        point, bases = one.cost.row.point, self._bases[one.quality.name]
        machine = f" ({one.cost.device_name or 'unknown'})" if point.device in self._several else ""
        parts = [
            f"batch {point.batch_size:,}",
            f"prompt of {point.prompt_len_tokens:,} tokens",
            f"{point.gen_len_tokens:,} generated",
            f"chunks of {point.prefill_chunk_tokens:,}" if point.prefill_chunk_tokens else "",
            point.dtype,
            f"{point.device}{machine}",
            _basis_words(one.quality.basis, bases) if len(bases) > 1 else "",
        ]
        return ", ".join(part for part in parts if part)


def _basis_words(basis: tuple[str, ...], bases: Sequence[tuple[str, ...]]) -> str:
    """Tell a mean's tasks from others': by their number where that is enough."""
    counts = Counter(len(one) for one in bases)
    number = f" set {bases.index(basis) + 1}" if counts[len(basis)] > 1 else ""
    return f"mean of {len(basis)} tasks{number}"
