"""Measure speed and memory, with a command for each question (`python -m benchmarks.NAME`). Low speed is no failure."""
