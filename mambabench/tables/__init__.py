"""Renderers: one file a format, over frames and records, never over models."""
