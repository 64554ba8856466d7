"""Statistics: arrays in, dataclasses out; nothing here knows of runs or models."""
