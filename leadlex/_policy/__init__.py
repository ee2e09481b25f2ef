"""The rules, without I/O: what a failure is, whether to try again, and what was charged."""
