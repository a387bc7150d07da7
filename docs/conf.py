"""The site: Markdown throughout (MyST), built with every warning an error."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "decigrad"
author = "The decigrad developers"
copyright = author  # the name that Sphinx asks for
version = release = "0.1.0"

extensions = ["myst_parser", "sphinx.ext.viewcode", "api_reference"]
exclude_patterns = ["_build", "_extensions"]

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "decigrad"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1d5f8a", "color-brand-content": "#1d5f8a"},
    "dark_css_variables": {"color-brand-primary": "#7fb8dc", "color-brand-content": "#7fb8dc"},
}
