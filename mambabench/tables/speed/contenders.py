"""What a sweep can compare: the ways in which models were run, and where two of them were run alike.

field = Field(table)
for a, b in field.pairs():
    field.ratios(a, b, tpot_s)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations
from math import log
from statistics import geometric_mean
from typing import TYPE_CHECKING

from mambabench.medians import Figure, by_replicate, tpot_s, ttft_s
from mambabench.speed_schema import Arm, Attention, PointRecord, ReplicateRecord
from mambabench.stats.replicates import Estimate, paired_ratio
from mambabench.tables.speed.format import plural

if TYPE_CHECKING:
    from mambabench.tables.speed.table import SpeedTable

_BEST_ARM_FIRST: tuple[Arm, ...] = ("graph", "eager", "shipped", "sampled")
_BEST_ATTENTION_FIRST: tuple[Attention, ...] = ("none", "flash", "sdpa", "eager")
_APART_S = 3600.0
_ALL_PAIRS_UP_TO = 3
"""Models; of more, only those with a state are compared with those with a cache."""


@dataclass(frozen=True)
class Contender:
    """A model in one way of running it."""

    model: str
    arm: Arm
    attention: Attention


@dataclass(frozen=True, order=True)
class Setting:
    """What contenders must have in common to be compared."""

    batch_size: int
    prompt_len_tokens: int
    gen_len_tokens: int
    prefill_chunk_tokens: int
    """0 for prompts forwarded at once."""
    dtype: str
    device: str

    @property
    def length_tokens(self) -> int:
        """Tokens of a sequence at the end."""
        return self.prompt_len_tokens + self.gen_len_tokens


class Field:
    """The contenders of a table and their processes, and words for them.

    Args:
        table: of which processes that did not end well, or left no repeat and no memory, are left out.
    """

    def __init__(self, table: SpeedTable) -> None:
        self._cells: dict[Contender, dict[Setting, list[ReplicateRecord]]] = {}
        for record in table.replicates:
            if record.status == "ok" and (record.repeats or record.memory is not None):
                contender, setting = _split(record.point)
                self._cells.setdefault(contender, {}).setdefault(setting, []).append(record)
        # Of many models the same medians are asked for again and again, pair by pair.
        self._figures: dict[tuple[Contender, Setting, Figure], dict[int, float]] = {}
        self._best: dict[tuple[str, Arm | None], Contender | None] = {}
        self._pairs: list[tuple[Contender, Contender]] | None = None
        self._sizes = table.sizes
        self._models = [m for m in table.models if any(c.model == m for c in self._cells)]
        points = [row.point for row in table.rows]
        # Of all that was asked for: where one attention ran out of memory the other must still be named.
        self._attentions = {m: {p.attention for p in points if p.model == m} for m in table.models}
        self._many_arms = len({p.arm for p in points}) > 1
        settings = [_split(p)[1] for p in points]
        self._vary = {
            name: len({getattr(s, name) for s in settings}) > 1 for name in Setting.__dataclass_fields__
        }

    @property
    def models(self) -> list[str]:
        """Models of which something was measured, in the table's order."""
        return self._models

    @property
    def contenders(self) -> list[Contender]:
        """All of them, in the order of their first record."""
        return list(self._cells)

    def place(self, point: PointRecord) -> tuple[Contender, Setting]:
        """Return how a point was run, and what it shares with points that it can be compared with."""
        return _split(point)

    def cells(self, contender: Contender) -> dict[Setting, list[ReplicateRecord]]:
        """Return the processes of a contender by setting, in order of the settings."""
        return dict(sorted(self._cells.get(contender, {}).items()))

    def figures(self, contender: Contender, setting: Setting, figure: Figure) -> Mapping[int, float]:
        """Return a figure of the processes of a contender at a setting, by the replicate's number."""
        key = contender, setting, figure
        if key not in self._figures:
            records = self._cells.get(contender, {}).get(setting, ())
            self._figures[key] = by_replicate(records, figure)
        return self._figures[key]

    def ways(self, model: str) -> list[Contender]:
        """Return the ways in which a model was run, but for drawn ids."""
        return [c for c in self._cells if c.model == model and c.arm != "sampled"]

    def best(self, model: str, arm: Arm | None = None) -> Contender | None:
        """Return the fastest way of running a model, by time per token where all ways were timed; else by
        name: graphs before eager, fused attention before eager. Drawn ids count where nothing else did."""
        key = model, arm
        if key not in self._best:
            self._best[key] = self._fastest(model, arm)
        return self._best[key]

    def _fastest(self, model: str, arm: Arm | None) -> Contender | None:
        own = [c for c in self._cells if c.model == model and arm in (None, c.arm)]
        own = [c for c in self.ways(model) if c in own] or own
        _, taken = self._taken(own)
        return min(
            own,
            key=lambda c: (
                taken.get(c, 0.0),
                _BEST_ARM_FIRST.index(c.arm),
                _BEST_ATTENTION_FIRST.index(c.attention),
            ),
            default=None,
        )

    def judged_by(self, model: str) -> str:
        """Return the name of the figure by which `best` picks; empty where no time was measured of all ways
        at one setting."""
        return self._taken(self.ways(model))[0]

    def _taken(self, contenders: Sequence[Contender]) -> tuple[str, dict[Contender, float]]:
        """Return a figure's name and a sum of the logs of its values over the settings that all have; empty
        where there are none."""
        for name, figure in (("time per token", tpot_s), ("time to first token", ttft_s)):
            times = {
                c: {s: v for s in self._cells[c] if (v := list(self.figures(c, s, figure).values()))}
                for c in contenders
            }
            common = set.intersection(*(set(t) for t in times.values())) if times else set()
            if common:
                return name, {c: sum(log(geometric_mean(t[s])) for s in common) for c, t in times.items()}
        return "", {}

    def keeps_state(self, model: str) -> bool:
        """Return whether a model carries a state of fixed size and no cache."""
        sizes = self._sizes.get(model)
        if sizes is not None:
            return sizes.kv_elements_per_token == 0
        return all(c.attention == "none" for c in self._cells if c.model == model)

    def pairs(self) -> list[tuple[Contender, Contender]]:
        """Return pairs of different models that were measured alike, models with a state first."""
        if self._pairs is None:
            self._pairs = self._alike()
        return list(self._pairs)

    def _alike(self) -> list[tuple[Contender, Contender]]:
        ordered = sorted(self._models, key=lambda m: not self.keeps_state(m))
        found: dict[tuple[Contender, Contender], None] = {}
        for one, other in combinations(ordered, 2):
            if len(ordered) > _ALL_PAIRS_UP_TO and self.keeps_state(one) == self.keeps_state(other):
                continue
            candidates = [(self.best(one), self.best(other))]
            candidates += [(self.best(one, arm), self.best(other, arm)) for arm in _BEST_ARM_FIRST]
            met = [(a, b) for a, b in candidates if a and b]
            alike = [(a, b) for a, b in met if self._cells[a].keys() & self._cells[b].keys()]
            # The fastest of each, and where these are of two arms, both in one arm besides.
            found |= dict.fromkeys(alike[:1])
            if alike and alike[0][0].arm != alike[0][1].arm:
                found |= dict.fromkeys([pair for pair in alike if pair[0].arm == pair[1].arm][:1])
        return list(found)

    def ratios(self, a: Contender, b: Contender, figure: Figure) -> dict[Setting, Estimate]:
        """Return a over b at every setting where some replicate measured both."""
        found = {}
        for setting in self.cells(a):
            above, below = self.figures(a, setting, figure), self.figures(b, setting, figure)
            if above.keys() & below.keys():
                found[setting] = paired_ratio(above, below)
        return found

    def apart(self, a: Contender, b: Contender) -> str:
        """Say so where most pairs of processes began more than an hour apart; empty where they did not.

        Pairs far apart share neither clocks nor neighbours, and their ratios say nothing that unpaired ones
        would not.
        """
        theirs = self._cells.get(b, {})
        begun = [
            (_began(one), _began(other))
            for setting, records in self.cells(a).items()
            for one in records
            for other in theirs.get(setting, ())
            if one.replicate == other.replicate
        ]
        gaps_s = [abs((x - y).total_seconds()) for x, y in begun if x is not None and y is not None]
        far = sum(gap_s > _APART_S for gap_s in gaps_s)
        if 2 * far <= len(gaps_s):
            return ""
        return (
            f"; measured apart: {far:,} of {plural(len(gaps_s), 'pair')} began over an hour from each other"
        )

    def name(self, contender: Contender) -> str:
        """Name a contender; with its attention or arm where several were measured."""
        several = len(self._attentions[contender.model]) > 1
        name = f"{contender.model} with {contender.attention} attention" if several else contender.model
        return f"{name} ({contender.arm} arm)" if self._many_arms else name

    def at(self, setting: Setting, *, without: str = "") -> str:
        """Say what is special of a setting in this sweep, such as "prompt 2,048, batch 8"."""
        words = []
        if without != "prompt_len_tokens":
            words.append(f"prompt {setting.prompt_len_tokens:,}")
        if without != "batch_size" and (self._vary["batch_size"] or setting.batch_size > 1):
            words.append(f"batch {setting.batch_size:,}")
        if self._vary["gen_len_tokens"]:
            words.append(f"{setting.gen_len_tokens:,} generated")
        if self._vary["prefill_chunk_tokens"] and setting.prefill_chunk_tokens:
            words.append(f"chunks of {setting.prefill_chunk_tokens:,}")
        words += [str(getattr(setting, name)) for name in ("dtype", "device") if self._vary[name]]
        return ", ".join(words)


def _began(record: ReplicateRecord) -> datetime | None:
    try:
        found = datetime.fromisoformat(record.started_utc)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _split(point: PointRecord) -> tuple[Contender, Setting]:
    setting = Setting(
        batch_size=point.batch_size,
        prompt_len_tokens=point.prompt_len_tokens,
        gen_len_tokens=point.gen_len_tokens,
        prefill_chunk_tokens=point.prefill_chunk_tokens or 0,
        dtype=point.dtype,
        device=point.device,
    )
    return Contender(point.model, point.arm, point.attention), setting
