"""Measure speed and memory, with one command per question: `python -m benchmarks.NAME`. A low speed is no error."""
