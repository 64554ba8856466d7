"""A comparison as text."""
