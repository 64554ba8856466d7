"""What a sweep says in sentences, with the numbers in them, and nothing that its data does not support.

for sentence in answers(table, budget_bytes=24 * 10**9):
    print(sentence)
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from mambabench.medians import by_replicate, covered_tokens, spread_within, tpot_s, ttft_s
from mambabench.speed_schema import MemoryRecord, ReplicateRecord
from mambabench.stats.replicates import Estimate
from mambabench.tables.speed import flags
from mambabench.tables.speed.contenders import Contender, Field, Setting
from mambabench.tables.speed.format import listed, number, percent, plural, size
from mambabench.tables.speed.words_ceilings import ceiling_words
from mambabench.tables.speed.words_cost import cost_words
from mambabench.tables.speed.words_pairs import arm_words, crossing_words, gap_words, pair_words
from mambabench.tables.speed.words_power import power_words

if TYPE_CHECKING:
    from mambabench.sizes import ModelSizes, StateLayout
    from mambabench.tables.speed.table import SpeedTable

_FLAT_WITHIN = 0.05


def answers(table: SpeedTable, *, budget_bytes: int | None) -> list[str]:
    """Return the answers that a sweep supports, one or two sentences each.

    Peaks with speeds, fastest arms, break-even context, crossings, pairs of models, latency against depth,
    other arms, the split of gaps, conversations in a budget, energy, the machine's ceilings and its noise, in
    this order.

    Args:
        table: of the sweep, finished or not.
        budget_bytes: memory to fill with conversations; null for no answer to that.
    """
    field = Field(table)
    said = cost_words(table, field) + fastest_words(field) + break_even_words(table, field)
    said += (
        crossing_words(field) + pair_words(field) + depth_words(field) + arm_words(field) + gap_words(field)
    )
    if budget_bytes is not None:
        said += conversation_words(table, field, budget_bytes)
    return said + power_words(field) + ceiling_words(table) + noise_words(table, field)


def fastest_words(field: Field) -> list[str]:
    """Name the fastest way of running each model of which several were measured."""
    found: dict[str, list[str]] = {}
    for model in field.models:
        best, figure = field.best(model), field.judged_by(model)
        if best is not None and figure and len(field.ways(model)) > 1:
            attention = "" if best.attention == "none" else f" with {best.attention} attention"
            found.setdefault(figure, []).append(f"{best.arm} arm{attention} of {model}")
    return [
        f"Fastest by {figure}: {listed(parts)}; what follows compares these."
        for figure, parts in found.items()
    ]


def break_even_words(table: SpeedTable, field: Field) -> list[str]:
    """Say at which length a model's state is as large as another's cache, computed and measured."""
    said = []
    for a, b in field.pairs():
        if not field.keeps_state(a.model) or field.keeps_state(b.model):
            continue
        constant, cache = _state_line(field, a), _state_line(field, b)
        if constant is None or cache is None:
            continue
        computed = _computed_break_even(table, field, a, b)
        parts = [] if computed is None else [f"{_tokens(computed)} by the specification"]
        if cache[1] > constant[1]:
            walked = max(0.0, (constant[0] - cache[0]) / (cache[1] - constant[1]))
            parts.append(f"{_tokens(walked)} by what was measured of both")
        if parts:
            said.append(
                f"Break-even context: one state of {a.model} ({size(constant[0])}) is as large as "
                f"{b.model}'s cache ({size(cache[1])} a token) after {' and '.join(parts)}."
            )
    return said


def depth_words(field: Field) -> list[str]:
    """Say how latency and peak memory of each model change from the shortest to the longest prompt."""
    said = []
    for model in field.models:
        contender = field.best(model)
        if contender is None:
            continue
        for first, last in _ends_of_prompts(field, contender):
            parts = []
            change = _change(field, contender, first, last)
            if change is not None:
                parts.append(f"time per token changes by {_flatness(change)}")
            growth = _peak_growth(field, contender, first, last)
            if growth is not None:
                parts.append(f"peak memory grows by {size(growth)} a token of a prompt")
            if parts:
                where = field.at(last, without="prompt_len_tokens")
                said.append(
                    f"{field.name(contender)}{', ' + where if where else ''}, from "
                    f"prompt {first.prompt_len_tokens:,} to {last.prompt_len_tokens:,}: {', '.join(parts)}."
                )
    return said


def conversation_words(table: SpeedTable, field: Field, budget_bytes: int) -> list[str]:
    """Say for each model how many conversations of the longest length fit a budget, computed and measured."""
    said = []
    for model in field.models:
        contender = field.best(model)
        if contender is None:
            continue
        measured = {s: m for s, r in field.cells(contender).items() if (m := _largest_memory(r))}
        if not measured:
            continue
        length = max((s.length_tokens, s.prompt_len_tokens) for s in measured)
        at = {
            s.batch_size: m for s, m in measured.items() if (s.length_tokens, s.prompt_len_tokens) == length
        }
        parts = [_held(table, field, contender, length[0], budget_bytes)]
        parts += _ran(table, contender, length, at, budget_bytes)
        said.append(
            f"{size(budget_bytes)} and {field.name(contender)}, conversations of "
            f"{length[0]:,} tokens: {'; '.join(part for part in parts if part)}."
        )
    return said


def noise_words(table: SpeedTable, field: Field) -> list[str]:
    """Say how much repeats and processes differ, and how busy the machine was."""
    within = [
        spread
        for record in table.replicates
        if record.status == "ok"
        for values in (
            [r.ttft_s for r in record.repeats if r.ttft_s is not None],
            [r.tpot_s for r in record.repeats if r.itl_s],
        )
        if (spread := spread_within(values)) is not None
    ]
    between = [
        max(values) / min(values) - 1
        for contender in field.contenders
        for records in field.cells(contender).values()
        for figure in (ttft_s, tpot_s)
        if len(values := by_replicate(records, figure).values()) > 1
    ]
    loads = [r.load_average for r in table.replicates if r.load_average is not None]
    parts = []
    if within:
        parts.append(
            f"the middle half of a process's repeats spans {percent(statistics.median(within))} of their "
            f"median, at worst {percent(max(within))}"
        )
    if between:
        parts.append(
            f"processes of one point differ by {percent(statistics.median(between))} from the fastest to the "
            f"slowest, at worst by {percent(max(between))}"
        )
    if loads:
        parts.append(f"load average between {min(loads):.1f} and {max(loads):.1f} as processes began")
    busy = [row for row in table.rows if flags.BUSY in row.flags]
    if busy:
        parts.append(f"the machine was busy at {plural(len(busy), 'point')} of {len(table.rows)}")
    return [f"Noise of this machine: {'; '.join(parts)}."] if parts else []


def _state_line(field: Field, contender: Contender) -> tuple[float, float] | None:
    """Return bytes of one sequence's state before any token, and for each token, as walked; least squares."""
    found: list[tuple[float, float]] = []
    for setting, records in field.cells(contender).items():
        memories = [(r.point, r.memory) for r in records if r.memory is not None]
        found += [(covered_tokens(p, m), m.state_bytes / setting.batch_size) for p, m in memories]
    if len({x for x, _ in found}) < 2:
        values = {y for _, y in found}
        return (values.pop(), 0.0) if len(values) == 1 and contender.attention == "none" else None
    slope, intercept = statistics.linear_regression([x for x, _ in found], [y for _, y in found])
    return intercept, slope


def _computed_break_even(table: SpeedTable, field: Field, a: Contender, b: Contender) -> float | None:
    from mambabench.sizes import break_even_tokens

    ours, theirs = _held_as(table, field, a), _held_as(table, field, b)
    if ours is None or theirs is None:
        return None
    return break_even_tokens(ours[0], ours[1], theirs[0], theirs[1])


def _held_as(table: SpeedTable, field: Field, contender: Contender) -> tuple[ModelSizes, StateLayout] | None:
    """Return a model's sizes and how the processes that ran it held its state."""
    from mambabench.sizes import layout_for
    from mambabench.tables.speed.table import library_of

    sizes = table.sizes.get(contender.model)
    for setting, records in field.cells(contender).items():
        if sizes is not None:
            return sizes, layout_for(library_of(records[0].implementation), setting.dtype, sizes)
    return None


def _ends_of_prompts(field: Field, contender: Contender) -> list[tuple[Setting, Setting]]:
    """Return the settings of the shortest and the longest prompt, others alike: of the least and the largest
    batch, where there are several."""
    series: dict[tuple[object, ...], list[Setting]] = {}
    for setting in field.cells(contender):
        alike = (setting.batch_size, setting.gen_len_tokens, setting.prefill_chunk_tokens)
        series.setdefault((*alike, setting.dtype, setting.device), []).append(setting)
    ends = [(s[0], s[-1]) for s in series.values() if len(s) > 1]
    return ends if len(ends) <= 2 else [ends[0], ends[-1]]


def _change(field: Field, contender: Contender, first: Setting, last: Setting) -> Estimate | None:
    from mambabench.stats.replicates import paired_ratio

    cells = field.cells(contender)
    before, after = by_replicate(cells[first], tpot_s), by_replicate(cells[last], tpot_s)
    return paired_ratio(after, before) if before.keys() & after.keys() else None


def _flatness(ratio: Estimate) -> str:
    low, value, high = (percent(x - 1, signed=True) for x in (ratio.low, ratio.value, ratio.high))
    if ratio.method == "single":
        return f"{value} (one process)"
    if ratio.method == "range":
        return f"{value} (range {low} to {high} of {ratio.n} processes)"
    flat = max(abs(ratio.low - 1), abs(ratio.high - 1)) < _FLAT_WITHIN
    bound = f", all within {_FLAT_WITHIN:.0%}" if flat else ""
    return f"{value} (95% interval {low} to {high}{bound})"


def _peak_growth(field: Field, contender: Contender, first: Setting, last: Setting) -> float | None:
    cells = field.cells(contender)
    before, after = _largest_memory(cells[first]), _largest_memory(cells[last])
    if before is None or after is None:
        return None
    n_tokens = (last.prompt_len_tokens - first.prompt_len_tokens) * last.batch_size
    return (after.peak_bytes - before.peak_bytes) / n_tokens


def _largest_memory(records: list[ReplicateRecord]) -> MemoryRecord | None:
    return max((r.memory for r in records if r.memory), key=lambda m: m.peak_bytes, default=None)


def _held(table: SpeedTable, field: Field, contender: Contender, length: int, budget_bytes: int) -> str:
    """Return how many states fit beside the weights, transients left out."""
    known = _held_as(table, field, contender)
    if known is None:
        return ""
    sizes, layout = known
    weights = sizes.weights_bytes(next(iter(field.cells(contender))).dtype)
    state = sizes.state_bytes(layout, length_tokens=length)
    if weights > budget_bytes:
        return f"the weights alone take {size(weights)}"
    if not state:
        return ""
    n = (budget_bytes - weights) // state
    return f"{n:,} fit by the specification ({size(state)} each beside {size(weights)} of weights)"


def _ran(
    table: SpeedTable,
    contender: Contender,
    length: tuple[int, int],
    at: dict[int, MemoryRecord],
    budget_bytes: int,
) -> list[str]:
    """Return what batches of a length say: the largest that ran, the least that did not, and the trend."""
    said = []
    fitting = [n for n, memory in at.items() if memory.peak_bytes <= budget_bytes]
    if fitting:
        n = max(fitting)
        said.append(f"measured, a batch of {n:,} ran within {size(at[n].peak_bytes)}")
    else:
        said.append(f"measured, a batch of {min(at):,} took {size(at[min(at)].peak_bytes)}")
    refused = [
        row.point.batch_size
        for row in table.rows
        if (row.point.model, row.point.arm, row.point.attention)
        == (contender.model, contender.arm, contender.attention)
        and (row.point.prompt_len_tokens + row.point.gen_len_tokens, row.point.prompt_len_tokens) == length
        and row.status == "oom"
    ]
    if refused:
        said.append(f"one of {min(refused):,} ran out of memory")
    if len(at) > 1:
        line = statistics.linear_regression(list(at), [m.peak_bytes for m in at.values()])
        n_full = int((budget_bytes - line.intercept) // line.slope) if line.slope > 0 else None
        # What ran out of memory below it shows that the line does not go on.
        if n_full is not None and n_full < min(refused, default=n_full + 1):
            beyond = ", beyond what was measured" if n_full > max(at) else ""
            said.append(
                f"the peak grows by {size(line.slope)} a conversation, prefilled together, and fills the "
                f"budget at {max(0, n_full):,}{beyond}"
            )
    return said


def _tokens(count: float) -> str:
    return f"{count:,.0f} tokens" if count >= 9.5 else f"{number(count)} tokens"
