"""Let links of the pages to files outside docs/ lead to the repository. `make docs` runs this, see mkdocs.yml."""

import re
from typing import Any


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Replace "../" in the links of a page that is directly in docs/. In the repository, the link works as it is."""
    if "/" in page.file.src_uri:
        return markdown
    return re.sub(r"\]\(\.\./", f"]({config.repo_url}/blob/main/", markdown)
