"""Run acceptance checks that take too long for the tests: `python -m checks.NAME`. Exit status 1 means failure."""
