# SPDX-License-Identifier: Apache-2.0
"""How sphinx builds the release notes from releasenotes/notes."""

project = "freezer-osbrick release notes"
copyright = "freezer_osbrick developers, Apache-2.0"
extensions = ["reno.sphinxext"]
root_doc = "index"
html_theme = "alabaster"
html_show_sphinx = False
