"""Which stored model and settings fit a wish, with the evidence and the doubt."""
