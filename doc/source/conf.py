# SPDX-License-Identifier: Apache-2.0
"""How sphinx builds the documentation. Nothing is fetched from anywhere."""

project = "freezer-osbrick"
copyright = "freezer_osbrick developers, Apache-2.0"
extensions = ["cliff.sphinxext", "oslo_config.sphinxext"]
root_doc = "index"
exclude_patterns: list[str] = []
html_theme = "alabaster"
html_theme_options = {
    "description": "Cinder volumes, backed up by attaching them",
    "fixed_sidebar": True,
    "page_width": "1080px",
}
html_show_sphinx = False
pygments_style = "sphinx"
autoprogram_cliff_application = "freezer-osbrick"
