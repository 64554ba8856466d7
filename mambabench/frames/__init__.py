"""The store as tidy pandas frames: whatever a table, a figure or a report shows is found here."""
