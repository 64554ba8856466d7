"""Results of other programs, read and put into the store in the shape of our own."""
