"""Processes that a run starts: one at a time, waited for without disturbing what they measure."""
