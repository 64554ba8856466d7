"""The selective scan: an exact reference and a fast CPU version."""
