"""From options to a sweep that can begin: all that can be wrong shows here, before a process is started.

    plan = make_plan(SpeedOptions("latency", (Block(("mamba-tiny",), (128,), (64,), (1,)),)))
    [step.point.prompt_len_tokens for step in plan.steps]

No model library is imported, here or later, by the process that leads a sweep: it must not disturb what it
measures. Tokenizers are not needed, as prompts are ids.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mambabench.bench import devices
from mambabench.bench.fake import PREFIX as FAKE
from mambabench.bench.fake import FakeSpec
from mambabench.bench.ops import PREFIX as OPERATION
from mambabench.bench.ops import OpSpec
from mambabench.bench.points import expand, obstacle, sequence
from mambabench.bench.sizes import fake_sizes, sizes_of
from mambabench.bench.text import plain_text
from mambabench.checkpoint_files import inspect_path
from mambabench.errors import CheckpointError, DeviceError, UsageError
from mambabench.fingerprint import digest
from mambabench.models import convert, hub
from mambabench.models import tokenizer as tokenizers
from mambabench.models.device import parse_device, pick_dtype
from mambabench.models.hashing import file_records
from mambabench.models.locate import Located, locate, with_weights
from mambabench.models.record import config_digest
from mambabench.preflight import require_once, told_apart
from mambabench.registry import ModelRef, resolve
from mambabench.schema import WeightsKind
from mambabench.sizes import ModelSizes, StateLayout, expected_bytes_of, layout_for
from mambabench.speed_schema import PointRecord
from mambabench.store import Store
from mambabench.sweep.options import SpeedOptions, SpeedPlan, Subject
from mambabench.tables.speed.format import size

if TYPE_CHECKING:
    from mambabench.checkpoint_files import CheckpointFiles

_LOAD_S = 6.0
_WARMUP_REPEATS = 3
_CPU_FLOPS, _CPU_BYTES = 5e10, 1e10
_GPU_FLOPS, _GPU_BYTES = 5e13, 1e12


def make_plan(options: SpeedOptions, *, fetch: bool = True) -> SpeedPlan:
    """Check all that needs no model library, find the models' files, and lay out points and processes.

    Args:
        options: what to measure.
        fetch: whether pretrained weights that are on the Hub only are downloaded.

    Raises:
        UsageError: a word, a name, a path, a place that cannot be written to, or a budget below the weights.
        MissingError: a checkpoint or a device that is not there, or a Hub that does not answer.
        DeviceError: power was asked for, and there is no GPU to measure it of.
    """
    parse_device(options.device)
    pick_dtype(options.dtype, device="cpu", stored="")
    if options.text is not None:
        plain_text(options.text)
    elif options.tokenizer is not None:
        raise UsageError("--tokenizer goes with --text", hint="Random ids need none.")
    for block in options.blocks:
        require_once(block.models)
    stand_ins = {text: _stand_in(text) for text in options.models if text.startswith((FAKE, OPERATION))}
    refs = told_apart([resolve(text, need_weights=False) for text in options.models if text not in stand_ins])
    device = devices.seen_device(options.device)
    capability = devices.seen_capability(device)
    dtype = pick_dtype(options.dtype, device=device, stored="", capability=capability)
    if options.power and device == "cpu":
        raise DeviceError(
            "`--power` needs an NVIDIA GPU, and the device is cpu",
            hint="Leave it out, or name a GPU with `--device`.",
        )
    Store(options.out).check_writable()
    weights, notes = _weights(refs, options)
    if options.tokenizer is not None:
        tokenizers.locate(options.tokenizer)
    # Last, because these may ask the Hub.
    located = {ref.text: locate(ref, weights) for ref in refs}
    sizes = {ref.text: sizes_of(ref, located[ref.text]) for ref in refs}
    _check_budget(options, sizes | {text: s.sizes for text, s in stand_ins.items()}, dtype, device)
    fetch = fetch and weights == "pretrained"
    found = {ref.text: _subject(ref, located[ref.text], sizes[ref.text], fetch) for ref in refs}
    subjects = [found.get(text) or stand_ins[text] for text in options.models]
    traits = {subject.typed: subject.traits for subject in subjects}
    points = expand(options.blocks, traits, dtype=dtype, device=device)
    by_name = {subject.name: subject for subject in subjects}
    turn_len = options.turn_len_tokens if options.kind == "conversation" else 0
    obstacles = {p: obstacle(p, by_name[p.model].traits, turn_len_tokens=turn_len) for p in points}
    return SpeedPlan(
        options=options,
        weights=weights,
        dtype=dtype,
        device=device,
        device_name=devices.seen_name(device),
        subjects=by_name,
        points=points,
        obstacles={point: why for point, why in obstacles.items() if why},
        steps=sequence(points, processes=options.processes),
        notes=(*options.chosen, *notes),
    )


@dataclass(frozen=True)
class Forecast:
    """What a point is expected to take, by its specification.

    Attributes:
        weights_bytes: of the parameters as loaded.
        state_bytes: of all sequences, after the last token.
        peak_bytes: of both and everything transient.
        fits: whether that is within the budget, or else the device.
        rough_s: of one process, from round figures for machines of this kind.
    """

    weights_bytes: int
    state_bytes: int
    peak_bytes: int
    fits: bool
    rough_s: float


def forecast(plan: SpeedPlan, point: PointRecord) -> Forecast | None:
    """Return what a point is expected to take; None for an architecture without arithmetic."""
    subject = plan.subjects.get(point.model)
    sizes = None if subject is None else subject.sizes
    if subject is None or sizes is None:
        return None
    layout = _layout(point, subject, sizes)
    length = point.prompt_len_tokens + point.gen_len_tokens
    peak_bytes = expected_bytes_of(point, sizes, layout)
    room_bytes = plan.options.budget_bytes or devices.capacity_bytes(plan.device)
    return Forecast(
        weights_bytes=sizes.weights_bytes(point.dtype),
        state_bytes=point.batch_size * sizes.state_bytes(layout, length_tokens=length),
        peak_bytes=peak_bytes,
        fits=peak_bytes <= room_bytes,
        rough_s=_rough_s(plan, point, sizes, layout),
    )


def round_rates(device: str) -> tuple[float, float]:
    """Return operations and bytes a second of machines of a kind, to tell minutes from days."""
    return (_CPU_FLOPS, _CPU_BYTES) if device == "cpu" else (_GPU_FLOPS, _GPU_BYTES)


def _rough_s(plan: SpeedPlan, point: PointRecord, sizes: ModelSizes, layout: StateLayout) -> float:
    if point.model.startswith(FAKE):
        fake = FakeSpec.parse(point.model)
        steps_s = point.gen_len_tokens * fake.step_s(depth_tokens=point.prompt_len_tokens)
        return _LOAD_S + plan.options.repeats * (
            fake.prefill_s(prompt_len_tokens=point.prompt_len_tokens) + steps_s
        )
    flops_per_s, bytes_per_s = round_rates(point.device)
    prefill_s = point.batch_size * sizes.prefill_flops(point.prompt_len_tokens) / flops_per_s
    step_bytes = sizes.decode_bytes(
        layout, point.dtype, batch_size=point.batch_size, depth_tokens=point.prompt_len_tokens
    )
    repeat_s = prefill_s + point.gen_len_tokens * step_bytes / bytes_per_s
    options = plan.options
    timed_s = min(options.repeats * repeat_s, max(options.max_time_s, repeat_s))
    return _LOAD_S + _WARMUP_REPEATS * repeat_s + timed_s


def _layout(point: PointRecord, subject: Subject, sizes: ModelSizes) -> StateLayout:
    """Return who holds the state, as far as it shows before anything is loaded."""
    is_packed = point.attention in ("sdpa", "none")
    if is_packed and point.arm in ("eager", "sampled"):
        return layout_for("mambabench", point.dtype)
    # A graph is over our own steps where mamba_ssm's are not there, or not right. Transformers have none.
    own_graph = is_packed and point.arm == "graph" and bool(sizes.ssm_elements or subject.runs_in_mamba_ssm)
    is_official = subject.runs_in_mamba_ssm and point.device != "cpu" and _is_there("mamba_ssm")
    has_steps = subject.has_right_steps and (not sizes.n_attention_layers or _is_there("flash_attn"))
    if is_official and (has_steps or not own_graph):
        return layout_for("mamba_ssm", point.dtype)
    return layout_for("mambabench" if own_graph else "transformers", point.dtype)


def _is_there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _weights(refs: Sequence[ModelRef], options: SpeedOptions) -> tuple[WeightsKind, list[str]]:
    """Decide on the weights of all models, and say so."""
    if options.weights is not None or not refs:
        return options.weights or "random", []
    absent = [ref for ref in refs if not _weights_are_here(ref)]
    if not absent:
        return "pretrained", ["weights: pretrained, as they are on this machine"]
    fetching = " (`--weights pretrained` fetches them)" if all(ref.path is None for ref in absent) else ""
    names = ", ".join(ref.name for ref in absent[:3]) + (", ..." if len(absent) > 3 else "")
    return "random", [
        f"weights: random with seed {options.seed}, since those of {names} are not on this machine; speed "
        f"and memory hardly depend on them{fetching}"
    ]


def _weights_are_here(ref: ModelRef) -> bool:
    if ref.spec is not None and ref.revision is None:
        return hub.files_on_machine(ref.spec)
    if ref.hub_id is not None:
        return hub.is_on_machine(ref.hub_id, ref.revision)
    if ref.path is None:
        return False
    try:
        inspect_path(ref.path, need_weights=True)
    except CheckpointError:
        # Damaged weights are not absent ones: figures of others would not be asked for.
        if _holds_weights(ref.path):
            raise
        return False
    return True


def _holds_weights(path: Path) -> bool:
    return any(True for pattern in ("*.safetensors", "*.bin") for _ in path.glob(pattern))


def _check_budget(
    options: SpeedOptions, sizes: dict[str, ModelSizes | None], dtype: str, device: str
) -> None:
    budget = options.budget_bytes
    if budget is None:
        return
    if budget > (there := devices.capacity_bytes(device)):
        raise UsageError(
            f"a budget of {size(budget)} is more than the {size(there)} of this {device.partition(':')[0]}",
            hint="Leave `--memory-budget` out to use all there is.",
        )
    needed = {name: s.weights_bytes(dtype) for name, s in sizes.items() if s is not None}
    if too_large := {name: n for name, n in needed.items() if n > budget}:
        name, n_bytes = max(too_large.items(), key=lambda item: item[1])
        raise UsageError(
            f"a budget of {size(budget)} is below the weights of {name}, which take "
            f"{size(n_bytes)} in {dtype}",
            hint="Raise `--memory-budget`, leave the model out, or name a narrower `--dtype`.",
        )


def _subject(ref: ModelRef, located: Located, sizes: ModelSizes | None, fetch: bool) -> Subject:
    files: list[str] = []
    if fetch:
        located = with_weights(located)
        for part in (located.files, located.adapter):
            files += _digests(part)
    return Subject(
        typed=ref.text,
        name=ref.name,
        digest=digest({"config": config_digest(located.config), "files": sorted(files)}),
        sizes=sizes,
        has_attention=sizes is None or sizes.n_attention_layers > 0,
        runs_in_mamba_ssm=sizes is not None and convert.runs_in_mamba_ssm(located.format, located.config),
        has_right_steps=sizes is not None and convert.has_right_steps(located.format, located.config),
    )


def _digests(files: CheckpointFiles | None) -> list[str]:
    if files is None:
        return []
    return [record.sha256 for record in file_records(files.all_files, root=files.directory)]


def _stand_in(text: str) -> Subject:
    """Return what is measured in place of a model: a fake one, or an operation by itself."""
    is_fake = text.startswith(FAKE)
    if not is_fake:
        OpSpec.parse(text)
    sizes = fake_sizes(text) if is_fake else None
    return Subject(text, text, digest({"stand-in": text}), sizes, has_attention=False, is_stand_in=True)
