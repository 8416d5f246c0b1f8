"""Let griffe, which reads the docstrings for the site, take "Example:" as a section of code."""

from typing import Any

from griffe import Extension, Object


class Examples(Extension):
    """Rename the heading in memory. griffe knows only "Examples:", and would read the code as prose."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Change one object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = obj.docstring.value.replace("Example:\n", "Examples:\n")
