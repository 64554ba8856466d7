"""Sweeps of speed and memory: described, planned, and done process by process."""
