"""The options of `splade index` and `splade add-sparse` for Ray."""

import os
from dataclasses import dataclass, fields
from typing import Annotated

import typer

__all__ = ["RayEncoding", "RayOptions"]

_PANEL = "Ray"


@dataclass(frozen=True, kw_only=True)
class RayEncoding:
    """The options that say whether and how Ray encodes."""

    ray: Annotated[
        bool, typer.Option("--ray", help="Encode with Ray, on all cores of this machine.", rich_help_panel=_PANEL)
    ] = False
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="Ray cluster to use, such as head:6379; implies --ray.", show_default="none", rich_help_panel=_PANEL
        ),
    ] = None
    encoders: Annotated[
        int | None,
        typer.Option(help="Number of models that encode at once.", show_default="one per core", rich_help_panel=_PANEL),
    ] = None
    gpus: Annotated[
        float | None,
        typer.Option(help="GPUs of each model, such as 1 or 0.5.", show_default="none", rich_help_panel=_PANEL),
    ] = None
    rows_per_batch: Annotated[
        int | None,
        typer.Option(
            help="Number of rows that a model gets at once. If this number is small, few rows are encoded again after "
            "a process was killed.",
            show_default="512, or 2048 with --gpus",
            rich_help_panel=_PANEL,
        ),
    ] = None

    @property
    def wanted(self) -> bool:
        """Whether the options ask for Ray."""
        return self.ray or self.ray_address is not None

    def check(self) -> None:
        """Raise ValueError if an option for Ray is given, but neither --ray nor --ray-address."""
        if self.wanted:
            return
        for field in fields(self):
            if getattr(self, field.name) != field.default:
                name = "--" + field.name.replace("_", "-")
                raise ValueError(f"{name} must be given with --ray, got it alone. Add --ray, or leave {name} out.")

    def number_of_encoders(self) -> int:
        """Return the number of Ray's actors (processes) that encode."""
        return self.encoders or os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class RayOptions(RayEncoding):
    """The options that say whether and how Ray encodes and writes."""

    writers: Annotated[
        int, typer.Option(help="Number of clients that write into a Milvus server.", rich_help_panel=_PANEL)
    ] = 1
    rows_per_second: Annotated[
        float | None,
        typer.Option(
            help="Largest number of rows written per second.", show_default="no limit", rich_help_panel=_PANEL
        ),
    ] = None
    bad_rows: Annotated[
        str, typer.Option(help="File for rows that cannot be indexed, with the reasons.", rich_help_panel=_PANEL)
    ] = "bad-rows.jsonl"
    max_bad_rows: Annotated[
        int,
        typer.Option(
            help="Largest allowed number of rows that cannot be indexed. One more such row ends the run.",
            rich_help_panel=_PANEL,
        ),
    ] = 100
