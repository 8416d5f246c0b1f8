"""Print the figures of a check, and remember which requirements were not met."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

__all__ = ["Figures"]


@dataclass
class Figures:
    """The figures of a check.

    Attributes:
        missed: The requirements that were not met.
    """

    missed: list[str] = field(default_factory=list)

    def add(self, requirement: str, met: bool, figure: object) -> None:
        """Print one figure, and whether it meets the requirement."""
        print(f"{'ok  ' if met else 'MISS'} {requirement}: {figure}", flush=True)
        if not met:
            self.missed.append(requirement)

    @contextmanager
    def expecting(self, requirement: str, kind: type[BaseException], *parts: str) -> Iterator[None]:
        """Require that the `with` block raises an error of type `kind` with all `parts` in its message."""
        try:
            yield
        except kind as err:
            lacking = [part for part in parts if part not in str(err)]
            self.add(requirement, not lacking, f"{type(err).__name__}: {str(err)[:150]}")
        except Exception as err:
            self.add(requirement, False, f"another error, {type(err).__name__}: {str(err)[:150]}")
        else:
            self.add(requirement, False, "no error")

    def exit_status(self) -> int:
        """Print which requirements were missed, and return 1 if there are any, else 0."""
        for requirement in self.missed:
            print(f"missed: {requirement}", file=sys.stderr)
        return int(bool(self.missed))
