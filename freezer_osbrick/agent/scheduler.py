# SPDX-License-Identifier: Apache-2.0
"""freezer-scheduler: the file that carries a job's settings to the agent, and what it answers.

The scheduler writes ``str(value)`` of each setting with a ConfigParser whose ``%`` must be
doubled, which it does not do: a job with a ``%`` in a value raises and stays ``running`` for
ever. Lists and dictionaries arrive as Python source. Settings of our engine are written as the
agent reads them.

Where the agent has removed backups, their records in freezer-api go, too: nobody is to be offered
what cannot be restored.
"""

from __future__ import annotations

import functools
import json
import weakref
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from oslo_log import log

from freezer_osbrick.agent import options

LOG = log.getLogger(__name__)

_PAGE = 100  # records asked for at a time


def engine_of(action: Mapping[str, Any]) -> str | None:
    """The engine that an action of a job document names, by either of the two keys."""
    return action.get("engine_name") or action.get("engine")


def _is_ours(action: Mapping[str, Any]) -> bool:
    return engine_of(action) in options.ENGINE_NAMES


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
    stock_output = module.Job.process_agent_output
    stock_abort = module.RunningState.abort

    @functools.wraps(stock_save)
    def save_action_to_file(action: Mapping[str, Any], f: TextIO) -> None:
        if _is_ours(action):
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

    @functools.wraps(stock_output)
    def process_agent_output(self: Any, output_string: str) -> None:
        stock_output(self, _with_dead_records(self, output_string))

    # Of each job the agent that was told to end.
    ended: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()

    @functools.wraps(stock_abort)
    def abort(job: Any, doc: Any) -> Any:
        """Freezer looks for the agent by the name of its process, and in a way that never finds
        it.

        It comes here at each poll until the agent has ended, which takes down what it has set up
        and may be told so once: at the third time it would leave that.
        """
        event = stock_abort(job, doc)
        actions = job.job_doc.get("job_actions") or []
        if any(_is_ours(entry.get("freezer_action") or {}) for entry in actions):
            if ended.get(job) is not job.process:
                ended[job] = job.process
                job.terminate()
        return event

    module.RunningState.abort = staticmethod(abort)
    module.Job.save_action_to_file = staticmethod(save_action_to_file)
    module.Job.check_capabilities = check_capabilities
    module.Job.process_agent_output = process_agent_output


def _with_dead_records(job: Any, output: str) -> str:
    """What the agent said, with the records that Freezer is to delete for it."""
    try:
        told = json.loads(output)
    except ValueError:
        return output
    if not isinstance(told, dict) or "removed_backups" not in told:
        return output
    removed = {backup["backup_id"] for backup in told.pop("removed_backups")}
    try:
        credentials = job.job_doc.get("user_credentials", {})
        client = job.scheduler._get_client_for_user_credentials(credentials)
        dead = [] if client is None else _records_of(client, removed)
    except Exception as error:
        LOG.warning("Records of removed backups stay in freezer-api: %s", error)
        dead = []
    return json.dumps({**told, "deleted_freezer_backup_ids": dead} if dead else told)


def _records_of(client: Any, removed: set[str]) -> list[str]:
    """The ids of freezer-api's records all of whose backups were removed."""
    return [
        record["backup_id"]
        for record in _all_records(client)
        if (backups := _backups_in(record)) and backups <= removed
    ]


def _all_records(client: Any) -> Iterator[Mapping[str, Any]]:
    offset = 0
    while page := client.backups.list(limit=_PAGE, offset=offset):
        yield from page
        offset += len(page)


def _backups_in(record: Mapping[str, Any]) -> set[str]:
    """The ids of our backups that a record is about; none where it is another engine's."""
    ours = (record.get("backup_metadata") or {}).get("osbrick") or {}
    return {volume["backup_id"] for volume in ours.get("volumes", ()) if volume.get("backup_id")}


def _by_first_name(action: Mapping[str, Any]) -> Mapping[str, Any]:
    if action.get("engine_name") in options.ENGINE_NAMES:
        return {**action, "engine_name": options.ENGINE_NAME}
    return action
