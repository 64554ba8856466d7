"""What is installed, what can run, what is missing, and whether the kernels compute what they should."""
