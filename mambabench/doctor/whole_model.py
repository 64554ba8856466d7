"""A bundled model as a run would use it: loaded, compared with the model as shipped, and across devices.

>>> finding = try_model("mamba-tiny", "cpu", "cpu")
>>> finding.passed
True
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from mambabench.doctor.finding import ModelFinding
from mambabench.errors import MambabenchError

if TYPE_CHECKING:
    from mambabench.models.plan import Engine

_TOKENS = 130
_ALLOWED = 1e-3
"""Of the largest logit, between a processor and a GPU in float32: the official scan's exponentials are fast
ones."""
_DTYPE = "float32"


def try_model(name: str, device: str, path: str) -> ModelFinding:
    """Load a model and compare it.

    Args:
        name: of a bundled model.
        device: "cpu" or "cuda:0".
        path: that this tries.
    """
    began_s = time.perf_counter()
    try:
        passed, detail, ratio = _compare(name, device, path)
    except MambabenchError as error:
        passed, detail, ratio = False, str(error), None
    except Exception as error:
        lines = str(error).strip().splitlines()
        passed, detail, ratio = False, f"{type(error).__name__}: {lines[0] if lines else ''}", None
    return ModelFinding(name, path, _DTYPE, passed, detail, ratio, time.perf_counter() - began_s)


def _compare(name: str, device: str, path: str) -> tuple[bool, str, float | None]:
    """Return whether a model passes, in which words, and its certificate's ratio."""
    from mambabench.models.certificate import measure, summary

    model = _loaded(name, device, "as-shipped" if path == "official" else "shared")
    parts, passed, ratio = [], True, None
    if model.stateful is not None and getattr(model, "module", None) is not None:
        record = measure(model)
        passed, ratio = record.passed, record.ratio
        parts.append(
            summary(record)
            if passed
            else f"errs {record.ratio:.3g} times as much as the model as shipped does"
        )
    if device != "cpu":
        difference = _difference(model, _loaded(name, "cpu", "shared"), device)
        passed = passed and difference <= _ALLOWED
        parts.append(
            f"{model.record.kernel_path}: logits differ from the processor's by {difference:.2g} of "
            "the largest"
        )
    return passed, "; ".join(parts) or "loads; there is no fast path to compare", ratio


def _loaded(name: str, device: str, engine: Engine) -> Any:
    from mambabench.models.check import check
    from mambabench.models.load import load
    from mambabench.registry import resolve

    return load(check(resolve(name), dtype=_DTYPE, device=device, engine=engine))


def _difference(model: Any, other: Any, device: str) -> float:
    """Return the largest difference of two models' logits, as a share of the largest logit."""
    import torch

    numbers = torch.Generator().manual_seed(0)
    ids = torch.randint(0, other.vocab_size, (2, _TOKENS), generator=numbers)
    expected = other.logits(ids, _TOKENS).double()
    got = model.logits(ids.to(device), _TOKENS).double().cpu()
    return float((got - expected).abs().max() / expected.abs().max())
