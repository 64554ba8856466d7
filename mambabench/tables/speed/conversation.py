"""What conversations cost, in rows and in sentences: keeping, copying, branching, going on and back.

rows = conversation_rows(outcome.replicates)
rows[0].times["resume"].value
answers(rows)
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from mambabench.speed_schema import ConversationRecord, PointRecord, ReplicateRecord
from mambabench.stats.replicates import Estimate, centre, paired_ratio
from mambabench.tables.speed.format import listed, plural, seconds, size, times, with_interval

OPERATIONS: Final = {
    "resume": "go on after a turn: the turn is forwarded from the kept state, up to the reply's first token",
    "prefill_again": "the same without a state: history and turn are forwarded from nothing",
    "snapshot": "copy the state into the host's memory",
    "restore": "copy it back, to go on from",
    "save": "write the copy to a file, as far as the system's cache",
    "load": "read it back from there",
    "fork": "let several continuations of the history begin with a token each",
    "rewind": "give the turn up and stand after the history again",
}
"""What is timed, in the order of the table."""


@dataclass(frozen=True)
class ConversationRow:
    """One model with one length of history."""

    point: PointRecord
    status: str
    detail: str
    turn_len_tokens: int | None
    n_forks: int | None
    n_processes: int
    times: dict[str, Estimate]
    """By operation: over processes, of each one's median."""
    prefill_over_resume: Estimate | None
    """How many times as long forwarding everything again takes, pair by pair of one process."""
    state_bytes: int | None
    """After the history."""
    turn_bytes: int | None
    """That another turn adds to the state."""
    fork_bytes: int | None
    """That all continuations take besides the history's state."""
    rewind_bytes: int | None
    """Held besides the state after a turn, to be able to go back before it."""
    file_bytes: int | None
    past_training_length: bool
    forgetful: bool
    """Whether the reply is the same without the history, so that comparing replies cannot fail."""
    kernel_path: str

    def as_json(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        return asdict(self) | {"point": self.point.model_dump(mode="json")}


def conversation_rows(replicates: Sequence[ReplicateRecord]) -> tuple[ConversationRow, ...]:
    """Aggregate processes by point, models in the order of their first record, then by history."""
    by_point: dict[PointRecord, list[ReplicateRecord]] = {}
    for record in sorted(replicates, key=lambda r: r.replicate):
        by_point.setdefault(record.point, []).append(record)
    models = {model: i for i, model in enumerate(dict.fromkeys(p.model for p in by_point))}
    order = sorted(by_point, key=lambda p: (models[p.model], p.prompt_len_tokens))
    return tuple(_row(point, by_point[point]) for point in order)


def _row(point: PointRecord, records: Sequence[ReplicateRecord]) -> ConversationRow:
    found = [r.conversation for r in records if r.status == "ok" and r.conversation is not None]
    worst = next((r for r in records if r.status != "ok"), records[0])
    first = found[0] if found else None
    return ConversationRow(
        point=point,
        status=worst.status,
        detail=worst.detail,
        turn_len_tokens=None if first is None else first.turn_len_tokens,
        n_forks=None if first is None else first.n_forks,
        n_processes=len(found),
        times={o: centre(values) for o in OPERATIONS if (values := _medians(found, o))},
        prefill_over_resume=_ratio(found),
        state_bytes=None if first is None else first.history_state_bytes,
        turn_bytes=_moved(first, "resume"),
        fork_bytes=_moved(first, "fork"),
        rewind_bytes=_moved(first, "rewind"),
        file_bytes=_moved(first, "save"),
        past_training_length=any(r.past_training_length for r in records),
        forgetful=any(_is_forgetful(record) for record in found),
        kernel_path=next((r.kernel_path for r in records if r.kernel_path), ""),
    )


def _is_forgetful(found: ConversationRecord) -> bool:
    if found.forgetful_difference is None or found.tolerance is None:
        return False
    return found.forgetful_difference <= found.tolerance


def _medians(found: Sequence[ConversationRecord], operation: str) -> list[float]:
    timed = [o.times_s for record in found for o in record.operations if o.operation == operation]
    # A clock may see nothing of what only drops a reference.
    return [max(statistics.median(each), 1e-9) for each in timed if each]


def _ratio(found: Sequence[ConversationRecord]) -> Estimate | None:
    again, resumed = _medians(found, "prefill_again"), _medians(found, "resume")
    return paired_ratio(again, resumed) if again and len(again) == len(resumed) else None


def _moved(record: ConversationRecord | None, operation: str) -> int | None:
    found = () if record is None else record.operations
    return next((o.bytes_moved for o in found if o.operation == operation), None)


def answers(rows: Sequence[ConversationRow]) -> list[str]:
    """Say what follows from the rows, model by model, then across models."""
    measured = [row for row in rows if row.times]
    models = dict.fromkeys(row.point.model for row in measured)
    found = [s for model in models for s in _of_model([r for r in measured if r.point.model == model])]
    return [*found, *_across(measured)]


def _of_model(rows: Sequence[ConversationRow]) -> list[str]:
    last, first = rows[-1], rows[0]
    model, history = last.point.model, f"{last.point.prompt_len_tokens:,}"
    found = []
    if last.prefill_over_resume is not None:
        factor = with_interval(last.prefill_over_resume, times)
        turn = plural(last.turn_len_tokens or 0, "token")
        found.append(
            f"{model}: with {history} tokens of history, the reply to a turn of {turn} begins after "
            f"{seconds(last.times['resume'].value)} from the kept state; forwarding everything again takes "
            f"{factor} times as long."
        )
    sizes = f"{size(last.state_bytes or 0)}"
    if len(rows) > 1 and first.state_bytes == last.state_bytes:
        sizes += f" whether the history is {first.point.prompt_len_tokens:,} tokens or {history}"
    elif len(rows) > 1:
        sizes = (
            f"{size(first.state_bytes or 0)} after {first.point.prompt_len_tokens:,} tokens and {sizes} "
            f"after {history}"
        )
    to_go_back = (
        f"going back before a turn takes {size(last.rewind_bytes)} held for each turn"
        if last.rewind_bytes
        else "going back before a turn takes nothing held besides"
    )
    found.append(
        f"{model}: a kept conversation takes {sizes}; {to_go_back}; {last.n_forks} continuations of one "
        f"history take {size(last.fork_bytes or 0)} besides it."
    )
    return found


def _across(rows: Sequence[ConversationRow]) -> list[str]:
    """Compare what a kept conversation takes at the longest history that several models were measured at."""
    models = list(dict.fromkeys(row.point.model for row in rows))
    common = [
        length
        for length in sorted({row.point.prompt_len_tokens for row in rows})
        if len({r.point.model for r in rows if r.point.prompt_len_tokens == length}) == len(models)
    ]
    if len(models) < 2 or not common:
        return []
    at = sorted(
        (row for row in rows if row.point.prompt_len_tokens == common[-1]), key=lambda r: r.state_bytes or 0
    )
    least = at[0]
    others = [
        f"{times((row.state_bytes or 0) / (least.state_bytes or 1))} times as much with {row.point.model}"
        for row in at[1:]
    ]
    return [
        f"A kept conversation of {common[-1]:,} tokens takes {size(least.state_bytes or 0)} with "
        f"{least.point.model}, {listed(others)}."
    ]
