"""Speed and memory: what is planned, how one point is measured, and what the machine could do at best."""
