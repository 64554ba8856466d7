"""Certificates of earlier runs on disk, each under a digest of all that it depends on.

path = entry(plan.fingerprint, "mambabench compiled scan", "AMD EPYC 7B13")
record = read(path)         # null when there is none
"""

from __future__ import annotations

import os
import platform
import tempfile
from functools import cache
from pathlib import Path

from pydantic import ValidationError

from mambabench.cache import cache_dir
from mambabench.environment import package_versions
from mambabench.fingerprint import digest, file_sha256
from mambabench.schema import CertificateRecord

_PACKAGES = (
    "mambabench",
    "torch",
    "transformers",
    "numba",
    "numpy",
    "mamba-ssm",
    "causal-conv1d",
    "triton",
    "mambapy",
)
_FORMAT = 1


def entry(fingerprint: str, kernel_path: str, device_name: str, directory: Path | None = None) -> Path:
    """Return where the certificate is kept, which need not exist.

    Args:
        fingerprint: of the plan: weights, dtype and device.
        kernel_path: what computes the fast path's scan or attention.
        device_name: the processor or the GPU.
        directory: of all certificates; by default `certificates` in the user's cache directory.
    """
    versions = package_versions()
    key = {
        "format": _FORMAT,
        "checkpoint": fingerprint,
        "kernel_path": kernel_path,
        "device": device_name,
        "features": processor_features(),
        "packages": {name: versions[name] for name in _PACKAGES if name in versions},
        "code": code_digest(),
    }
    return (cache_dir() / "certificates" if directory is None else directory) / f"{digest(key)}.json"


def read(path: Path) -> CertificateRecord | None:
    """Return an earlier certificate, marked as such; null when there is none that can be read."""
    try:
        record = CertificateRecord.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    return record.model_copy(update={"cached": True})


def write(path: Path, record: CertificateRecord) -> None:
    """Keep a certificate; a directory that cannot be written costs time on the next run, nothing else."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(record.model_dump_json(indent=1))
            Path(temporary).replace(path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
    except OSError:
        return


@cache
def code_digest(*more: str) -> str:
    """Return the digest of the package's own code that the two paths consist of.

    Args:
        more: further folders of the package whose code counts.
    """
    package = Path(__file__).resolve().parents[1]
    files = sorted(file for part in ("kernels", "models", *more) for file in (package / part).rglob("*.py"))
    return digest({file.relative_to(package).as_posix(): file_sha256(file) for file in files})


@cache
def processor_features() -> str:
    """Return the processor's instruction sets, or its architecture where the system does not tell."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("flags", "Features"):
                return " ".join(sorted(value.split()))
    except OSError:
        pass
    return platform.machine()
