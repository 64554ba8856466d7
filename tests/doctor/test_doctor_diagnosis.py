"""What it all comes to: paths, exit codes, JSON and the page, on made-up machines."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import pytest
from doctor_machines import BUILT, GPU_TORCH, LIBRARIES, gpu_machine, machine

from mambabench.doctor.children import Answer
from mambabench.doctor.diagnose import diagnose
from mambabench.doctor.facts import Probes
from mambabench.doctor.finding import CHECKS, PATHS, Diagnosis, KernelFinding, ModelFinding
from mambabench.doctor.remedies import BUILD_NOTES
from mambabench.doctor.terminal import _kernels, render

RIGHT = KernelFinding("cpu", "a kernel", "3 tokens", "float32", passed=True, ratio=1.0, rms_error=1e-8)
WRONG = KernelFinding(
    "cpu", "a kernel", "3 tokens", "float32", passed=False, ratio=1e5, rms_error=0.0123, max_error=0.5,
    torch_rms_error=1e-7, detail="output errs by 0.012 (at most 0.5)",
)  # fmt: skip
MODEL = ModelFinding("mamba-tiny", "cpu", "float32", passed=True, detail="certified: x", ratio=0.9)


def tried(job: dict[str, Any], **outcomes: Any) -> Answer:
    """Answer for kernels and models: all right, but for the outcomes given by path."""
    done = {"event": "done"}
    if job["do"] == "model":
        finding = outcomes.get(f"{job['path']}_model", MODEL)
        return Answer(({"event": "model", "finding": asdict(finding) | {"path": job["path"]}}, done), "ok")
    outcome = outcomes.get(job["path"], RIGHT)
    if isinstance(outcome, str):
        return Answer(({"event": "unusable", "reason": outcome}, done), "ok")
    loops = {"event": "loops", "kept": True}
    measured = {"event": "measured", "finding": asdict(outcome) | {"path": job["path"]}}
    begun = {"event": "case", "kernel": outcome.kernel, "shape": outcome.shape, "dtype": outcome.dtype}
    return Answer((loops, begun, measured, done), "ok")


def diagnosis(probes: Probes, asked: Sequence[str] = (), *, quick: bool = False) -> Diagnosis:
    return diagnose(asked=asked, quick=quick, probes=probes, stage=lambda text: None)


def page(found: Diagnosis) -> str:
    out = io.StringIO()
    render(found, out)
    return out.getvalue()


def usable(found: Diagnosis) -> set[str]:
    return {path.path for path in found.paths if path.usable}


def test_a_machine_without_a_gpu_is_a_machine_on_which_all_is_well() -> None:
    found = diagnosis(machine(kernels=tried))
    assert found.exit_code == 0
    assert usable(found) == {"cpu"}
    assert [path.path for path in found.paths] == list(PATHS)
    assert {k.path for k in found.kernels} == {"cpu"}
    assert found.models[0].path == "cpu"
    assert found.notes == ()
    text = page(found)
    assert "No NVIDIA GPU: nothing about CUDA is needed here" in text
    assert "FAIL" not in text
    assert "Usable here: cpu." in text
    # Compilers are of no interest here.
    assert "CUDA compiler" not in text


def test_a_machine_with_a_gpu_has_all_paths_but_flash() -> None:
    found = diagnosis(gpu_machine(kernels=tried))
    assert found.exit_code == 0
    assert usable(found) == {"cpu", "official", "triton"}
    assert {(model.path) for model in found.models} == {"cpu", "official", "triton"}
    assert "flash-attn is not installed" in page(found)


@pytest.mark.parametrize("path", ["official", "triton", "flash"])
def test_a_path_that_is_asked_for_and_not_there_is_exit_code_4(path: str) -> None:
    found = diagnosis(machine(kernels=tried), [path], quick=True)
    assert found.exit_code == 4
    (asked,) = [p for p in found.paths if p.asked]
    assert "no NVIDIA GPU" in asked.reason
    assert "--device cpu" in asked.reason
    assert f"Not usable here, though asked for: {path}." in page(found)


def test_the_reason_and_the_command_of_a_path_that_lacks_something() -> None:
    found = diagnosis(gpu_machine(versions=LIBRARIES, kernels=tried), ["official"])
    assert found.exit_code == 4
    (asked,) = [p for p in found.paths if p.asked]
    assert asked.reason == "mamba-ssm is not installed"
    assert "--no-build-isolation" in asked.remedy
    text = page(found)
    assert asked.remedy in text
    assert all(note in text for note in BUILD_NOTES)
    assert diagnosis(gpu_machine(kernels=tried), ["official"]).notes == ()


def test_only_the_kernels_of_paths_asked_for_are_tried() -> None:
    found = diagnosis(gpu_machine(kernels=tried), ["official"])
    assert {k.path for k in found.kernels} == {"official"}
    assert found.exit_code == 0
    reasons = {path.path: path.reason for path in found.paths}
    assert "not tried" in reasons["cpu"]
    assert "all 1 kernels agree" in reasons["official"]


def test_quick_tries_none() -> None:
    def never(job: dict[str, Any]) -> Answer:
        raise AssertionError(job)

    found = diagnosis(gpu_machine(kernels=never), quick=True)
    assert found.kernels == ()
    assert found.models == ()
    assert found.exit_code == 0
    assert "Kernels were not tried." in page(found)


def test_a_wrong_kernel_is_exit_code_1_or_4_where_its_path_is_asked_for() -> None:
    probes = machine(kernels=lambda job: tried(job, cpu=WRONG))
    found = diagnosis(probes)
    assert found.exit_code == 1
    assert found.models == ()
    text = page(found)
    assert "FAIL" in text
    assert "output errs by 0.012" in text
    assert "1.2e-02" in text
    assert "do not believe its figures" in text
    asked = diagnosis(probes, ["cpu"])
    assert asked.exit_code == 4
    assert "1 of 1 kernels fail, first a kernel" in page(asked)


def test_a_triton_that_computes_wrongly_keeps_our_kernels_alone_from_being_tried() -> None:
    probes = gpu_machine(versions=LIBRARIES | {"triton": "3.2.0"} | BUILT, kernels=tried)
    found = diagnosis(probes)
    assert found.exit_code == 0
    assert usable(found) == {"cpu", "official"}
    asked = diagnosis(probes, ["triton"])
    assert asked.exit_code == 4
    (path,) = [path for path in asked.paths if path.asked]
    assert path.reason == "triton 3.2.0 computes Mamba-2's scan wrongly"
    assert path.remedy.startswith("pip install --upgrade --force-reinstall torch --index-url")
    assert any(f.check == "triton" and "Not for our kernels" in f.why for f in asked.findings)


def test_a_wrong_model_is_as_bad_as_a_wrong_kernel() -> None:
    wrong = ModelFinding("mamba-tiny", "cpu", "float32", passed=False, detail="errs 7 times as much")
    probes = machine(kernels=lambda job: tried(job, cpu_model=wrong))
    assert diagnosis(probes).exit_code == 1
    assert diagnosis(probes, ["cpu"]).exit_code == 4
    assert "errs 7 times as much" in page(diagnosis(probes))


def test_kernels_that_cannot_run_at_all_are_no_wrong_ones() -> None:
    reason = "the scan kernels for a GPU cannot run: triton finds no C compiler"
    probes = gpu_machine(kernels=lambda job: tried(job, triton=reason))
    assert diagnosis(probes).exit_code == 0
    found = diagnosis(probes, ["triton"])
    assert found.exit_code == 4
    assert reason in page(found)


def test_kernels_compiled_for_another_gpu_get_the_command_that_builds_them_again() -> None:
    refused = KernelFinding(
        "official", "selective_scan_fn", "s", "float16", passed=False,
        detail="RuntimeError: CUDA error: no kernel image is available for execution on the device",
    )  # fmt: skip
    found = diagnosis(gpu_machine(kernels=lambda job: tried(job, official=refused)), ["official"])
    (asked,) = [p for p in found.paths if p.asked]
    assert "compiled for other GPUs" in asked.reason
    assert "MAMBA_FORCE_BUILD=TRUE pip install --no-build-isolation --no-cache-dir" in asked.remedy


def test_flash_attention_needs_an_ampere_card() -> None:
    old = GPU_TORCH | {"devices": [{"name": "T4", "capability": "7.5", "memory_bytes": 16 * 10**9}]}
    versions = LIBRARIES | {"flash-attn": "2.8.0"}
    found = diagnosis(gpu_machine(versions=versions, torch=old, kernels=tried), ["flash"])
    (asked,) = [p for p in found.paths if p.asked]
    assert not asked.usable
    assert "this one has 7.5" in asked.reason


def test_what_every_command_needs_and_lacks_is_exit_code_4() -> None:
    found = diagnosis(machine(errors={"torch": "ImportError: undefined symbol: x"}, kernels=tried))
    assert found.exit_code == 4
    assert usable(found) == set()
    assert "Not usable: PyTorch." in page(found)


def test_loops_that_do_not_compile_make_the_path_unusable() -> None:
    def dies(job: dict[str, Any]) -> Answer:
        return Answer((), "crashed", "ended by SIGILL")

    found = diagnosis(machine(kernels=dies), ["cpu"])
    assert found.exit_code == 4
    by_check = {f.check: f for f in found.findings}
    assert by_check["loops"].verdict == "broken"
    assert "SIGILL" in by_check["loops"].why


def test_loops_are_compiled_ahead_only_where_kernels_of_the_processor_are_tried() -> None:
    done: list[str] = []

    def probes() -> Probes:
        done.clear()
        return replace(
            gpu_machine(kernels=tried),
            is_compiled=lambda: False,
            compile_ahead=lambda: done.append("ahead"),
            wait_for=lambda part, time_limit_s: done.append(part),
        )

    found = diagnosis(probes())
    assert done == ["ahead", "mamba", "mamba2", "program"]
    assert {f.check: f.seen for f in found.findings}["loops"] == "compiled now, and kept"
    found = diagnosis(probes(), quick=True)
    assert done == []
    assert {f.check: f.seen for f in found.findings}["loops"] == "not compiled yet"
    diagnosis(probes(), ["official"])
    assert done == []


def test_json_holds_everything_and_nothing_else() -> None:
    found = diagnosis(machine(kernels=lambda job: tried(job, cpu=WRONG)))
    data = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert data["exit_code"] == 1
    assert [f["check"] for f in data["findings"]] == list(CHECKS)
    assert data["kernels"][0]["rms_error"] == 0.0123
    assert {p["path"] for p in data["paths"]} == set(PATHS)
    assert all(f["title"] and f["group"] for f in data["findings"])


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_columns_that_have_no_room_are_left_out_and_named(width: int) -> None:
    from rich.console import Console

    out = io.StringIO()
    console = Console(file=out, width=width)
    kernel = replace(RIGHT, shape="64 + 1 + 17 tokens, 96 x 16, from states", kernel="Mamba-2 scan of a step")
    _kernels(console, [replace(kernel, torch_rms_error=2e-8, max_error=3e-7, time_s=0.004), WRONG])
    lines = out.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    head = lines[0]
    assert " ms" in head or width < 200
    assert " ms" not in head or width > 100
    assert "ratio" in head
    assert ("No room for" in out.getvalue()) is (" ms" not in head)
    assert "1.0e-08" in out.getvalue()
    assert "FAIL" in out.getvalue()


def test_texts_of_the_machine_cannot_steer_the_terminal() -> None:
    probes = machine(errors={"numba": "ImportError: \x1b[31mred\nnext"}, kernels=tried)
    text = page(diagnosis(probes, quick=True))
    assert "\x1b" not in text
    assert "\\x1b[31mred next" in text
