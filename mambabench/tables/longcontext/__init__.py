"""The report of a long-context run."""
