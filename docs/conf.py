"""Sphinx configuration."""

import pathlib
import re
import tomllib

_project = tomllib.loads((pathlib.Path(__file__).parents[1] / "pyproject.toml").read_text())

project = _project["project"]["name"]
release = version = _project["project"]["version"]
author = copyright = "The gauntax developers"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"{project} {release}"

autodoc_typehints = "none"  # the shapes are in the docstrings; jaxtyping's strings read badly here
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
napoleon_use_ivar = True
napoleon_attr_annotations = False


def _code(app, what, name, obj, options, lines):
    """Show what docstrings hold between single backticks as code, as Markdown does."""
    lines[:] = [re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``\\ ", line) for line in lines]


def setup(app):
    # After napoleon (500), which reads single backticks itself.
    app.connect("autodoc-process-docstring", _code, priority=600)
