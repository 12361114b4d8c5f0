#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Bring the embedded cloud up or down, or ask how it is: ``cloud.py up | down | status``."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from embedded_cloud.commands import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
