# SPDX-License-Identifier: Apache-2.0
"""The command ``freezer-osbrick``: a thin door in front of :mod:`freezer_osbrick.operations`.

Modules here import operations inside their methods, so that help and usage errors need not wait
for os-brick and the OpenStack clients to load.
"""
