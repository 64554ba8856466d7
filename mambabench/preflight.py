"""What can be wrong with a command and shows without a model library: words, names, headers, files.

    look_ahead(["mamba-tiny"], load_suite("smoke").tasks, out=Path("results"))

It comes before torch, transformers and lm-eval are imported, which takes seconds by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mambabench.errors import UsageError
from mambabench.registry import ModelRef, resolve
from mambabench.schema import WeightsKind

if TYPE_CHECKING:
    from mambabench.models.locate import Located
    from mambabench.suite import SuiteTask


def look_ahead(
    models: Sequence[str],
    suite_tasks: Sequence[SuiteTask],
    *,
    out: Path,
    data_dir: Path | None = None,
    weights: WeightsKind = "pretrained",
    device: str = "auto",
    max_length: int | None = None,
    tokenizer: str | None = None,
) -> list[tuple[ModelRef, Located]]:
    """Check all that needs no model library and find the models' files.

    Args:
        models: as typed; the short names of the returned references tell them apart.
        suite_tasks: whose data must be in `data_dir`; what would come from the Hub is not looked at.
        out: where results will be written.
        data_dir: directory of data sets as files.
        weights: "random" needs a configuration only.
        device: checked as a word; the machine is not looked at.
        max_length: longest window in tokens.
        tokenizer: a directory, model or Hub id that must have one.

    Raises:
        UsageError: a word, a name, a path, or a place that cannot be written to.
        MissingError: a checkpoint, a tokenizer or data, or a Hub that does not answer.
    """
    from mambabench.models import tokenizer as tokenizers
    from mambabench.models.device import parse_device
    from mambabench.models.locate import locate
    from mambabench.models.plan import require_window
    from mambabench.store import Store
    from mambabench.tasks.offline import require_files

    parse_device(device)
    require_window(max_length)
    refs = told_apart([resolve(text, need_weights=weights == "pretrained") for text in models])
    Store(out).check_writable()
    require_files(suite_tasks, data_dir=data_dir)
    # Last, because these may ask the Hub.
    if tokenizer is not None:
        tokenizers.locate(tokenizer)
    return [(ref, locate(ref, weights)) for ref in refs]


def require_once(models: Sequence[str]) -> None:
    """Refuse a model that is named twice.

    Raises:
        UsageError: naming it.
    """
    texts = Counter(models)
    if repeated := [text for text, n in texts.items() if n > 1]:
        raise UsageError(f"model '{repeated[0]}' is given {texts[repeated[0]]} times", hint="Name it once.")


def told_apart(refs: Sequence[ModelRef]) -> list[ModelRef]:
    """Give models whose short names are equal the names that were typed, since tables need names that differ.

    Raises:
        UsageError: when the same model is given twice.
    """
    require_once([ref.text for ref in refs])
    names = Counter(ref.name for ref in refs)
    return [replace(ref, name=ref.text) if names[ref.name] > 1 else ref for ref in refs]
