"""The execution of PTX on a CPU: instructions by themselves, and races that are there and found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ptx.machine import encoded
from ptx.program import Program
from ptx.text import parsed

HEAD = """
.version 8.0
.target sm_80
.extern .shared .align 16 .b8 memory[];
.visible .entry kernel(.param .u64 .ptr .global .align 1 kernel_param_0, .param .u64 kernel_param_1)
{
    .reg .b32 %r<9>; .reg .b64 %rd<9>; .reg .pred %p<3>; // a comment; of two parts
    ld.param.b64 %rd1, [kernel_param_0];
    mov.u32 %r1, %tid.x;
    mov.u32 %r2, %ctaid.x;
    mov.b32 %r7, memory;
"""
BETWEEN_WARPS = """
    shl.b32 %r3, %r1, 2;
    add.s32 %r3, %r3, %r7;
    st.shared.b32 [%r3], %r1;
    {sync}
    xor.b32 %r4, %r1, {other};
    shl.b32 %r4, %r4, 2;
    ld.shared.b32 %r5, [%r4];
    mul.wide.u32 %rd2, %r1, 4;
    add.s64 %rd3, %rd1, %rd2;
    st.global.b32 [%rd3], {{ %r5 }};
"""
BETWEEN_PROGRAMS = """
    shl.b32 %r3, %r2, 6;
    mad.lo.s32 %r3, %r1, {apart}, %r3;
    mul.wide.s32 %rd2, %r3, 4;
    add.s64 %rd3, %rd1, %rd2;
    st.global.b32 [%rd3], %r2;
"""
IN_PLACE = """
    mul.wide.u32 %rd2, %r1, 4;
    add.s64 %rd3, %rd1, %rd2;
    ld.global.b32 %r5, [%rd3];
    {sync}
    xor.b32 %r4, %r1, {other};
    mul.wide.u32 %rd2, %r4, 4;
    add.s64 %rd3, %rd1, %rd2;
    st.global.b32 [%rd3], %r5;
"""
few = settings(max_examples=25, deadline=None)
words = st.integers(0, (1 << 32) - 1)


def kernel(body: str) -> str:
    return HEAD + body + "    ret;\n}\n"


def launched(body: str, out: Any, grid: int = 1, **options: bool) -> set[str]:
    return Program(kernel(body), n_warps=2).launch([out.ctypes.data], (grid,), 256, **options)


def result(instructions: str, kind: Any = np.uint32) -> Any:
    """Return what each of 64 threads left in %r8."""
    out = np.zeros(64, np.uint32)
    store = "mul.wide.u32 %rd2, %r1, 4; add.s64 %rd3, %rd1, %rd2; st.global.b32 [%rd3], %r8;"
    assert launched(f"{instructions}\n{store}\n", out) == set()
    return out.view(kind)


@pytest.mark.parametrize(
    ("sync", "other", "races"), [("bar.sync 0;", 32, False), ("", 32, True), ("", 1, False)]
)
def test_warps_that_need_a_barrier(sync: str, other: int, races: bool) -> None:
    out = np.zeros(64, np.uint32)
    body = BETWEEN_WARPS.format(sync=sync, other=other)
    assert launched(body, out) == (
        {"kernel: a warp reads shared memory that another one writes"} if races else set()
    )
    if not races:
        assert np.array_equal(out, np.arange(64) ^ other)


def test_a_barrier_that_is_there_is_needed() -> None:
    body = BETWEEN_WARPS.format(sync="bar.sync 0;", other=32)
    assert launched(body, np.zeros(64, np.uint32), keeps_barriers=False)


@pytest.mark.parametrize(
    ("sync", "other", "races"), [("bar.sync 0;", 63, False), ("", 63, True), ("", 31, False)]
)
def test_what_lies_in_place_is_read_before_it_is_written(sync: str, other: int, races: bool) -> None:
    out = np.arange(64, dtype=np.uint32)
    found = launched(IN_PLACE.format(sync=sync, other=other), out)
    assert found == (
        {"kernel: a warp writes global memory that another one reads or writes"} if races else set()
    )


@pytest.mark.parametrize(("apart", "races"), [(1, False), (2, True)])
def test_programs_that_write_to_one_place(apart: int, races: bool) -> None:
    # Of the second one's 64 numbers, every other is where the first one has its own.
    body, outs = BETWEEN_PROGRAMS.format(apart=apart), np.zeros((2, 256), np.uint32)
    words = "kernel: a program writes global memory that another one reads or writes"
    for out, is_reversed in zip(outs, (False, True), strict=True):
        assert launched(body, out, 2, is_reversed=is_reversed) == ({words} if races else set())
    # Who comes last is seen.
    assert np.array_equal(*outs) is not races


def test_several_warps_may_write_the_same_number_only() -> None:
    same = "mov.b32 %r3, 5;\n st.shared.b32 [0], %r3;"
    assert launched(same, np.zeros(64, np.uint32)) == set()
    own = "shr.u32 %r3, %r1, 5;\n st.shared.b32 [0], %r3;"
    assert launched(own, np.zeros(64, np.uint32)) == {
        "kernel: a warp writes shared memory that another one writes"
    }
    late = "setp.lt.u32 %p1, %r1, 32;\n @%p1 ld.shared.b32 %r3, [0];\n @!%p1 st.shared.b32 [0], %r1;"
    assert launched(late, np.zeros(64, np.uint32)) == {
        "kernel: a warp writes shared memory that another one reads"
    }


def test_a_loop_goes_on_while_its_threads_say() -> None:
    body = """mov.b32 %r3, 0; mov.b32 %r8, 0;
    $L_again:
    add.s32 %r8, %r8, %r1;
    add.s32 %r3, %r3, 1;
    setp.lt.s32 %p1, %r3, 5;
    @%p1 bra $L_again;"""
    assert np.array_equal(result(body), 5 * np.arange(64))


@few
@given(words, words)
def test_integers(a: int, b: int) -> None:
    signed = [x - (1 << 32) if x >> 31 else x for x in (a, b)]
    operations = {
        "add.s32": a + b, "sub.s32": a - b, "mul.lo.s32": a * b, "min.s32": min(signed), "max.u32": max(a, b),
        "mul.hi.u32": (a * b) >> 32, "mul.hi.s32": (signed[0] * signed[1]) >> 32,
        "and.b32": a & b, "or.b32": a | b, "xor.b32": a ^ b,
    }  # fmt: skip
    if b:
        whole = abs(signed[0]) // abs(signed[1])
        operations["div.s32"] = -whole if (signed[0] < 0) != (signed[1] < 0) else whole
        operations["rem.u32"] = a % b
    for name, want in operations.items():
        assert set(result(f"{name} %r8, {a}, {b};")) == {want % (1 << 32)}, name
    shift = b % 40
    assert set(result(f"shl.b32 %r8, {a}, {shift};")) == {(a << shift) % (1 << 32)}
    assert set(result(f"shr.u32 %r8, {a}, {shift};")) == {a >> shift}
    assert set(result(f"shr.s32 %r8, {a}, {shift};")) == {(signed[0] >> shift) % (1 << 32)}
    first, length = b % 20, 1 + b % 12
    field = (a >> first) & ((1 << length) - 1)
    assert set(result(f"bfe.u32 %r8, {a}, {first}, {length};")) == {field}
    sign = (field >> (length - 1)) << length
    assert set(result(f"bfe.s32 %r8, {a}, {first}, {length};")) == {(field - sign) % (1 << 32)}
    chosen = [(a | b << 32) >> 8 * (b >> 4 * i & 7) & 255 for i in range(4)]
    both = sum(byte << 8 * i for i, byte in enumerate(chosen))
    assert set(result(f"prmt.b32 %r8, {a}, {b}, 0x{b & 0x7777:x}U;")) == {both}


def test_lanes_give_each_other_numbers() -> None:
    lane = np.arange(64) % 32
    for mode, by, ends, source in (
        ("bfly", 4, 31, lane ^ 4),
        ("up", 3, 0, np.where(lane < 3, lane, lane - 3)),
        ("down", 3, 31, np.where(lane > 28, lane, lane + 3)),
        ("idx", 7, 31, np.full(64, 7)),
    ):
        got = result(f"shfl.sync.{mode}.b32 %r8, %r1, {by}, {ends}, -1;")
        assert np.array_equal(got, np.arange(64) - lane + source)


def test_numbers_of_16_bits_are_rounded_to_even() -> None:
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(0).integers(0, 1 << 32, 4096, dtype=np.uint32).view(np.float32)
    exact = torch.from_numpy(values[np.isfinite(values)])
    for kind, dtype in (("bf16", torch.bfloat16), ("f16", torch.float16)):
        with np.errstate(over="ignore"):
            got = encoded(exact.numpy(), kind)
        assert np.array_equal(got.view(np.int16), exact.to(dtype).view(torch.int16).numpy())


def test_a_sum_of_a_product_is_rounded_once() -> None:
    # (1 + 2**-12)**2 - 1: its last bit is lost where the product is rounded first.
    got = result("fma.rn.f32 %r8, 0f3F800800, 0f3F800800, 0fBF800000;", np.float32)
    assert set(got) == {np.float32(2**-11 + 2**-24)}
    assert set(result("mov.b32 %r8, 0f7FC00000; setp.ne.f32 %p1, %r8, %r8; selp.b32 %r8, 1, 0, %p1;")) == {0}
    assert set(result("mov.b32 %r8, 0f7FC00000; setp.neu.f32 %p1, %r8, %r8; selp.b32 %r8, 1, 0, %p1;")) == {1}


@pytest.mark.parametrize(
    ("line", "words_"),
    [
        ("st.shared.b32 [1], %r1;", "not aligned"),
        ("st.shared.b32 [256], %r1;", "outside of shared memory"),
        ("setp.lt.u32 %p1, %r1, 3;\n @%p1 ret;", "only some threads jump"),
        ("cp.async.wait_group 0;", "not known: cp.async.wait_group 0"),
        ("bar.sync 1, 32;", "not known: bar.sync 1, 32"),
        ("atom.global.add.u32 %r3, [%rd1], 1;", "not known: atom"),
    ],
)
def test_what_cannot_be_executed_is_named(line: str, words_: str) -> None:
    with pytest.raises(ValueError, match=words_.replace("[", r"\[")):
        launched(line, np.zeros(64, np.uint32))


def test_text_is_taken_apart() -> None:
    found = parsed(kernel("{ .reg .b32 own; @!%p1 mov.b32 {%r3, %r4}, %rd1; }\n$L_end:\n"))
    assert found.name == "kernel"
    assert found.parameters == ("kernel_param_0", "kernel_param_1")
    move = found.statements[4]
    assert (move.operation, move.operands) == (("mov", "b32"), ("{%r3, %r4}", "%rd1"))
    assert (move.condition, move.is_negated) == ("%p1", True)
    assert found.labels == {"$L_end": 5}
    assert found.statements[3].operands == ("%r7", "0")
