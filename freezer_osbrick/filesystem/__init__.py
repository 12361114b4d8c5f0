# SPDX-License-Identifier: Apache-2.0
"""File mode: the file systems of a volume, and the files in them."""
