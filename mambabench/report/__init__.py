"""One report of stored runs, and a renderer for each format."""
