"""A sweep's records as a table, as text, and as sentences."""
