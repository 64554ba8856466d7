"""What models cost: times, rates and memory of every point measured, ratios side by side, ceilings.

section = speed_section(Rows(runs))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from mambabench.report.document import EMPTY, Block, Cell, Column, Section, Table
from mambabench.report.format import (
    Row,
    Rows,
    integer,
    measured,
    number,
    percent,
    plural,
    seconds,
    size,
    times,
    unique,
)
from mambabench.report.sections.layout import MOST_ROWS, findings, first_rows, grids, table, thinned
from mambabench.report.sections.settings import (
    AXES,
    LENGTHS,
    WAYS,
    brackets,
    common,
    estimate,
    failures,
    identity,
    outcome,
    setting_words,
    varied,
)
from mambabench.tables.speed.flags import ADVICE
from mambabench.tables.speed.format import Write, flops

_TITLES: Final = {
    "latency": "Latency", "throughput": "Throughput", "memory": "Memory"
}  # fmt: skip
_ESTIMATES: Final[dict[str, tuple[str, str, Write]]] = {
    "ttft_s": ("time to first token", "", seconds),
    "tpot_s": ("time per token", "", seconds),
    "itl_p90_s": ("90% of steps within", "", seconds),
    "decode_tokens_per_s": ("decode", "tokens/s", number),
    "prefill_tokens_per_s": ("prefill", "tokens/s", number),
    "e2e_tokens_per_s": ("in all", "tokens/s", number),
    "peak_bytes": ("peak memory", "", size),
    "prefill_ceiling_share": ("prefill of ceiling", "", percent),
    "decode_ceiling_share": ("decode of ceiling", "", percent),
    "gross_j_per_token": ("energy", "J/token", number),
}
_BYTES: Final = {
    "weights_bytes": "weights",
    "state_bytes": "state or cache",
    "transient_bytes": "transient",
}
_SHOWN: Final = {
    "latency": ("ttft_s", "tpot_s", "itl_p90_s", "decode_tokens_per_s", "peak_bytes",
                "prefill_ceiling_share", "decode_ceiling_share", "gross_j_per_token"),
    "throughput": ("decode_tokens_per_s", "prefill_tokens_per_s", "e2e_tokens_per_s", "peak_bytes",
                   "prefill_ceiling_share", "decode_ceiling_share", "gross_j_per_token"),
    "memory": ("peak_bytes", "weights_bytes", "state_bytes", "transient_bytes", "ttft_s",
               "decode_tokens_per_s"),
}  # fmt: skip
_TELLING: Final = {
    "latency": ("ttft_s", "tpot_s", "peak_bytes"),
    "throughput": ("decode_tokens_per_s", "peak_bytes"),
    "memory": ("peak_bytes", "decode_tokens_per_s"),
}
"""Figures of a sweep with too many points for one table."""
_MOST_SETTINGS: Final = 8
_MOST_PAIRS: Final = 4
_MOST_DETAILS: Final = 6
_RATIO_ORDER: Final = ("ttft_s", "tpot_s", "peak_bytes")


def speed_section(rows: Rows) -> Section | None:
    """Return the section, or None where no sweep was run."""
    blocks: list[Block] = []
    machines = {row["run"]: row["device_name"] or "unknown" for row in rows("runs")}
    for kind in AXES:
        found: list[Row] = [
            {**row, "machine": machines.get(row["run"])} for row in rows("speed") if row["kind"] == kind
        ]
        if not found:
            continue
        if len(found) <= MOST_ROWS:
            blocks.append(_points(kind, found))
        else:
            blocks += _grids(kind, found)
    blocks += _ratios([row for row in rows("speed_ratios") if row["kind"] in AXES])
    if not blocks:
        return None
    blocks += _ceilings(rows("ceilings"))
    blocks += findings(rows, tuple(AXES))
    lead = (
        "Each figure is the geometric mean over processes, and each time the median of a process's repeats. "
        "Memory that ran out is a result: it shows what does not fit."
    )
    return Section("speed", "What the models cost: speed and memory", tuple(blocks), lead)


def _sorted(found: Sequence[Row]) -> list[Row]:
    """Return points with each model's ways of executing it together, lengths ascending."""
    place = {key: i for i, key in enumerate(unique(_way(row) for row in found))}
    models = {label: i for i, label in enumerate(unique(row["label"] for row in found))}
    lengths = [name for name in LENGTHS if name != "prefill_chunk_tokens"]
    return sorted(
        found, key=lambda row: (models[row["label"]], place[_way(row)], *(row[name] or 0 for name in lengths))
    )


def _way(row: Row) -> tuple[str, ...]:
    return (row["label"], *(row[name] or "" for name in WAYS))


def _points(kind: str, found: list[Row]) -> Table:
    rows = _sorted(found)
    names = varied(rows, (*WAYS, *LENGTHS))
    if AXES[kind] not in names:
        names = [*names, AXES[kind]]
    cells: list[tuple[Column, Callable[[Row], Cell]]] = [(Column("model"), lambda row: Cell(row["label"]))]
    if varied(rows, ("machine",)):
        cells.append((Column("machine"), lambda row: Cell(row["machine"] or "")))
    cells += [identity(name) for name in names]
    cells += [_figure(name) for name in _SHOWN[kind]]
    marks = _marks(rows)
    cells.append((Column("state"), outcome))
    cells.append((Column("limits", note="see below"), lambda row: _limits(row, marks)))
    notes = [*common(rows, names), *brackets(rows, [n for n in _SHOWN[kind] if n in _ESTIMATES])]
    notes += failures(rows, _MOST_DETAILS)
    notes += [f"[{mark}] {flag}: {ADVICE.get(flag, '')}".rstrip(": ") + "." for flag, mark in marks.items()]
    return table(
        kind, _TITLES[kind], "speed", [column for column, _ in cells],
        [[cell(row) for _, cell in cells] for row in rows], notes,
    )  # fmt: skip


def _figure(name: str) -> tuple[Column, Callable[[Row], Cell]]:
    if name in _BYTES:
        return Column(_BYTES[name], numeric=True), lambda row: measured(row[name], size)
    title, unit, write = _ESTIMATES[name]
    return Column(title, unit, numeric=True), estimate(name, write)


def _flags(row: Row) -> list[str]:
    return [flag.strip() for flag in (row["flags"] or "").split(";") if flag.strip()]


def _marks(rows: Sequence[Row]) -> dict[str, str]:
    used = unique(flag for row in rows for flag in _flags(row))
    order = {flag: i for i, flag in enumerate(ADVICE)}
    used.sort(key=lambda flag: order.get(flag, len(order)))
    return {flag: _letter(i) for i, flag in enumerate(used)}


def _letter(i: int) -> str:
    return chr(ord("a") + i) if i < 26 else f"a{_letter(i - 26)}"


def _limits(row: Row, marks: dict[str, str]) -> Cell:
    flags = _flags(row)
    if not flags:
        return EMPTY
    return Cell(f"[{','.join(marks[flag] for flag in flags)}]", (), "doubt")


def _grids(kind: str, found: list[Row]) -> list[Table]:
    """Return a table a figure: models in rows, settings in columns, each model in its fastest way."""
    best = [row for row in found if row["fastest"]] or found
    ways = varied(best, (*WAYS, "machine"))
    names = varied(best, LENGTHS) or [AXES[kind]]
    by: dict[tuple[str, str], Row] = {}
    for row in best:
        by.setdefault((_named(row, ways), setting_words(row, names)), row)
    order = sorted(by, key=lambda key: [by[key][name] or 0 for name in names])
    places = unique(place for _, place in order)
    shown = thinned(places, _MOST_SETTINGS)
    lines, more = first_rows(unique(name for name, _ in by), "speed", "model")
    notes = common(best, [*names, *ways])
    if len(best) < len(found):
        notes.append("Each model in the fastest of the ways of executing it; frame speed has all.")
    if len(shown) < len(places):
        notes.append(f"{len(shown)} of {len(places)} settings; frame speed has all.")
    tables = []
    for figure in _TELLING[kind]:
        title, unit, write = _ESTIMATES[figure]
        columns = [
            (Column(place, unit, numeric=True), _at(lines, by, place, estimate(figure, write)))
            for place in shown
        ]
        tables += grids(
            f"{kind}-{figure.replace('_', '-')}", f"{_TITLES[kind]}: {title}", "speed",
            heads=[Column("model")], names=[(Cell(line),) for line in lines], columns=columns,
            most=_MOST_SETTINGS, notes=[*notes, *brackets(best, [figure]), *more],
        )  # fmt: skip
    if tables:
        last = tables[-1]
        tables[-1] = Table(
            last.key, last.title, last.columns, last.rows, last.frame,
            (*last.notes, *failures(found, _MOST_DETAILS)),
        )  # fmt: skip
    return tables


def _named(row: Row, ways: Sequence[str]) -> str:
    return ", ".join([row["label"], *(row[name] for name in ways if row[name])])


def _at(
    lines: Sequence[str], by: dict[tuple[str, str], Row], place: str, write: Callable[[Row], Cell]
) -> Callable[[int], Cell]:
    def cell(i: int) -> Cell:
        row = by.get((lines[i], place))
        if row is None:
            return EMPTY
        found = write(row)
        return found if found.text else outcome(row)

    return cell


def _ratios(found: list[Row]) -> list[Table]:
    """Return the ratios of pairs; of many models those with the first one."""
    pairs = unique((row["first"], row["second"]) for row in found)
    notes = ["Below 1 the first takes less. Ratios are of processes that ran side by side."]
    if len(pairs) > _MOST_PAIRS:
        one = pairs[0][0]
        kept = [pair for pair in pairs if one in pair]
        notes.append(f"{plural(len(kept), 'pair')} with {one} of {len(pairs)}; frame speed_ratios has all.")
        found = [row for row in found if (row["first"], row["second"]) in set(kept)]
    tables: list[Table] = []
    for kind in AXES:
        own = [row for row in found if row["kind"] == kind]
        if own:
            tables += _ratios_of(kind, own, notes)
    return tables


def _ratios_of(kind: str, found: list[Row], notes: list[str]) -> list[Table]:
    names = [n for n in LENGTHS[:3] if len({row[n] for row in found}) > 1] or [AXES[kind]]
    by = {((row["first"], row["second"], row["figure"]), setting_words(row, names)): row for row in found}
    order = sorted(by, key=lambda key: [by[key][name] or 0 for name in names])
    places = unique(place for _, place in order)
    shown = thinned(places, _MOST_SETTINGS)
    figures = [name for name in _RATIO_ORDER if any(row["figure"] == name for row in found)]
    pairs = unique((row["first"], row["second"]) for row in found)
    lines, more = first_rows(
        [(*pair, figure) for figure in figures for pair in pairs
         if any((*pair, figure) == line for line, _ in by)],
        "speed_ratios", "line",
    )  # fmt: skip
    if len(shown) < len(places):
        more.append(f"{len(shown)} of {len(places)} settings; frame speed_ratios has all.")

    def at(place: str) -> Callable[[int], Cell]:
        def cell(i: int) -> Cell:
            row = by.get((lines[i], place))
            if row is None:
                return EMPTY
            return measured(row["ratio"], times, row["ratio_low"], row["ratio_high"])

        return cell

    renamed = [{**row, "ratio_method": row["method"]} for row in found]
    return grids(
        f"{kind}-ratios", f"{_TITLES[kind]}: how many times as much one takes as the other", "speed_ratios",
        heads=[Column("figure"), Column("model"), Column("over")],
        names=[(Cell(_ESTIMATES[f][0]), Cell(first), Cell(second)) for first, second, f in lines],
        columns=[(Column(place, numeric=True), at(place)) for place in shown],
        most=_MOST_SETTINGS, notes=[*notes, *brackets(renamed, ["ratio"]), *more],
    )  # fmt: skip


def _ceilings(found: list[Row]) -> list[Table]:
    if not found:
        return []
    columns = [
        Column("run"), Column("device"), Column("dtype"), Column("round", numeric=True),
        Column("copy", "a second", numeric=True, note="best copy, read and written together"),
        Column("matrix product", numeric=True), Column("copy by data sheet", "a second", numeric=True),
        Column("product by data sheet", numeric=True), Column("load before", numeric=True),
    ]  # fmt: skip
    shown, notes = first_rows(found, "ceilings", "round")
    body = [
        [
            Cell(row["run"] or ""), Cell(row["device_name"] or row["device"] or ""), Cell(row["dtype"] or ""),
            integer(row["round"]), measured(row["copy_bytes_per_s"], size),
            measured(row["matmul_flops_per_s"], flops), measured(row["sheet_bytes_per_s"], size),
            measured(row["sheet_flops_per_s"], flops),
            measured(row["load_average"], lambda load: f"{load:.1f}"),
        ]
        for row in shown
    ]  # fmt: skip
    return [table("ceilings", "What the machine can do", "ceilings", columns, body, notes)]
