"""Which of many checkpoints a figure shows that has no axis of training steps."""

from __future__ import annotations

from collections.abc import Sequence

from mambabench.compare.steps import stepped


def last_steps(labels: Sequence[str]) -> list[str]:
    """Leave out checkpoints of which a later one of the same run of training is there.

    >>> last_steps(["intact", "pythia-70m@step1000", "pythia-70m@step2000"])
    ['intact', 'pythia-70m@step2000']
    """
    places = {label: found for label in labels if (found := stepped(label)) is not None}
    last = {found.series: max(p.step for p in places.values() if p.series == found.series)
            for found in places.values()}  # fmt: skip
    return [m for m in labels if m not in places or places[m].step == last[places[m].series]]
