"""The sections of a report, each made of frames: one question of the reader a module."""
