#!/usr/bin/env bash
# Check mambabench on a machine with an NVIDIA GPU, torch and nvcc, and no network.
#
#   tests/gpu/run.sh --wheels DIR --out DIR [--data DIR] [--steps a,b,c] [--dry-run]
#
# DIR of --wheels holds wheels of what mambabench needs beside torch, and the sdists of causal-conv1d and
# mamba-ssm. What is found goes to --out, step by step. `--dry-run` works anywhere. All options: --help.
#
# NOT RUN ON HARDWARE YET: written against the sources of causal-conv1d 1.7.0 and mamba-ssm 2.3.1 and
# 2.3.2.post1, and dry-run only.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec "${PYTHON:-python3}" "$here/drive.py" "$@"
