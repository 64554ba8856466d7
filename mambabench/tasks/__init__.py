"""The only package that imports lm-eval: tasks, data and the backend registered with it."""
