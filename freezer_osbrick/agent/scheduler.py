# SPDX-License-Identifier: Apache-2.0
"""freezer-scheduler: the file that carries a job's settings to the agent.

The scheduler writes ``str(value)`` of each setting with a ConfigParser whose ``%`` must be
doubled, which it does not do: a job with a ``%`` in a value raises and stays ``running`` for
ever. Lists and dictionaries arrive as Python source. Settings of our engine are written as the
agent reads them.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any, TextIO

from freezer_osbrick.agent import options


def engine_of(action: Mapping[str, Any]) -> str | None:
    """The engine that an action of a job document names, by either of the two keys."""
    return action.get("engine_name") or action.get("engine")


def written(value: Any) -> Any:
    """A setting as Freezer's writer has to get it, so that the agent reads it unchanged."""
    if value is None:
        return None
    if isinstance(value, list | tuple | dict):
        value = json.dumps(value)
    return str(value).replace("%", "%%")


def patch(module: Any) -> None:
    stock_save = module.Job.save_action_to_file
    stock_check = module.Job.check_capabilities

    @functools.wraps(stock_save)
    def save_action_to_file(action: Mapping[str, Any], f: TextIO) -> None:
        if engine_of(action) in options.ENGINE_NAMES:
            action = {key: written(value) for key, value in action.items()}
        stock_save(action, f)

    @functools.wraps(stock_check)
    def check_capabilities(self: Any) -> bool:
        """A scheduler that may run ``osbrick`` may run it under its other name."""
        document = self.job_doc
        actions = [
            {**entry, "freezer_action": _by_first_name(entry.get("freezer_action") or {})}
            for entry in document.get("job_actions") or []
        ]
        self.job_doc = {**document, "job_actions": actions}
        try:
            return stock_check(self)
        finally:
            self.job_doc = document

    module.Job.save_action_to_file = staticmethod(save_action_to_file)
    module.Job.check_capabilities = check_capabilities


def _by_first_name(action: Mapping[str, Any]) -> Mapping[str, Any]:
    if action.get("engine_name") in options.ENGINE_NAMES:
        return {**action, "engine_name": options.ENGINE_NAME}
    return action
