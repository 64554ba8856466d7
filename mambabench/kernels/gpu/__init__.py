"""The operations of `mambabench.kernels.packed` on an NVIDIA GPU."""
