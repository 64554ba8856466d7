"""What the driver, the cards, torch's CUDA and the compilers mean together.

findings = [*judge_gpu(facts), *judge_building(facts)]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mambabench.doctor import remedies
from mambabench.doctor.extensions import meaning, runs_on
from mambabench.doctor.finding import Finding
from mambabench.units import size

if TYPE_CHECKING:
    from mambabench.doctor.facts import Facts

_WOULD_NEED: Final = (
    "The CPU path is fine without. A GPU would need NVIDIA's driver, a PyTorch with CUDA, and for "
    "mamba-ssm's kernels also nvcc of the same CUDA major version."
)
_BUILT_ALREADY: Final = "mamba-ssm is built already."
_NO_DRIVER: Final = "NVMLError_LibraryNotFound"
_NVML_WORDS: Final = {
    _NO_DRIVER: "there is no libnvidia-ml: no driver, or none in this container",
    "NVMLError_DriverNotLoaded": "the driver is installed and not loaded",
    "NVMLError_NoPermission": "this user may not ask the driver",
    "NVMLError_LibRmVersionMismatch": "the driver was updated, and the old one is still loaded",
    "NVMLError_GpuIsLost": "a card has fallen off the bus",
    "ImportError": "the package nvidia-ml-py is not installed",
}
_NVML_REMEDIES: Final = {
    "NVMLError_DriverNotLoaded": "modprobe nvidia",
    "NVMLError_NoPermission": 'usermod -aG video,render "$USER"',
    "NVMLError_LibRmVersionMismatch": "reboot",
    "NVMLError_GpuIsLost": "reboot",
    "ImportError": "pip install nvidia-ml-py",
}


def judge_gpu(facts: Facts) -> list[Finding]:
    """Return the findings of the group "gpu"."""
    return [_driver(facts), _gpus(facts), _torch_cuda(facts), _architectures(facts)]


def judge_building(facts: Facts) -> list[Finding]:
    """Return the findings of the group "building"."""
    return [_nvcc(facts), _compiler(facts), _ninja(facts)]


def _driver(facts: Facts) -> Finding:
    nvml, cuda = facts.nvml, facts.cuda_major
    if error := nvml.get("error"):
        if not facts.wants_cuda:
            return Finding("driver", "none", "not needed", _WOULD_NEED)
        words = _NVML_WORDS.get(error, f"{error}: {nvml.get('detail', '')}".rstrip(": "))
        return Finding(
            "driver",
            "does not answer",
            "broken",
            f"The driver does not answer: {words}.",
            remedies.driver_for(facts) if error == _NO_DRIVER else _NVML_REMEDIES.get(error, "nvidia-smi"),
        )
    major, minor = divmod(int(nvml["cuda_driver"]) // 10, 100)
    seen = f"{nvml['driver']}, for CUDA up to {major}.{minor}"
    if cuda is not None and major < cuda:
        why = (
            f"It is older than PyTorch's CUDA {facts.torch['cuda']} needs: update it, or take a PyTorch for "
            f"CUDA {major}."
        )
        return Finding("driver", seen, "broken", why, remedies.torch_with_cuda(major))
    return Finding("driver", seen, "ok")


def _card(card: dict[str, Any]) -> str:
    parts = [str(card["name"])]
    if card.get("capability"):
        parts.append(f"compute capability {card['capability']}")
    parts.append(size(card["memory_bytes"]))
    if card.get("mig"):
        parts.append(f"divided by MIG into {card.get('mig_instances', 0)}")
    return ", ".join(parts)


def _gpus(facts: Facts) -> Finding:
    cards = list(facts.nvml.get("gpus") or ()) or list(facts.torch.get("devices") or ())
    if not cards:
        if facts.card:
            return Finding(
                "gpus", "a card that the driver does not show", "broken", "See the driver.", "nvidia-smi"
            )
        return Finding("gpus", "none", "not needed", "Everything runs on the processor.")
    why = []
    if (chosen := facts.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        why.append(f"CUDA_VISIBLE_DEVICES is '{chosen}'.")
    if any(card.get("mig") for card in cards):
        why.append("A process sees one MIG instance, with a share of the memory and of the bandwidth.")
    if any(card.get("mig") and not card.get("mig_instances") for card in cards):
        return Finding(
            "gpus",
            "; ".join(map(_card, cards)),
            "broken",
            "MIG is on, and there is no instance.",
            "nvidia-smi mig -cgi 0 -C",
        )
    return Finding("gpus", "; ".join(map(_card, cards)), "ok", " ".join(why))


def _torch_cuda(facts: Facts) -> Finding:
    torch = facts.torch
    if not torch:
        return Finding("torch-cuda", "unknown", "unknown", "PyTorch did not answer.")
    driver = facts.nvml.get("cuda_driver")
    build = remedies.torch_with_cuda(None if driver is None else int(driver) // 1000)
    if torch.get("hip"):
        return Finding("torch-cuda", f"ROCm {torch['hip']}", "unknown", "ROCm is untested.")
    if torch.get("cuda") is None:
        if not facts.wants_cuda:
            return Finding("torch-cuda", "built without", "not needed")
        return Finding("torch-cuda", "built without", "missing", "This PyTorch cannot use the GPU.", build)
    if not torch.get("devices"):
        if not facts.wants_cuda:
            return Finding("torch-cuda", "no GPU", "not needed", "This PyTorch would use one.")
        said = " ".join(torch.get("warnings") or ())
        words, way, _ = meaning(said)
        if way == "driver":
            return Finding("torch-cuda", "sees no GPU", "broken", f"PyTorch sees no GPU: {words}.", build)
        if facts.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
            return Finding(
                "torch-cuda",
                "sees no GPU",
                "broken",
                "CUDA_VISIBLE_DEVICES hides all GPUs.",
                "unset CUDA_VISIBLE_DEVICES",
            )
        because = said or "see the driver"
        return Finding(
            "torch-cuda", "sees no GPU", "broken", f"PyTorch sees no GPU: {because}.", "nvidia-smi"
        )
    if facts.cuda.get("error"):
        why = f"The process that made a small product on the GPU {facts.cuda['error']}."
        return Finding("torch-cuda", "does not compute", "broken", why, "nvidia-smi -q -d ECC")
    if errors := facts.cuda.get("errors"):
        index, error = next(iter(errors.items()))
        words, way, _ = meaning(error)
        why = f"A small product on cuda:{index} fails: {words or error}."
        # A card too old for one build of torch is served by one for an older CUDA.
        older = remedies.torch_with_cuda((facts.cuda_major or 12) - 1)
        other = older if way == "rebuild" and not _too_new(facts) else remedies.torch_with_cuda(13)
        return Finding("torch-cuda", "does not compute", "broken", why, build if way == "driver" else other)
    n_gpus = len(torch["devices"])
    seen = f"CUDA {torch['cuda']}, computes on {n_gpus} GPU{'s' if n_gpus != 1 else ''}"
    return Finding("torch-cuda", seen, "ok")


def _too_new(facts: Facts) -> bool:
    """Tell whether the first GPU is newer than all that torch is compiled for."""
    numbers = [int(name.partition("_")[2].rstrip("af")) for name in facts.torch.get("arch_list") or ()]
    if facts.capability is None or not numbers:
        return False
    return facts.capability[0] * 10 + facts.capability[1] > max(numbers)


def _architectures(facts: Facts) -> Finding:
    capability, compiled = facts.capability, facts.architectures
    if not compiled:
        return Finding("architectures", "nothing compiled", "not needed", "No compiled package is installed.")
    known = {package: names for package, names in compiled.items() if names is not None}
    seen = "; ".join(f"{package}: {' '.join(names) or 'no CUDA code'}" for package, names in known.items())
    if len(known) < len(compiled):
        lacks = ", ".join(package for package in compiled if package not in known)
        seen = f"{seen}; {lacks}: not known" if seen else f"{lacks}: not known"
    if capability is None or not facts.wants_cuda:
        return Finding("architectures", seen, "not needed")
    number = f"{capability[0]}.{capability[1]}"
    unfit = [package for package, names in known.items() if not runs_on(names, capability)]
    if unfit:
        why = f"{', '.join(unfit)} cannot run on a GPU of compute capability {number}."
        return Finding("architectures", seen, "broken", why, remedies.install_official(*unfit, again=True))
    if not known:
        return Finding("architectures", seen, "unknown", "cuobjdump, which tells, comes with nvcc.")
    return Finding("architectures", seen, "ok")


def _nvcc(facts: Facts) -> Finding:
    cuda = facts.cuda_major
    usable = cuda is not None and facts.wants_cuda
    if facts.nvcc is None:
        if not usable:
            return Finding("nvcc", "not found", "not needed", "It compiles mamba-ssm's kernels for a GPU.")
        if _is_built(facts):
            return Finding("nvcc", "not found", "not needed", _BUILT_ALREADY)
        why = (
            "Without it the build of mamba-ssm ends in `NameError: name 'bare_metal_version' is not "
            "defined`. Ready wheels need none. The toolkit comes from NVIDIA's package source."
        )
        return Finding("nvcc", "not found", "missing", why, remedies.nvcc_for(facts))
    seen = f"{facts.nvcc_version or 'of an unknown version'}, {facts.nvcc}"
    if not usable:
        return Finding("nvcc", seen, "not needed")
    major = str(facts.nvcc_version).partition(".")[0]
    if not major.isdigit():
        return Finding("nvcc", seen, "unknown", "It does not say its version.", f"{facts.nvcc} -V")
    if int(major) != cuda:
        why = (
            f"PyTorch is built for CUDA {facts.torch['cuda']}: to build against it, the major versions must "
            "be the same."
        )
        return Finding("nvcc", seen, "broken", why, remedies.nvcc_for(facts))
    if facts.nvcc_headers:
        return Finding("nvcc", seen, "ok")
    if _is_built(facts):
        return Finding("nvcc", seen, "not needed", _BUILT_ALREADY)
    why = (
        "CUDA's headers are not beside it, as where it is a script that calls another nvcc: the build of "
        "mamba-ssm ends for want of `cuda_runtime_api.h`."
    )
    return Finding("nvcc", seen, "broken", why, remedies.nvcc_for(facts))


def _is_built(facts: Facts) -> bool:
    return bool(facts.versions["mamba-ssm"]) and not facts.imports.get("mamba-ssm")


def _compiler(facts: Facts) -> Finding:
    usable = facts.cuda_major is not None and facts.wants_cuda
    if facts.compiler and facts.compiler_version:
        return Finding("compiler", facts.compiler_version, "ok" if usable else "not needed")
    if not usable:
        return Finding("compiler", "not found", "not needed", "Only building and Triton on a GPU need one.")
    why = "nvcc and Triton both call it."
    return Finding("compiler", "not found", "missing", why, remedies.compiler_for(facts))


def _ninja(facts: Facts) -> Finding:
    usable = facts.cuda_major is not None and facts.wants_cuda
    if facts.ninja:
        return Finding("ninja", facts.ninja, "ok" if usable else "not needed")
    if not usable:
        return Finding(
            "ninja", "not found", "not needed", "It lets the official kernels compile in parallel."
        )
    why = "Without it the official kernels compile one file at a time."
    return Finding("ninja", "not found", "missing", why, "pip install ninja")
