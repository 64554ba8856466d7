"""Compare the fast path with the model as shipped before a run, in the run's own dtype.

Both are measured against one reference, the shipped code in 64 bits over the same weights. Two correct
programs round differently, so equality is no measure, and a fixed tolerance would have to suit every model
and dtype. The bar is relative: the fast path may err at most 1.5 times as much as the shipped one does.

    record = certify(model, fingerprint=plan.fingerprint)       # seconds once, then read from the cache
    print(summary(record))
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import geometric_mean
from typing import TYPE_CHECKING

from mambabench.errors import CertificateError
from mambabench.models import certificate_cache
from mambabench.schema import CertificateKindRecord, CertificateRecord

if TYPE_CHECKING:
    from mambabench.models.base import LoadedModel
    from mambabench.models.certificate_probe import Probe
    from mambabench.models.stateful import StatefulModel

BAR = 1.5
"""Largest ratio of the fast path's error to the shipped path's."""
REFERENCE = "float64 forward of the shipped code"
REFERENCE_OF_ANOTHER = "float64 forward, over the same weights, of"
"""Before the names of a library and its model, where the shipped code cannot be run in 64 bits."""

_ROUNDINGS = 2.0
"""A shipped path that errs less than this many roundings of its logits is taken to err so much: one for the
result, and no less on the way."""
_ROUNDS = 5
"""A model that is badly conditioned, as deep ones with random weights are, magnifies a few early roundings.
One set of sequences then says little: over 18 of them, the ratio went from 0.4 to 1.6 for whole rows
(mamba-130m, random weights). Above the bar more sets are asked, this many in all."""
_CLEAR = 5.0
"""A ratio that no rounding explains: no further set is asked."""


def certify(
    model: LoadedModel, *, fingerprint: str, cache: Path | None = None, trust_cache: bool = True
) -> CertificateRecord | None:
    """Return the model's certificate: that of an earlier run with the same weights and code, or a new one.

    Args:
        model: any; null is returned for one without a fast path, or without shipped code to compare it with.
            One whose shipped code cannot be run in 64 bits has a `reference` that can, over the same weights.
        fingerprint: of the plan that the model was loaded by.
        cache: directory of earlier certificates; by default `certificates` in the user's cache directory.
        trust_cache: False for a model that is not as loaded: its fingerprint does not tell.

    Raises:
        CertificateError: the fast path errs too much or gives no numbers, or the module cannot be run
            in 64 bits.
        NotANumberError: the model as shipped gives no numbers.
    """
    if model.stateful is None or getattr(model, "module", None) is None:
        return None
    path = certificate_cache.entry(fingerprint, model.stateful.kernel_path, model.record.device_name, cache)
    known = certificate_cache.read(path) if trust_cache else None
    if known is not None and known.passed:
        return known
    record = measure(model)
    require(record, model.record.name)
    if trust_cache:
        certificate_cache.write(path, record)
    return record


def summary(record: CertificateRecord) -> str:
    """Return one line for people."""
    return (
        f"certified: {record.fast_path} within {record.ratio:.2f} times the shipped path's own rounding "
        f"error ({record.dtype}; {len(record.kinds)} kinds, {record.n_tokens} tokens)"
    )


def require(record: CertificateRecord, name: str) -> None:
    """Refuse a fast path above the bar.

    Args:
        record: as `measure` returns it.
        name: the model's.

    Raises:
        CertificateError: naming both errors and where they were made.
    """
    if record.passed:
        return
    worst = max(record.kinds, key=lambda kind: kind.ratio)
    raise CertificateError(
        f"{name}: the fast path ({record.fast_path}) errs by {worst.rms_error:.2g} where the model as "
        f"shipped errs by {worst.shipped_rms_error:.2g} ({worst.kind}, {record.dtype}): {worst.ratio:.3g} "
        f"times as much, and {record.bar:g} are allowed"
    )


def measure(model: LoadedModel) -> CertificateRecord:
    """Compare the fast path with the model as shipped; see `require` for the verdict.

    Raises:
        CertificateError: the fast path gives no numbers, or the module cannot be run in 64 bits.
        NotANumberError: the model as shipped gives no numbers.
        ValueError: there is no fast path, or nothing to compare it with.
    """
    from mambabench.models.certificate_probe import KINDS, dtype_name, make_probe, token_ids
    from mambabench.models.quiet import quiet

    stateful, module = model.stateful, getattr(model, "module", None)
    other = getattr(model, "reference", None)
    if stateful is None or module is None:
        raise ValueError(f"{model.record.name} has no two paths to compare")
    started_s = time.perf_counter()
    ids = token_ids(model.tokenizer, model.vocab_size)
    rounds: list[list[CertificateKindRecord]] = []
    worst = 0.0
    with quiet():
        while len(rounds) < _ROUNDS and worst <= _CLEAR and (worst > BAR or len(rounds) != 1):
            probe = make_probe(model, module, ids, reference=other)
            rounds.append([_compare(model.record.name, stateful, probe, kind) for kind in KINDS])
            worst = max(kind.ratio for kind in rounds[-1])
    # A clear mistake is not averaged with rows that it did not touch.
    kinds = rounds[-1] if worst > _CLEAR else [_pooled(same) for same in zip(*rounds, strict=True)]
    ratio = max(kind.ratio for kind in kinds)
    return CertificateRecord(
        fast_path=stateful.kernel_path,
        shipped_path=f"{'transformers' if other is None else 'mamba_ssm'} {type(module).__name__}",
        dtype=dtype_name(stateful.dtype),
        reference=REFERENCE if other is None else _named(other),
        kinds=tuple(kinds),
        n_tokens=sum(kind.n_tokens for kind in kinds),
        n_rounds=len(rounds),
        ratio=ratio,
        bar=BAR,
        passed=ratio <= BAR,
        wall_s=time.perf_counter() - started_s,
        made_utc=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _named(other: object) -> str:
    library = type(other).__module__.partition(".")[0]
    return f"{REFERENCE_OF_ANOTHER} {library} {type(other).__name__}"


def _compare(name: str, stateful: StatefulModel, probe: Probe, kind: str) -> CertificateKindRecord:
    """Measure both paths' errors over the positions of one kind."""
    from mambabench.models.certificate_probe import KINDS, at_most_threads, dtype_name

    # Of the fast path, the shipped one, and rounding alone.
    squares, largest, n_tokens = [0.0] * 3, [0.0] * 3, 0
    for answer in KINDS[kind](stateful, probe):
        if not bool(answer.logits.isfinite().all()):
            raise CertificateError(
                f"{name}: the fast path ({stateful.kernel_path}) gives no finite logits, the model as "
                f"shipped does ({kind}, {dtype_name(stateful.dtype)})"
            )
        # Steps this small are slower on several threads.
        with at_most_threads(1):
            for (row, position), fast in zip(answer.places, answer.logits, strict=True):
                index = position - len(probe.rows[row]) + probe.compared[row]
                exact = probe.exact[row][index]
                rounded = exact.to(stateful.dtype)
                for which, logits in enumerate((fast, probe.shipped[row][index], rounded)):
                    error = logits.double() - exact
                    squares[which] += float(error.square().mean())
                    largest[which] = max(largest[which], float(error.abs().max()))
        n_tokens += len(answer.places)
    rms = [(total / n_tokens) ** 0.5 for total in squares]
    return CertificateKindRecord(
        kind=kind,
        n_tokens=n_tokens,
        rms_error=rms[0],
        max_error=largest[0],
        shipped_rms_error=rms[1],
        shipped_max_error=largest[1],
        rounding_rms_error=rms[2],
        ratio=_ratio(*rms),
    )


def _pooled(rounds: Sequence[CertificateKindRecord]) -> CertificateKindRecord:
    """Return one kind's errors over several sets of sequences.

    Geometric means, since a set's errors are magnified together: the quotient of the means is then the
    mean of the quotients, which one badly magnified set does not decide.
    """
    if len(rounds) == 1:
        return rounds[0]
    floor = max(kind.rounding_rms_error for kind in rounds) or sys.float_info.min
    rms = [
        geometric_mean(max(getattr(kind, name), floor) for kind in rounds)
        for name in ("rms_error", "shipped_rms_error", "rounding_rms_error")
    ]
    return CertificateKindRecord(
        kind=rounds[0].kind,
        n_tokens=sum(kind.n_tokens for kind in rounds),
        rms_error=rms[0],
        max_error=max(kind.max_error for kind in rounds),
        shipped_rms_error=rms[1],
        shipped_max_error=max(kind.shipped_max_error for kind in rounds),
        rounding_rms_error=rms[2],
        ratio=_ratio(*rms),
    )


def _ratio(fast: float, shipped: float, rounding: float) -> float:
    """Return how many times the shipped path's error the fast path's is."""
    return fast / max(shipped, _ROUNDINGS * rounding, sys.float_info.min)
