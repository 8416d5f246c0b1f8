"""Speed and memory: one command per question, run as `python -m benchmarks.NAME`. Nothing here asserts a speed."""
