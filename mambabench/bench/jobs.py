"""What a sweep asks of a child process, and what the child writes back, one JSON object a line.

    job = MeasureJob(model="mamba-tiny", point=point, kind="latency", ...)
    job.model_dump_json()

Events of a child: `baseline` (baseline_bytes), `loaded` (load_s), `repeat` (repeat), and at last one of
`record` (record), `certificate` (certificate), `ceilings` (ceilings), or `failed` (status, detail,
requested_bytes, allocated_bytes).
"""

from __future__ import annotations

from typing import Literal

from mambabench.schema import CertificateRecord, Record, WeightsKind
from mambabench.speed_schema import Arm, Attention, PointRecord, SweepKind


class ModelJob(Record):
    """A model to load."""

    model: str
    """As typed."""
    name: str
    """Short, as in tables."""
    weights: WeightsKind
    seed: int
    dtype: str
    device: str


class MeasureJob(ModelJob):
    """Measure one point once."""

    task: Literal["measure"] = "measure"
    kind: SweepKind
    point: PointRecord
    fingerprint: str
    replicate: int
    order: int
    repeats: int
    """At least so many are timed; 0 for memory alone."""
    max_time_s: float
    budget_bytes: int | None = None
    certificate: CertificateRecord | None = None
    """Of this model, made before."""
    text: str | None = None
    """File whose text prompts are made of, by the model's own tokenizer; null for random ids."""
    tokenizer: str | None = None
    """Directory or Hub id of another tokenizer."""


class CertifyJob(ModelJob):
    """Compare a model's arms with the model as shipped."""

    task: Literal["certify"] = "certify"
    arms: tuple[tuple[Arm, Attention], ...]


class CeilingsJob(Record):
    """Measure what the machine can do."""

    task: Literal["ceilings"] = "ceilings"
    device: str
    dtype: str
    weights_bytes_hint: int
    """Of the largest model of the sweep."""
    round: int


Job = MeasureJob | CertifyJob | CeilingsJob
