"""What models cost, in a sentence or two: ratios of two that ran side by side, else the least and the most.

Costs are held against each other at one setting of one machine only: the longest prompt that most models have
in common.

cost_answers(Rows(runs))
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from mambabench.report.format import Row, Rows, listed, number, plural, seconds, size, times, unique
from mambabench.report.sections.settings import AXES, LENGTHS, setting_words
from mambabench.tables.speed.format import Write

_FIGURES: Final[dict[str, tuple[str, Write]]] = {
    "ttft_s": ("to the first token", seconds),
    "tpot_s": ("a later token", seconds),
    "decode_tokens_per_s": ("tokens a second", number),
    "peak_bytes": ("at most", size),
}
_RATIOS: Final = {
    "tpot_s": "the time of {} for each token",
    "ttft_s": "its time to the first token",
    "peak_bytes": "its peak memory",
}
_LEAST: Final = {
    "tpot_s": ("time per token", seconds, False),
    "decode_tokens_per_s": ("tokens a second", number, True),
    "peak_bytes": ("peak memory", size, False),
}
"""What is said of several models: name, how it is written, and whether more is better."""
_ALIKE: Final = (*LENGTHS, "dtype", "device")
_COSTS: Final = ("ttft_s", "tpot_s", "decode_tokens_per_s", "peak_bytes")


def cost_answers(rows: Rows) -> list[str]:
    """Return the sentences; none where no cost was measured."""
    for kind in AXES:
        points = [row for row in rows("speed") if row["kind"] == kind]
        ok = [row for row in points if row["status"] == "ok" and any(row[n] is not None for n in _COSTS)]
        if ok:
            ratios = [row for row in rows("speed_ratios") if row["kind"] == kind]
            return [_measured(ok, ratios, _machines(rows)), *_refused(points)]
    unmeasured = [row for row in rows("speed") if row["kind"] in AXES]
    if unmeasured:
        counts = Counter((row["status"] or "").replace("_", " ") for row in unmeasured)
        ended = listed([f"{n:,} {status}" for status, n in counts.items()])
        return [f"No cost was measured: of {plural(len(unmeasured), 'point')} {ended}."]
    return _beside_recall(rows) or _conversation(rows)


def _machines(rows: Rows) -> dict[str, str]:
    """Return what each run was measured on."""
    return {row["run"]: row["device_name"] or "" for row in rows("runs")}


def _measured(ok: Sequence[Row], ratios: Sequence[Row], machines: Mapping[str, str]) -> str:
    best = [row for row in ok if row["fastest"]] or list(ok)
    labels = unique(row["label"] for row in best)
    if len(labels) == 2 and ratios and (said := _ratio(ratios)):
        return said
    own = _same_setting(best, machines)
    where = setting_words(own[0], LENGTHS[:2]) + _on(own[0], best, machines)
    if len(own) == 1:
        return f"At {where}, {own[0]['label']} takes {_costs(own[0])}."
    return f"At {where}, of {plural(len(own), 'model')}: {_extremes(own)}."


def _on(row: Row, found: Sequence[Row], machines: Mapping[str, str]) -> str:
    """Name the machine of a row where rows are of several."""
    names = {machines.get(one["run"], "") for one in found}
    return f", on {machines.get(row['run']) or 'an unknown machine'}" if len(names) > 1 else ""


def _same_setting(found: Sequence[Row], machines: Mapping[str, str]) -> list[Row]:
    """Return one row a model at the longest setting of a machine that most models have."""
    by: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in found:
        setting = (*(row.get(name) for name in _ALIKE), machines.get(row["run"], ""))
        by.setdefault(setting, {}).setdefault(row["label"], row)
    return list(max(by.items(), key=lambda item: (len(item[1]), [n or 0 for n in item[0][:3]]))[1].values())


def _costs(row: Row) -> str:
    parts = []
    for name, (words, write) in _FIGURES.items():
        if row.get(name) is not None and not (
            name == "decode_tokens_per_s" and row.get("tpot_s") is not None
        ):
            parts.append(f"{write(row[name])} {words}")
    return listed(parts)


def _extremes(own: Sequence[Row]) -> str:
    parts = []
    for name, (words, write, more) in _LEAST.items():
        known = [row for row in own if row.get(name) is not None]
        if name == "decode_tokens_per_s" and any(row.get("tpot_s") is not None for row in own):
            continue
        if len(known) < 2:
            continue
        least, most = min(known, key=lambda row: row[name]), max(known, key=lambda row: row[name])
        if least[name] == most[name]:
            parts.append(f"{words} measured {write(least[name])} of each")
            continue
        first, last = (most, least) if more else (least, most)
        ends = ("highest", "lowest") if more else ("least", "most")
        parts.append(
            f"{ends[0]} {words} measured {write(first[name])} ({first['label']}), {ends[1]} "
            f"{write(last[name])} ({last['label']})"
        )
    return "; ".join(parts) or f"{own[0]['label']} takes {_costs(own[0])}"


def _ratio(ratios: Sequence[Row]) -> str:
    """Say of two models that ran side by side how many times as much the first takes."""
    names = LENGTHS[:3]
    longest = max([row[name] or 0 for name in names] for row in ratios)
    own = [row for row in ratios if [row[name] or 0 for name in names] == longest]
    first, second = own[0]["first"], own[0]["second"]
    parts = []
    for figure, words in _RATIOS.items():
        row = next((r for r in own if r["figure"] == figure and r["ratio"] is not None), None)
        if row is not None and (row["first"], row["second"]) == (first, second):
            parts.append(f"{times(row['ratio'])} times {words.format(second)}{_ends(row)}")
    if not parts:
        return ""
    parts = [
        part.replace("times its", f"times {second}'s") if i == 0 else part for i, part in enumerate(parts)
    ]
    return f"At {setting_words(own[0], names[:2])}, {first} takes {listed(parts)}."


def _ends(row: Row) -> str:
    if row["method"] == "single":
        return " (one process)"
    if row["ratio_low"] is None or row["ratio_high"] is None or row["ratio_low"] == row["ratio_high"]:
        return ""
    ends = f"{times(row['ratio_low'])} to {times(row['ratio_high'])}"
    return (
        f" (95% {ends})" if row["method"] == "t on log" else f" (range {ends} of {row['n_pairs']} processes)"
    )


def _refused(points: Sequence[Row]) -> list[str]:
    """Say where memory ran out."""
    out = [row for row in points if row["status"] == "oom"]
    if not out:
        return []
    labels = unique(row["label"] for row in out)
    if len(labels) > 1:
        return [f"Memory ran out at {plural(len(out), 'point')} of {plural(len(labels), 'model')}."]
    first = min(out, key=lambda row: [row[name] or 0 for name in LENGTHS[:3]])
    more = f" and at {plural(len(out) - 1, 'more point')}" if len(out) > 1 else ""
    return [f"Memory ran out for {labels[0]} at {setting_words(first, LENGTHS[:2])}{more}."]


def _beside_recall(rows: Rows) -> list[str]:
    known = [
        row for row in rows("recall_means") if row["tpot_s"] is not None or row["peak_bytes"] is not None
    ]
    if not known:
        return []
    machines = _machines(rows)
    by: dict[tuple[int, str], list[Row]] = {}
    for row in known:
        by.setdefault((row["length_tokens"], machines.get(row["run"], "")), []).append(row)
    (length, _), own = max(by.items(), key=lambda item: (len(item[1]), item[0][0]))
    where = f"At {length:,} tokens{_on(own[0], known, machines)}"
    if len(own) == 1:
        return [f"{where}, {own[0]['label']} takes {_costs(own[0])}."]
    return [f"{where}, of {plural(len(own), 'model')}: {_extremes(own)}."]


def _conversation(rows: Rows) -> list[str]:
    by: dict[tuple[int, str], dict[str, float]] = {}
    for row in rows("conversation"):
        # Times of going on to other logits are not to be used.
        if row["time_s"] is not None and row["certified"] is not False:
            by.setdefault((row["history_tokens"] or 0, row["label"]), {})[row["operation"]] = row["time_s"]
    both = {key: own for key, own in by.items() if {"resume", "prefill_again"} <= own.keys()}
    if not both:
        return []
    longest = max(history for history, _ in both)
    parts = [
        f"{label} {seconds(own['resume'])}, against {seconds(own['prefill_again'])} forwarding it all again"
        for (history, label), own in both.items()
        if history == longest
    ]
    more = [plural(len(parts) - 3, "more model")] if len(parts) > 3 else []
    return [f"Going on with a conversation of {longest:,} tokens takes {'; '.join([*parts[:3], *more])}."]
