"""Acceptance checks that take too long for the tests. `python -m checks.NAME` exits with status 1 if a check fails."""
