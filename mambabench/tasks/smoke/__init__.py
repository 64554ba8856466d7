"""The smoke suite: a small made-up world, the texts that models learn it from, and the items that test it."""
