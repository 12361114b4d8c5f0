# SPDX-License-Identifier: Apache-2.0
"""Freezer's local storage makes its folder as soon as it is opened; ours, only a backup makes.

A mistyped container would otherwise leave an empty folder behind at a restore, an info or a dry
run.
"""

from __future__ import annotations

import functools
from typing import Any

from freezer_osbrick.agent import options


def patch(module: Any) -> None:
    stock = module.LocalStorage.prepare

    @functools.wraps(stock)
    def prepare(self: Any) -> None:
        if not options.is_ours():
            stock(self)

    module.LocalStorage.prepare = prepare
