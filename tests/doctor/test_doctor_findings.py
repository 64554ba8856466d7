"""What is missing or broken is named with the command that helps, on made-up machines with real messages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from doctor_machines import (
    BUILT,
    CARD,
    CPU_TORCH,
    GPU_TORCH,
    LIBRARIES,
    NO_NVML,
    NVML,
    commands,
    gpu_machine,
    looked_at,
    machine,
)

from mambabench.doctor.children import Answer
from mambabench.doctor.extensions import meaning, runs_on
from mambabench.doctor.facts import Probes, has_headers
from mambabench.doctor.finding import CHECKS, Finding
from mambabench.doctor.gpu import judge_building, judge_gpu
from mambabench.doctor.libraries import judge_libraries
from mambabench.doctor.machine import judge_machine, judge_offline
from mambabench.doctor.remedies import wheel_name


def found(probes: Probes) -> dict[str, Finding]:
    facts = looked_at(probes)
    findings = [
        *judge_libraries(facts), *judge_gpu(facts), *judge_building(facts),
        *judge_machine(facts, {"compiled_before": True}), *judge_offline(facts),
    ]  # fmt: skip
    assert [finding.check for finding in findings] == list(CHECKS)
    for finding in findings:
        if finding.verdict in ("missing", "broken"):
            assert finding.why, finding
            assert finding.remedy, finding
    return {finding.check: finding for finding in findings}


def test_without_a_gpu_nothing_about_cuda_is_a_mistake() -> None:
    findings = found(machine())
    for check in ("driver", "gpus", "torch-cuda", "architectures", "nvcc", "compiler", "ninja", "mamba-ssm",
                  "causal-conv1d", "flash-attn", "triton"):  # fmt: skip
        assert findings[check].verdict == "not needed", findings[check]
        assert findings[check].remedy == ""
    for check in ("python", "torch", "transformers", "lm-eval", "numba"):
        assert findings[check].verdict == "ok"
    assert "CPU path is fine" in findings["driver"].why
    assert "without CUDA" in findings["torch"].seen
    assert "C++11 ABI" in findings["torch"].seen


def test_a_torch_with_cuda_on_a_machine_without_a_gpu_is_no_mistake() -> None:
    torch = GPU_TORCH | {"devices": [], "available": False}
    findings = found(machine(torch=torch, versions=LIBRARIES))
    assert findings["torch-cuda"].verdict == "not needed"
    assert findings["mamba-ssm"].verdict == "not needed"


def test_kernels_that_are_installed_without_a_gpu_are_said_to_be_kept_away() -> None:
    findings = found(machine(versions=LIBRARIES | BUILT, errors={"selective_scan_cuda": "ImportError: no"}))
    assert findings["mamba-ssm"].verdict == "not needed"
    assert "when it is imported, without a look at the device" in findings["mamba-ssm"].why


def test_a_gpu_machine_on_which_all_is_well() -> None:
    findings = found(gpu_machine())
    wrong = {check: f for check, f in findings.items() if f.verdict in ("missing", "broken", "unknown")}
    assert set(wrong) <= {"memory", "disk", "threads"}
    assert findings["nvcc"].seen == "12.6, /usr/local/cuda/bin/nvcc"
    assert "compute capability 8.9" in findings["gpus"].seen
    assert findings["driver"].seen == "560.35.03, for CUDA up to 12.6"
    assert "mamba-ssm: sm_80 sm_90" in findings["architectures"].seen
    assert findings["flash-attn"].verdict == "not needed"


REAL_MESSAGES = [
    (
        "ImportError: /s/selective_scan_cuda.cpython-311-x86_64-linux-gnu.so: undefined symbol: "
        "_ZN3c107WarningC1ESt7variantIJNS0_11UserWarningENS0_18DeprecationWarningEEERKNS_14SourceLocationE",
        "another PyTorch, or another C++ ABI", "MAMBA_FORCE_BUILD=TRUE",
    ),
    (
        "ModuleNotFoundError: No module named 'selective_scan_cuda'",
        "without its CUDA code", "--no-build-isolation",
    ),
    (
        "ImportError: libcudart.so.11.0: cannot open shared object file: No such file or directory",
        "compiled for CUDA 11", "--no-cache-dir",
    ),
    (
        "ImportError: libc10_cuda.so: cannot open shared object file: No such file or directory",
        "needs a PyTorch with CUDA", "whl/cu126",
    ),
    (
        "ImportError: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.32' not found (required by /s/x.so)",
        "newer system", "MAMBA_FORCE_BUILD=TRUE",
    ),
    ("ModuleNotFoundError: No module named 'tilelang'", "from 2.3.2 on needs tilelang", "mamba-ssm==2.3.1"),
    ("ModuleNotFoundError: No module named 'einops'", "it needs einops", "pip install einops"),
    (
        "ImportError: cannot import name 'GreedySearchDecoderOnlyOutput' from 'transformers.generation' (/t)",
        "older than this transformers", "mamba-ssm==2.3.1",
    ),
    ("OSError: something nobody has seen", "something nobody has seen", "mamba-ssm==2.3.1"),
]  # fmt: skip


@pytest.mark.parametrize(("message", "words", "remedy"), REAL_MESSAGES, ids=lambda text: text[:40])
def test_an_import_that_fails_is_explained(message: str, words: str, remedy: str) -> None:
    module = "selective_scan_cuda" if ".so" in message or "selective" in message else "mamba_ssm"
    finding = found(gpu_machine(errors={module: message}))["mamba-ssm"]
    assert finding.verdict == "broken"
    assert words in finding.why
    assert remedy in finding.remedy


def test_an_import_that_crashes_is_a_finding_and_the_rest_is_still_imported() -> None:
    findings = found(gpu_machine(dies_at="selective_scan_cuda"))
    assert findings["mamba-ssm"].verdict == "broken"
    # What the package itself does after that is not tried.
    assert "importing selective_scan_cuda ended by SIGSEGV" in findings["mamba-ssm"].why
    assert findings["causal-conv1d"].verdict == "ok"
    findings = found(machine(dies_at="numba"))
    assert findings["numba"].verdict == "broken"
    assert findings["transformers"].verdict == "ok"
    assert findings["torch"].verdict == "ok"


def test_a_torch_that_does_not_import_is_broken_and_nothing_is_tried_with_it() -> None:
    findings = found(
        gpu_machine(errors={"torch": "OSError: libcublas.so.12: cannot open shared object file"})
    )
    assert findings["torch"].verdict == "broken"
    assert findings["torch"].remedy == "pip install --force-reinstall torch==2.8.0+cu126"
    assert findings["torch-cuda"].verdict == "unknown"


@pytest.mark.parametrize(
    ("package", "version", "verdict"),
    [
        ("lm-eval", "0.4.13", "ok"), ("lm-eval", "0.4.12", "broken"), ("lm-eval", "0.5.0", "broken"),
        ("transformers", "4.50.0", "broken"), ("numba", "0.60.0", "ok"), ("torch", "2.5.1", "broken"),
    ],
)  # fmt: skip
def test_versions_are_held_against_what_is_supported(package: str, version: str, verdict: str) -> None:
    finding = found(machine(versions=LIBRARIES | {package: version}))[package]
    assert finding.verdict == verdict
    if verdict == "broken":
        assert package in finding.remedy
        assert ">=" in finding.remedy


def test_what_every_command_needs_and_is_absent_is_missing() -> None:
    versions = {k: v for k, v in LIBRARIES.items() if k != "lm-eval"}
    finding = found(machine(versions=versions))["lm-eval"]
    assert (finding.verdict, finding.remedy) == ("missing", "pip install 'lm-eval>=0.4.13,<0.5'")
    assert found(machine(python=(3, 10)))["python"].verdict == "broken"


def test_official_kernels_that_are_absent_on_a_gpu_machine_come_with_the_wheels_name() -> None:
    finding = found(gpu_machine(versions=LIBRARIES))["mamba-ssm"]
    assert finding.verdict == "missing"
    assert "mamba_ssm-VERSION+cu12torch2.8cxx11abiTRUE-cp311-cp311-linux_x86_64.whl" in finding.why
    assert finding.remedy.endswith("pip install --no-build-isolation mamba-ssm==2.3.1")
    facts = looked_at(gpu_machine())
    assert wheel_name("causal-conv1d", "1.7.0", facts) == (
        "causal_conv1d-1.7.0+cu12torch2.8cxx11abiTRUE-cp311-cp311-linux_x86_64.whl"
    )
    assert wheel_name("mamba-ssm", "2.3.1", looked_at(machine())) == ""


@pytest.mark.parametrize(
    ("error", "words", "remedy"),
    [
        ("NVMLError_LibraryNotFound", "no driver", "nvidia-driver"),
        ("NVMLError_DriverNotLoaded", "not loaded", "modprobe nvidia"),
        ("NVMLError_NoPermission", "may not ask", "usermod"),
        ("NVMLError_LibRmVersionMismatch", "the old one is still loaded", "reboot"),
        ("NVMLError_Unknown", "NVMLError_Unknown: strange", "nvidia-smi"),
    ],
)
def test_a_driver_that_does_not_answer_is_explained(error: str, words: str, remedy: str) -> None:
    nvml = {"error": error, "detail": "strange"}
    findings = found(gpu_machine(nvml=nvml, torch=GPU_TORCH | {"devices": []}))
    assert findings["driver"].verdict == "broken"
    assert words in findings["driver"].why
    assert remedy in findings["driver"].remedy
    assert findings["gpus"].verdict == "broken"


def test_a_driver_too_old_for_torch_gets_a_torch_for_it() -> None:
    torch = GPU_TORCH | {
        "cuda": "13.0", "devices": [],
        "warnings": ["CUDA initialization: The NVIDIA driver on your system is too old (version 12060)"],
    }  # fmt: skip
    findings = found(gpu_machine(torch=torch))
    assert findings["driver"].verdict == "broken"
    assert "CUDA 12" in findings["driver"].why
    assert findings["driver"].remedy.endswith("torch --index-url https://download.pytorch.org/whl/cu126")
    assert "older than its CUDA needs" in findings["torch-cuda"].why
    # Within a major version a driver runs what is newer than itself.
    assert found(gpu_machine(torch=GPU_TORCH | {"cuda": "12.9"}))["driver"].verdict == "ok"


def test_a_torch_without_cuda_beside_a_gpu_is_missing_it() -> None:
    findings = found(gpu_machine(torch=CPU_TORCH, nvml=NVML | {"cuda_driver": 13000}))
    assert findings["torch-cuda"].verdict == "missing"
    assert findings["torch-cuda"].remedy.endswith("whl/cu130")


def test_hidden_gpus_are_said_to_be_hidden() -> None:
    findings = found(gpu_machine(torch=GPU_TORCH | {"devices": []}, environ={"CUDA_VISIBLE_DEVICES": ""}))
    assert findings["torch-cuda"].remedy == "unset CUDA_VISIBLE_DEVICES"


@pytest.mark.parametrize(
    ("cuda", "words"),
    [
        ({"n_devices": 1, "errors": {"0": "RuntimeError: CUDA error: no kernel image is available for "
                                          "execution on the device"}}, "compiled for other GPUs"),
        (Answer((), "crashed", "ended by SIGSEGV"), "ended by SIGSEGV"),
        (Answer((), "timeout", "ended by its time limit after 90.0 s"), "time limit"),
    ],
)  # fmt: skip
def test_a_gpu_that_does_not_compute_is_found(cuda: Any, words: str) -> None:
    finding = found(gpu_machine(cuda=cuda))["torch-cuda"]
    assert finding.verdict == "broken"
    assert words in finding.why


def test_mig_is_named_and_needs_an_instance() -> None:
    divided = CARD | {"mig": True, "mig_instances": 2}
    finding = found(gpu_machine(nvml=NVML | {"gpus": [divided]}))["gpus"]
    assert finding.verdict == "ok"
    assert "divided by MIG into 2" in finding.seen
    finding = found(gpu_machine(nvml=NVML | {"gpus": [divided | {"mig_instances": 0}]}))["gpus"]
    assert (finding.verdict, finding.remedy) == ("broken", "nvidia-smi mig -cgi 0 -C")


def test_nvcc_must_be_of_torchs_cuda_major() -> None:
    old = "Cuda compilation tools, release 11.8, V11.8.89"
    finding = found(gpu_machine(run=commands(nvcc_V=old)))["nvcc"]
    assert finding.verdict == "broken"
    assert "major versions must be the same" in finding.why
    assert finding.remedy == "apt-get install cuda-toolkit-12-6 && export CUDA_HOME=/usr/local/cuda-12.6"
    there = ["/usr/local/cuda-11.8", "/usr/local/cuda-12.4"]
    finding = found(gpu_machine(run=commands(nvcc_V=old), toolkits=there))["nvcc"]
    assert finding.remedy == "export CUDA_HOME=/usr/local/cuda-12.4"


def test_a_script_in_place_of_nvcc_has_no_headers() -> None:
    torch = GPU_TORCH | {"cuda_home": "/usr/local"}
    places = ["/usr/local/cuda", "/usr/local/cuda-11.8", "/usr/local/cuda-12.4"]

    def finding(*whole: str, **changes: Any) -> Finding:
        made = {"torch": torch, "toolkits": places, "headers": whole.__contains__, "versions": LIBRARIES}
        return found(gpu_machine(**{**made, **changes}))["nvcc"]

    seen = finding("/usr/local/cuda", "/usr/local/cuda-11.8", "/usr/local/cuda-12.4")
    assert (seen.verdict, seen.seen) == ("broken", "12.6, /usr/local/bin/nvcc")
    assert "cuda_runtime_api.h" in seen.why
    assert seen.remedy == "export CUDA_HOME=/usr/local/cuda-12.4"
    # One whose name has no version is asked for it.
    assert finding("/usr/local/cuda", "/usr/local/cuda-11.8").remedy == "export CUDA_HOME=/usr/local/cuda"
    assert finding("/usr/local/cuda-11.8").remedy.startswith("apt-get install cuda-toolkit-12-6")
    assert finding("/usr/local").verdict == "ok"
    assert finding("/usr/local/cuda", versions=LIBRARIES | BUILT).verdict == "not needed"


def test_headers_lie_in_one_of_two_places(tmp_path: Path) -> None:
    assert not has_headers(str(tmp_path))
    for number, place in enumerate(("include", "targets/x86_64-linux/include")):
        folder = tmp_path / str(number) / place
        folder.mkdir(parents=True)
        assert not has_headers(str(tmp_path / str(number)))
        (folder / "cuda_runtime_api.h").touch()
        assert has_headers(str(tmp_path / str(number)))


def test_no_nvcc_is_said_in_the_words_of_the_build_that_fails() -> None:
    finding = found(gpu_machine(run=commands(), versions=LIBRARIES))["nvcc"]
    assert finding.verdict == "missing"
    assert "bare_metal_version" in finding.why
    # What is built already needs none.
    assert found(gpu_machine(run=commands()))["nvcc"].verdict == "not needed"


def test_kernels_compiled_for_other_gpus_are_found() -> None:
    findings = found(
        gpu_machine(run=commands(nvcc_V="release 12.6,", cuobjdump_list_elf="ELF file 1: x.sm_90.cubin"))
    )
    assert findings["architectures"].verdict == "broken"
    assert "capability 8.9" in findings["architectures"].why
    findings = found(gpu_machine(run=commands(nvcc_V="release 12.6,")))
    assert findings["architectures"].verdict == "unknown"


@pytest.mark.parametrize(
    ("compiled", "capability", "runs"),
    [
        (["sm_80"], (8, 0), True), (["sm_80"], (8, 9), True), (["sm_86"], (8, 0), False),
        (["sm_80"], (9, 0), False), (["compute_80"], (12, 0), True), (["compute_90"], (8, 9), False),
        (["sm_90a"], (9, 0), True), (["sm_100a"], (10, 3), False), (["compute_90a"], (10, 0), False),
        (["sm_100f"], (10, 3), True), (["sm_120"], (12, 1), True), ([], (8, 0), False),
    ],
)  # fmt: skip
def test_which_code_runs_on_which_gpu(compiled: list[str], capability: tuple[int, int], runs: bool) -> None:
    assert runs_on(compiled, capability) is runs


def test_unknown_errors_have_no_meaning() -> None:
    assert meaning("RuntimeError: something else") == ("", "none", "")
    assert meaning("Failed to find C compiler. Please specify via CC environment variable.")[1] == "compiler"


def test_the_hub_is_asked_only_where_it_may_be() -> None:
    findings = found(machine(hub_error="Name or service not known"))
    assert findings["hub"].verdict == "missing"
    assert "Name or service not known" in findings["hub"].why
    assert findings["hub-cache"].seen == "2 repositories, 5 GB, /c"
    findings = found(machine(environ={"HF_HUB_OFFLINE": "1"}, hub_error="never asked"))
    assert findings["hub"].verdict == "not needed"
    assert found(machine())["hub"].verdict == "ok"


def test_loops_that_cannot_be_kept_and_threads_that_are_too_many_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    facts = looked_at(machine(torch=CPU_TORCH | {"threads": 4096}))
    by_check = {f.check: f for f in judge_machine(facts, {"compiled_before": False, "kept": False})}
    assert by_check["loops"].verdict == "broken"
    assert "NUMBA_CACHE_DIR" in by_check["loops"].remedy
    assert by_check["threads"].verdict == "broken"
    assert by_check["threads"].remedy.startswith("export OMP_NUM_THREADS=")
    by_check = {f.check: f for f in judge_machine(facts, {"compiled_before": False, "kept": True})}
    assert (by_check["loops"].verdict, by_check["loops"].seen) == ("ok", "compiled now, and kept")
    by_check = {f.check: f for f in judge_machine(facts, {"error": "They could not be compiled: x."})}
    assert by_check["loops"].verdict == "broken"


def test_a_driver_that_hangs_is_an_answer() -> None:
    nvml = {"error": "no answer", "detail": "ended by its time limit after 30.0 s"}
    finding = found(gpu_machine(nvml=nvml))["driver"]
    assert "time limit" in finding.why
    assert NO_NVML["error"] not in finding.why


@pytest.mark.parametrize(
    ("installers", "environ", "begins"),
    [
        (["apt-get"], {}, ("apt-get install build-essential", "apt-get install cuda-toolkit-12-6")),
        (["dnf"], {}, ("dnf install gcc-c++", "dnf install cuda-toolkit-12-6")),
        (["zypper"], {}, ("zypper install gcc-c++", "zypper install cuda-toolkit-12-6")),
        (
            ["conda", "apt-get"], {"CONDA_PREFIX": "/c"},
            ("conda install -c conda-forge gxx", "conda install -c nvidia cuda-toolkit=12.6"),
        ),
        # conda is installed, and not what this Python is from.
        (["conda", "dnf"], {}, ("dnf install gcc-c++", "dnf install cuda-toolkit-12-6")),
        ([], {}, ("apt-get install build-essential", "apt-get install cuda-toolkit-12-6")),
    ],
)  # fmt: skip
def test_compilers_come_from_what_installs_packages_here(
    installers: list[str], environ: dict[str, str], begins: tuple[str, str]
) -> None:
    tools = {name: f"/usr/bin/{name}" for name in installers}
    findings = found(gpu_machine(run=commands(), versions=LIBRARIES, tools=tools, environ=environ))
    compiler, toolkit = findings["compiler"].remedy, findings["nvcc"].remedy
    assert compiler.startswith(begins[0])
    assert toolkit.startswith(begins[1])
    home = '"$CONDA_PREFIX"' if toolkit.startswith("conda") else "/usr/local/cuda-12.6"
    assert toolkit.endswith(f"export CUDA_HOME={home}")
