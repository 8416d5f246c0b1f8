"""Make docs/explain.svg, the README's picture of a terminal, from a real run of the demo's model.

python docs/terminal_picture.py
"""

import io
import re
from pathlib import Path

from rich.console import Console

from splade_integrations import SpladeEncoder
from splade_integrations.models.offline import splade_model_path

QUERY = "how do I cancel my subscription"
DOCUMENT = "Ending your membership: unsubscribe at any time; subscriptions are cancelled at once."


def main() -> None:
    """Explain, record what rich prints, and write it as SVG."""
    console = Console(width=92, record=True, file=io.StringIO(), force_terminal=True)
    console.print(f'$ splade explain "{QUERY}" "$document" -m MODEL\n', highlight=False)
    console.print(SpladeEncoder(splade_model_path()).explain(QUERY, DOCUMENT))
    svg = console.export_svg(title="splade explain")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # fonts would be fetched from elsewhere
    Path(__file__).with_name("explain.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
