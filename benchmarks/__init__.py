"""Measure speed and memory, with one command per question: `python -m benchmarks.NAME`. No speed is asserted."""
