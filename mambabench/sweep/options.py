"""A sweep described: what was asked for, what makes it the same sweep, what it left behind.

block = Block(("mamba-130m", "pythia-160m"), (128, 256), (64,), (1,))
options = SpeedOptions("latency", (block,), weights="random")
outcome = mambabench.sweep.run.run_sweep(options)
outcome.table.rows[0].tpot_s.value
"""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mambabench import __version__
from mambabench.bench.points import Block, ModelTraits, Step
from mambabench.environment import describe_environment, nvidia_driver, package_versions
from mambabench.errors import CellsFailedError
from mambabench.fingerprint import digest, file_sha256
from mambabench.launch.process import CHILD_DEFAULTS
from mambabench.models.certificate_cache import code_digest, processor_features
from mambabench.schema import RunManifest, SpeedSettingsRecord, WeightsKind
from mambabench.speed_schema import PointRecord, ReplicateRecord, Status, SweepKind

if TYPE_CHECKING:
    from mambabench.sizes import ModelSizes
    from mambabench.tables.speed.table import SpeedTable

REPEATS: Final = 10
PROCESSES: Final = 3
MAX_TIME_S: Final = 60.0
DONE: Final[frozenset[Status]] = frozenset({"ok", "oom", "unsupported", "skipped_after_oom"})
"""What is not tried again by the same command."""
_COMPUTES = (
    "torch", "transformers", "numpy", "numba", "mamba-ssm", "causal-conv1d", "flash-attn", "triton",
    "kernels",
)  # fmt: skip
"""Packages whose version may change speed or memory."""
_VARIABLES = (
    "OMP_", "KMP_", "GOMP_", "MKL_", "OPENBLAS_", "ATEN_", "NUMBA_", "TORCH_", "PYTORCH_", "CUDA_", "NVIDIA_",
    "MALLOC_", "GLIBC_", "LD_PRELOAD", "TRITON_",
)  # fmt: skip
"""How the names of environment variables begin that may change speed or memory."""


@dataclass(frozen=True)
class SpeedOptions:
    """What to measure; the defaults are those of the commands."""

    kind: SweepKind
    blocks: tuple[Block, ...]
    title: str = ""
    suite: str = ""
    """Name of the suite; empty for points given by options."""
    weights: WeightsKind | None = None
    """None: pretrained where those of all models are on this machine, otherwise random."""
    seed: int = 0
    dtype: str = "auto"
    device: str = "auto"
    repeats: int = REPEATS
    processes: int = PROCESSES
    max_time_s: float = MAX_TIME_S
    budget_bytes: int | None = None
    """Emulated memory of the device."""
    text: Path | None = None
    """File that prompts are made of; None for random ids."""
    tokenizer: str | None = None
    """Directory or Hub id of another tokenizer than the models' own, for the text."""
    verify: bool = True
    """Whether each model is compared with the model as shipped before it is timed."""
    power: bool = False
    """Whether the energy of decoding is measured, by a process for each point after all times."""
    turn_len_tokens: int = 64
    """Of the turn that follows a conversation's history; other sweeps have none."""
    n_forks: int = 4
    """Continuations of a conversation's history."""
    ceilings: bool = True
    """Whether copies and matrix products are measured at the sweep's beginning and end."""
    one_run: bool = False
    """Whether sweeps that differ in their lengths alone are one run, so that a longer axis adds to what is
    there."""
    out: Path = Path("results")
    command: tuple[str, ...] = ()
    chosen: tuple[str, ...] = ()
    """Sentences on what was chosen where nothing was said."""

    @property
    def models(self) -> tuple[str, ...]:
        """Every model of the blocks once, as typed."""
        return tuple(dict.fromkeys(m for block in self.blocks for m in block.models))


@dataclass(frozen=True)
class Subject:
    """A model of a sweep, as far as names, headers and its configuration tell.

    Attributes:
        typed: as the user named it; what a process is told to load.
        name: short, as in tables.
        digest: of the architecture and, for pretrained weights, of the files.
        sizes: by the specification; None for an architecture without arithmetic.
        has_attention: whether its attention can be chosen; True where that is not known.
        runs_in_mamba_ssm: whether mamba_ssm's code runs it where that is installed and a GPU is there.
        has_right_steps: whether that code's steps of one token can be trusted.
        is_stand_in: no model but a fake one or an operation: there is nothing to compare it with.
    """

    typed: str
    name: str
    digest: str
    sizes: ModelSizes | None
    has_attention: bool = True
    is_stand_in: bool = False
    runs_in_mamba_ssm: bool = False
    has_right_steps: bool = True

    @property
    def traits(self) -> ModelTraits:
        """What decides which points exist."""
        learned = None if self.sizes is None else self.sizes.learned_positions
        return ModelTraits(self.name, self.has_attention, learned)


@dataclass(frozen=True)
class SpeedPlan:
    """A sweep that can begin: everything is known but what is to be measured.

    Attributes:
        options: as asked for.
        weights: of all models.
        dtype: "float32", "bfloat16" or "float16".
        device: "cpu" or "cuda:0".
        device_name: the processor or the GPU by its product name.
        subjects: by short name.
        points: all, in their order by size.
        obstacles: why some of them cannot exist.
        steps: all processes in their order.
        notes: sentences on what was chosen.
    """

    options: SpeedOptions
    weights: WeightsKind
    dtype: str
    device: str
    device_name: str
    subjects: dict[str, Subject]
    points: tuple[PointRecord, ...]
    obstacles: dict[PointRecord, str]
    steps: tuple[Step, ...]
    notes: tuple[str, ...]

    @cached_property
    def sizes(self) -> dict[str, ModelSizes]:
        """Known sizes by short name."""
        return {name: s.sizes for name, s in self.subjects.items() if s.sizes is not None}

    @cached_property
    def settings(self) -> SpeedSettingsRecord:
        """The options that change what is measured, as a record."""
        blocks, options = self.options.blocks, self.options
        chunks = {block.prefill_chunk_tokens for block in blocks}
        return SpeedSettingsRecord(
            weights=self.weights,
            seed=options.seed,
            dtype=self.dtype,
            device=self.device,
            prompt_len_tokens=tuple(sorted({n for b in blocks for n in b.prompt_len_tokens})),
            gen_len_tokens=tuple(sorted({n for b in blocks for n in b.gen_len_tokens})),
            batch_size=tuple(sorted({n for b in blocks for n in b.batch_size})),
            prefill_chunk_tokens=chunks.pop() if len(chunks) == 1 else None,
            arms=tuple(dict.fromkeys(a for b in blocks for a in b.arms)),
            attention=tuple(dict.fromkeys(a for b in blocks for a in b.attention)),
            repeats=options.repeats,
            processes=options.processes,
            max_time_s=options.max_time_s,
            budget_bytes=options.budget_bytes,
            text_sha256=self.text_sha256,
            tokenizer=options.tokenizer,
            turn_len_tokens=self.turn_len_tokens,
            n_forks=options.n_forks if options.kind == "conversation" else None,
            verify=options.verify,
        )

    @property
    def turn_len_tokens(self) -> int | None:
        """Tokens of the turn that follows a conversation's history; None for other sweeps."""
        return self.options.turn_len_tokens if self.options.kind == "conversation" else None

    @cached_property
    def text_sha256(self) -> str | None:
        """Digest of the text that prompts are made of."""
        return None if self.options.text is None else file_sha256(self.options.text)

    @cached_property
    def machine(self) -> dict[str, object]:
        """Everything beside model and point that figures depend on."""
        versions = package_versions()
        return {
            "mambabench": __version__,
            "packages": {name: versions.get(name, "") for name in _COMPUTES},
            "code": code_digest("bench"),
            "python": platform.python_version(),
            "driver": nvidia_driver(),
            "device_name": self.device_name,
            "processor": processor_features(),
            "cores": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else n_cores(),
            "variables": {
                name: value
                for name, value in sorted((CHILD_DEFAULTS | dict(os.environ)).items())
                if name.startswith(_VARIABLES)
            },
        }

    def fingerprint(self, step: Step) -> str:
        """Return the digest of everything that a process's figures depend on."""
        options = self.options
        return digest(
            {
                "kind": options.kind,
                "model": self.subjects[step.point.model].digest,
                "point": step.point,
                "replicate": step.replicate,
                "weights": self.weights,
                "seed": options.seed,
                "repeats": options.repeats,
                "max_time_s": options.max_time_s,
                "budget_bytes": options.budget_bytes,
                "text": [self.text_sha256, options.tokenizer],
                "conversation": [self.turn_len_tokens, self.settings.n_forks],
                "verify": options.verify,
                "machine": self.machine,
            }
        )

    def manifest(self) -> RunManifest:
        """Return the manifest; equal commands over equal files on equal machines have equal identities.

        The number of processes is left out: asking for more adds to the same run.
        """
        options = self.options
        asked = digest({"points": self.points})
        left_out: dict[str, object] = {"processes": 0}
        if options.one_run:
            left_out["prompt_len_tokens"] = ()
        identity = digest(
            {
                "kind": options.kind,
                "models": [s.digest for s in self.subjects.values()],
                "settings": self.settings.model_copy(update=left_out),
                "points": "" if options.one_run else asked,
                "machine": self.machine,
            }
        )
        names = [subject.name for subject in self.subjects.values()]
        of = options.suite or "+".join(names[:3]) + ("+more" if len(names) > 3 else "")
        return RunManifest(
            name=f"{options.kind}-{of}",
            kind=options.kind,
            command=options.command,
            created_utc=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            identity=identity,
            suite=options.suite,
            suite_sha256=asked,
            models=tuple(names),
            settings=self.settings,
            partial=False,
            environment=describe_environment(),
        )


@dataclass(frozen=True)
class SpeedOutcome:
    """What a sweep left behind.

    Attributes:
        path: of the run.
        table: one row a point.
        replicates: one record a process.
        n_measured: processes that this call started; the others' records were there.
        notes: sentences on what was chosen, and on what went wrong beside the points.
    """

    path: Path
    table: SpeedTable
    replicates: tuple[ReplicateRecord, ...]
    n_measured: int
    notes: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[ReplicateRecord, ...]:
        """Processes that ended in a way that the same command tries again."""
        return tuple(r for r in self.replicates if r.status not in DONE)

    def raise_for_failures(self) -> None:
        """Raise when a process ended unexpectedly; out of memory and unsupported points are answers.

        Raises:
            CellsFailedError: naming the first.
        """
        if self.failed:
            first = self.failed[0]
            what = f"{described(first.point)}: {first.status}: {first.detail}"
            raise CellsFailedError.counted(
                len(self.failed), len(self.replicates), "process", what, many="processes"
            )


def n_cores() -> int:
    """Return the logical cores that this process and its children may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def described(point: PointRecord) -> str:
    """Return a point in a few words.

    >>> described(PointRecord(model="m", batch_size=2, prompt_len_tokens=4096, gen_len_tokens=64, arm="eager",
    ...                       attention="sdpa", dtype="float32", device="cpu"))
    'm 2 x 4,096+64 eager sdpa'
    """
    rows = f"{point.batch_size} x " if point.batch_size > 1 else ""
    attention = "" if point.attention == "none" else f" {point.attention}"
    return f"{point.model} {rows}{point.prompt_len_tokens:,}+{point.gen_len_tokens} {point.arm}{attention}"
