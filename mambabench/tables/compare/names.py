"""Long names cut so that no two of them read the same: beginnings are often shared, as by the tasks of MMLU.

>>> apart(["mmlu_high_school_biology", "mmlu_high_school_physics", "piqa"], 14)
{'mmlu_high_school_biology': 'mmlu_h…biology', 'mmlu_high_school_physics': 'mmlu_h…physics', 'piqa': 'piqa'}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from mambabench.tables.compare.format import shortened


def apart(names: Iterable[str], letters: int, most: int | None = None) -> dict[str, str]:
    """Return each name with what is shown of it; different names are shown differently.

    A name that is like no other when its end is cut off loses its end, others their middle.

    Args:
        names: may repeat.
        letters: of each, at most, if that is enough to tell them apart.
        most: letters if it is not; by default twice as many. Where that is not enough either, names stand
            whole.
    """
    every = list(dict.fromkeys(names))
    for room in (letters, 2 * letters if most is None else max(letters, most)):
        shown = _cut(every, room)
        if len(set(shown.values())) == len(every):
            return shown
    return {name: name for name in every}


def _cut(names: list[str], letters: int) -> dict[str, str]:
    shown = {name: shortened(name, letters) for name in names}
    counts = Counter(shown.values())
    for text in [text for text, count in counts.items() if count > 1]:
        alike = [name for name in names if shown[name] == text]
        for end in range(letters // 2, letters):
            cut = {name: _without_middle(name, letters, end) for name in alike}
            if len(set(cut.values())) == len(alike):
                shown |= cut
                break
    return shown


def _without_middle(name: str, letters: int, end: int) -> str:
    if len(name) <= letters:
        return name
    return f"{name[: letters - 1 - end].rstrip()}…{name[-end:].lstrip()}"
