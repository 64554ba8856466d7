"""Comparing what was measured: stored runs in, differences with their uncertainty out."""
