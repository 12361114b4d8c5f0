# SPDX-License-Identifier: Apache-2.0
"""Adapts Freezer's modules as they are imported, without a change on disk."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import logging
import sys
import types
from collections.abc import Sequence

from freezer_osbrick.agent import boot

LOG = logging.getLogger(__name__)

# Freezer's module -> ours, whose function patch() gets it once it is loaded.
PATCHES = {
    "freezer.common.config": "freezer_osbrick.agent.arguments",
    "freezer.job": "freezer_osbrick.agent.jobs",
    "freezer.scheduler.scheduler_job": "freezer_osbrick.agent.scheduler",
    "freezer.storage.local": "freezer_osbrick.agent.storage",
}


class PatchingLoader(importlib.abc.Loader):
    """Runs the module's own loader, then our patch; a Freezer of another shape is left as it is."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        # What looks at the module later (inspect, importlib.resources, reload) meets its own
        # loader.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        try:
            importlib.import_module(PATCHES[module.__name__]).patch(module)
        except Exception as exc:
            LOG.warning(
                "Engine osbrick is not available: %s of this Freezer cannot be adapted (%s: %s).",
                module.__name__,
                type(exc).__name__,
                exc,
            )


class EngineLoader(importlib.abc.Loader):
    """Gives our engine under the name of Freezer's own, whose module is never executed."""

    def exec_module(self, module: types.ModuleType) -> None:
        from freezer_osbrick.agent import engine

        module.OsbrickEngine = engine.OsbrickEngine  # type: ignore[attr-defined]


def find_spec(
    name: str, path: Sequence[str] | None, target: types.ModuleType | None
) -> importlib.machinery.ModuleSpec | None:
    if name == boot.ENGINE_MODULE:
        return importlib.machinery.ModuleSpec(name, EngineLoader(), origin=__name__)
    for finder in sys.meta_path:
        if finder is boot.Finder or not hasattr(finder, "find_spec"):
            continue
        spec = finder.find_spec(name, path, target)
        if spec is not None:
            if spec.loader is not None:
                spec.loader = PatchingLoader(spec.loader)
            return spec
    return None
