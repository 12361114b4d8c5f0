# SPDX-License-Identifier: Apache-2.0
"""What the .pth runs at every interpreter start: one finder, and nothing is imported.

Freezer looks its engines up in its own source tree and offers no entry point before its command
line is parsed. The finder waits until Freezer itself imports one of TARGETS, and only then loads
what adapts it. ``FREEZER_OSBRICK_DISABLE=1`` in the environment switches all of it off.
"""

import os
import sys

ENGINE_MODULE = "freezer.engine.osbrick.osbrick"
TARGETS = frozenset(
    (
        ENGINE_MODULE,
        "freezer.common.config",
        "freezer.job",
        "freezer.scheduler.scheduler_job",
        "freezer.storage.local",
    )
)


class Finder:
    """A meta-path finder that answers for TARGETS only."""

    @staticmethod
    def find_spec(name, path=None, target=None):  # type: ignore[no-untyped-def]
        if name not in TARGETS:
            return None
        from freezer_osbrick.agent import hooks

        return hooks.find_spec(name, path, target)


def install() -> None:
    if os.environ.get("FREEZER_OSBRICK_DISABLE", "0") in ("", "0") and Finder not in sys.meta_path:
        sys.meta_path.insert(0, Finder)


install()
