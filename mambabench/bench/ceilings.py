"""What the machine does at best: a copy and a matrix product, measured on the spot.

What follows for a model, `mambabench.sizes` says.

    record = measure("cpu", "float32", weights_bytes_hint=sizes.weights_bytes("float32"), round=0)
    copied = statistics.median(record.copy_bytes_per_s)
    decode_ceiling_tokens_per_s(sizes, layout, "float32", batch_size=1, depth_tokens=128, bytes_per_s=copied)
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mambabench.bench.sheets import sheet
from mambabench.schema import Record
from mambabench.sizes import ITEMSIZE_BYTES
from mambabench.speed_schema import CeilingsRecord

if TYPE_CHECKING:
    import torch

__all__ = ["measure", "sheet"]

LEAST_BUFFER_BYTES = 512 * 2**20
"""Larger than any cache."""
_LARGEST_SHARE = 8
"""No tensor takes more than one part in so many of the memory that is free."""
_PAGE_BYTES = 4096
_MATMUL_SIZE = {"cpu": 2048, "cuda": 8192}
_SMALLEST_MATMUL = 256
_LONGEST_PRODUCT_S = 0.5
"""A slower product is halved in each dimension, as of a dtype that a CPU only emulates."""
_LEAST_REPEATS = 7
_LEAST_TIME_S = 1.0
_LEAST_REPEAT_S = 0.02
"""Work is repeated inside one timing until it takes so long, so that starting it does not show."""


class Limits(Record):
    """How much is measured."""

    least_repeats: int = _LEAST_REPEATS
    least_time_s: float = _LEAST_TIME_S
    """Of all repeats of one kind together."""
    least_buffer_bytes: int = LEAST_BUFFER_BYTES
    matmul_size: int | None = None
    """Rows and columns of the product; null for what suits the device."""


def measure(
    device: str,
    dtype: str,
    *,
    weights_bytes_hint: int = 0,
    round: int = 0,  # noqa: A002 - named as in the record
    limits: Limits | None = None,
) -> CeilingsRecord:
    """Measure how fast this machine copies and multiplies.

    The copy goes between two buffers of 512 MiB or of the model's weights, whichever is more, and of an
    eighth of the free memory at most; bytes read and bytes written both count. On a CPU all threads that
    torch uses take part.

    Args:
        device: "cpu" or "cuda:0".
        dtype: of the matrix product.
        weights_bytes_hint: of the largest model that will be held against it.
        round: how often a sweep has measured it before.
        limits: how much is measured; by default 7 repeats or more, and a second or more, of each.
    """
    import torch

    from mambabench.models.device import device_name

    limits = limits or Limits()
    load_average = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    place = torch.device(device)
    name = device_name(device)
    free = _free_bytes(place)
    buffer_bytes = _copy_buffer_bytes(free, max(weights_bytes_hint, limits.least_buffer_bytes))
    with torch.inference_mode():
        copies, reads = _copies_and_reads(place, buffer_bytes, limits)
        size, products = _products(place, dtype, free, limits)
    bandwidth, flops = sheet(name, dtype)
    return CeilingsRecord(
        device=device,
        device_name=name,
        dtype=dtype,
        round=round,
        copy_bytes_per_s=tuple(2 * buffer_bytes / seconds for seconds in copies),
        copy_buffer_bytes=buffer_bytes,
        read_bytes_per_s=tuple(2 * buffer_bytes / seconds for seconds in reads),
        matmul_flops_per_s=tuple(2 * size**3 / seconds for seconds in products),
        matmul_shape=(size, size, size),
        sheet_bytes_per_s=bandwidth,
        sheet_flops_per_s=flops,
        load_average=load_average,
        made_utc=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _free_bytes(place: torch.device) -> int:
    if place.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(place)[0])
    import psutil

    return int(psutil.virtual_memory().available)


def _copy_buffer_bytes(free_bytes: int, wanted_bytes: int) -> int:
    """Return the size of each of two buffers, whole pages."""
    size = min(wanted_bytes, free_bytes // _LARGEST_SHARE)
    return max(size // _PAGE_BYTES, 1) * _PAGE_BYTES


def _copies_and_reads(
    place: torch.device, buffer_bytes: int, limits: Limits
) -> tuple[list[float], list[float]]:
    """Return the seconds of each copy of a buffer, and of each time that both are read."""
    import torch

    # Numbers of four bytes: torch copies single bytes on some CPUs more slowly. Ones, since pages of
    # zeros that were never written share one page.
    source = torch.ones(buffer_bytes // 4, dtype=torch.float32, device=place)
    target = torch.ones_like(source)
    copies = _repeated(lambda: target.copy_(source), place, limits)
    return copies, _repeated(lambda: torch.dot(source, target), place, limits)


def _products(place: torch.device, dtype: str, free_bytes: int, limits: Limits) -> tuple[int, list[float]]:
    """Return the size of the product and the seconds of each."""
    import torch

    size = limits.matmul_size or _MATMUL_SIZE[place.type]
    while size > _SMALLEST_MATMUL and size**2 * ITEMSIZE_BYTES[dtype] > free_bytes // _LARGEST_SHARE:
        size //= 2
    while True:
        made = torch.Generator(device=place).manual_seed(0)
        a, b = (
            torch.randn((size, size), generator=made, device=place).to(getattr(torch, dtype)) for _ in "ab"
        )
        out = torch.empty_like(a)
        multiply = _product(a, b, out)
        multiply()
        once = _timed(multiply, place, 1)
        if once <= _LONGEST_PRODUCT_S or size <= _SMALLEST_MATMUL:
            return size, _repeated(multiply, place, limits)
        size //= 2


def _product(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> Callable[[], object]:
    import torch

    return lambda: torch.mm(a, b, out=out)


def _repeated(work: Callable[[], object], place: torch.device, limits: Limits) -> list[float]:
    """Return the seconds of one piece of work, in each of as many repeats as the limits ask for."""
    work()
    times = max(1, math.ceil(_LEAST_REPEAT_S / max(_timed(work, place, 1), 1e-6)))
    found: list[float] = []
    total = 0.0
    while len(found) < limits.least_repeats or total < limits.least_time_s:
        seconds = _timed(work, place, times)
        total += seconds
        found.append(seconds / times)
    return found


def _timed(work: Callable[[], object], place: torch.device, times: int) -> float:
    """Return the seconds of `times` pieces of work together, until the device has finished."""
    _wait(place)
    begun = time.perf_counter()
    for _ in range(times):
        work()
    _wait(place)
    return time.perf_counter() - begun


def _wait(place: torch.device) -> None:
    if place.type == "cuda":
        import torch

        torch.cuda.synchronize(place)
