# SPDX-License-Identifier: Apache-2.0
"""The Django application; Horizon finds it by the file in ``enabled``."""

from __future__ import annotations

from django.apps import AppConfig


class OsbrickConfig(AppConfig):
    name = "freezer_osbrick.dashboard"
    label = "freezer_osbrick_dashboard"
    verbose_name = "freezer-osbrick"

    def ready(self) -> None:
        from freezer_osbrick.dashboard import stock

        stock.patch()
