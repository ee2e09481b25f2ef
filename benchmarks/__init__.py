"""How fast leadlex is, side by side with what else one could use: `python -m benchmarks`."""
