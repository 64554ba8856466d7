"""Frame `findings`: the sentences that follow from figures, as the commands say them.

for text in runs.frame("findings")["text"]:
    print(text)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from mambabench.frames.asked import manifests_of, speed_settings_of
from mambabench.tables.compare.words import words as comparison_words
from mambabench.tables.longcontext.words import words as long_words
from mambabench.tables.speed import conversation
from mambabench.tables.speed.format import listed, seconds, size
from mambabench.tables.speed.words import answers

if TYPE_CHECKING:
    from mambabench.frames.api import Runs
    from mambabench.frames.load import LoadedRun

_MOST_NAMED: Final = 5
_COSTS: Final[dict[str, tuple[str, Callable[[float], str]]]] = {
    "tpot_s": ("time of a token", seconds),
    "ttft_s": ("time to the first token", seconds),
    "peak_bytes": ("peak memory", size),
    "gross_j_per_token": ("energy of a token", lambda joules: f"{joules:.3g} J"),
}


def rows_of_findings(runs: Runs) -> list[dict[str, Any]]:
    """Return rows of frame `findings`: run by run, then of several runs together."""
    found = [
        {"run": run.name, "kind": run.manifest.kind, "text": text}
        for run in runs.runs
        if run.manifest is not None
        for text in _of_run(run)
    ]
    if runs.comparison is not None:
        found += [
            {"run": "", "kind": "comparison", "text": text} for text in comparison_words(runs.comparison)
        ]
    costs: Any = runs.frame("quality_cost").to_dict("records")
    return found + [{"run": "", "kind": "quality and cost", "text": text} for text in _of_costs(costs)]


def _of_run(run: LoadedRun) -> list[str]:
    if run.speed is not None and run.speed.kind == "conversation":
        return conversation.answers(conversation.conversation_rows(run.speed.replicates))
    if run.speed is not None:
        settings = [] if run.stored is None else speed_settings_of(manifests_of(run.stored))
        return answers(run.speed, budget_bytes=settings[0].budget_bytes if settings else None)
    if run.long is not None:
        return long_words(run.long)
    return [] if run.perplexity is None else list(run.perplexity.words)


def _of_costs(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Say which models no other one beats, for each quality and cost where most models compete.

    Of several such settings it is that of the longest prompts. No test is made of it, which is said.
    """
    compared: dict[tuple[str, str], dict[str, list[Mapping[str, Any]]]] = {}
    for row in rows:
        if isinstance(row["on_front"], bool):
            by_setting = compared.setdefault((row["quality"], row["cost"]), {})
            by_setting.setdefault(row["setting"], []).append(row)
    for (quality, cost), by_setting in compared.items():
        setting, group = max(
            by_setting.items(),
            key=lambda one: (len({row["label"] for row in one[1]}), one[1][0]["length_tokens"]),
        )
        if len({row["label"] for row in group}) < 2:
            continue
        words, shown = _COSTS[cost]
        front = [
            f"{row['label']} ({row['quality_percent']:.1f}% for {shown(row['cost_value'])})"
            for row in sorted(group, key=lambda row: float(row["cost_value"]))
            if row["on_front"]
        ]
        beaten = [row["label"] for row in group if not row["on_front"]]
        rest = f"; {_named(beaten)} {'is' if len(beaten) == 1 else 'are'} beaten" if beaten else ""
        yield (
            f"{quality.capitalize()} against {words} ({setting}), by values and not by intervals: no other "
            f"model gives as much for less than {_named(front)}{rest}."
        )


def _named(names: Sequence[str]) -> str:
    """List names; of many the first and a count of the others."""
    if len(names) <= _MOST_NAMED:
        return listed(list(names))
    return f"{', '.join(names[: _MOST_NAMED - 1])} and {len(names) - _MOST_NAMED + 1} others"
