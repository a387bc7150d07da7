"""The site: Markdown throughout (MyST), built with every warning an error.

Pages whose front matter names a kernel are notebooks, executed while the site is built (MyST-NB); a cell that
raises fails the build. The blocks of all other pages are run by `tests/test_docs.py`.
"""

import hashlib
import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_extensions"))

project = "decigrad"
author = "The decigrad developers"
copyright = author  # the name that Sphinx asks for
version = release = "0.1.0"

extensions = ["myst_nb", "sphinx.ext.viewcode", "api_reference"]
exclude_patterns = ["_build", "_extensions"]

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3


def library() -> str:
    """A digest of the library: results that another version of it computed are not shown."""
    digest = hashlib.sha256()
    for path in sorted((HERE.parent / "src").rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE / "_build" / "notebooks" / library())
nb_execution_raise_on_error = True
nb_execution_timeout = 600  # seconds, for one cell: a machine may be busy
nb_merge_streams = True
os.environ["MATPLOTLIBRC"] = str(HERE / "matplotlibrc")  # kernels inherit it: one look for all pictures

html_theme = "furo"
html_title = "decigrad"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1d5f8a", "color-brand-content": "#1d5f8a"},
    "dark_css_variables": {"color-brand-primary": "#7fb8dc", "color-brand-content": "#7fb8dc"},
}
