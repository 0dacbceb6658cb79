"""Sphinx: the pages of this folder as a site with a search, `make docs`."""

from __future__ import annotations

from importlib.metadata import version as installed

project = "counterfactory"
author = "the counterfactory authors"
version = release = installed("counterfactory")

extensions = ["myst_nb", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
nb_execution_mode = "off"  # a test runs the notebook
myst_heading_anchors = 3  # links to #headings, as on GitHub
default_role = "code"  # of docstrings, where `this` is a name
autodoc_type_aliases = {"ArrayLike": "ArrayLike"}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"

html_theme = "furo"
html_title = "counterfactory"
