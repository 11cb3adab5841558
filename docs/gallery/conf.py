"""Sphinx configuration of the gallery, for ``make.py``."""

project = "Ported models"
extensions = ["myst_parser"]
# Texts of ported models never become markup of the page.
myst_disable_syntax = ["html_block", "html_inline"]
exclude_patterns = ["files"]
html_theme = "furo"
html_title = project
html_show_copyright = html_show_sphinx = html_copy_source = False
highlight_language = "none"
