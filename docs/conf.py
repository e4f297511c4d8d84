"""The documentation site, as `make docs` builds it. Nothing is fetched, neither to build nor to read it."""

from typing import Any

from rdpbench.provenance import VERSION

project = "rdpbench"
author = copyright = "The rdpbench authors"  # noqa: A001  # Sphinx's name
release = version = VERSION

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3  # pages link to headings of others

html_theme = "furo"
html_title = "rdpbench"
html_static_path = ["site"]
html_css_files = ["site.css"]
html_copy_source = html_show_sphinx = False

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
nitpicky = True
# Types of numpy, pandas and Python are described at their own sites, which a build without a network cannot ask.
nitpick_ignore_regex = [("py:.*", ".*")]


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", _keep_sentences, priority=400)  # before Napoleon's, at 500


def _keep_sentences(_app: Any, what: str, _name: str, _thing: Any, _options: Any, lines: list[str]) -> None:
    """Napoleon takes the words before a colon in the first line about an attribute for its type; ours are sentences."""
    if what == "attribute":
        lines.insert(0, "")
