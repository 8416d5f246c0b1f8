"""Make the README's pictures of a terminal, docs/demo.svg and docs/explain.svg, from real runs of the demo's models.

python docs/terminal_picture.py
"""

import io
import re
import sys
from pathlib import Path

from rich.console import Console

from splade_integrations import SpladeEncoder
from splade_integrations.models.offline import splade_model_path

FOLDER = Path(__file__).resolve().parent
QUERY = "how do I cancel my subscription"
DOCUMENT = "Ending your membership: unsubscribe at any time; subscriptions are cancelled at once."


def main() -> None:
    """Run an explanation and the demo, record what rich prints, and write one SVG file for each."""
    console = _console()
    console.print(f'$ splade explain "{QUERY}" "$document" -m MODEL\n', highlight=False)
    console.print(SpladeEncoder(splade_model_path()).explain(QUERY, DOCUMENT))
    _write(console, "explain")
    sys.path.insert(0, str(FOLDER.parent / "examples"))
    import demo  # the scripts of examples/ import each other by their bare names

    demo.console = console = _console()
    console.print(f'$ make demo Q="{demo.SHOWN[0]}"\n', highlight=False)
    demo.main(demo.SHOWN[:1])
    _write(console, "demo")


def _console() -> Console:
    return Console(width=96, record=True, file=io.StringIO(), force_terminal=True, highlight=False)


def _write(console: Console, name: str) -> None:
    svg = console.export_svg(title=name)
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # fonts would be fetched from elsewhere
    (FOLDER / f"{name}.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
