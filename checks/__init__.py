"""Acceptance checks that take too long for the tests, run as `python -m checks.NAME`. They fail by exit status."""
