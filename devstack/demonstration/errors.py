# SPDX-License-Identifier: Apache-2.0
"""Why the demo can stop."""

from __future__ import annotations


class DemoError(Exception):
    """What went wrong, in one sentence for the person who watches."""
