# SPDX-License-Identifier: Apache-2.0
"""Runs the real freezer-agent, hooked, over fake operations: one fork a run, to be fast.

Reads JSON lines from standard input: ``{"argv": […], "env": {…}, "stdout": path, "stderr": path}``
is a run, and ``{"action": {…}, "path": path}`` the scheduler's writing of a job. Answers each with
the exit status.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any

import freezer_osbrick.agent.boot  # noqa: F401  (what the .pth does)
from tests.unit.agent import fake_operations


def main() -> None:
    import freezer.job  # noqa: F401
    import freezer.main  # noqa: F401
    import freezer.scheduler.scheduler_job  # noqa: F401

    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            request = json.loads(line)
            if "action" in request:
                _write_job(request)
            _run(request)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _write_job(request: dict[str, Any]) -> None:
    from freezer.scheduler import scheduler_job

    status = 1
    try:
        with open(request["path"], "w", encoding="utf-8") as stream:
            scheduler_job.Job.save_action_to_file(request["action"], stream)
        status = 0
    except ValueError as exc:
        print(exc, file=sys.stderr)
    finally:
        os._exit(status)


def _run(request: dict[str, Any]) -> None:
    status = 99
    try:
        for number, path in ((1, request["stdout"]), (2, request["stderr"])):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        os.environ.update(request["env"])
        fake_operations.install()
        import freezer.main
        from freezer.common import config

        config.home = os.environ["HOME"]  # Freezer looks at it when it is imported
        if "FAKE_VOLUMES" in os.environ:
            _fake_cinder(json.loads(os.environ["FAKE_VOLUMES"]))
        sys.argv = ["freezer-agent", *request["argv"]]
        status = freezer.main.main() or 0
    except SystemExit as exc:
        status = exc.code if isinstance(exc.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _fake_cinder(volumes: dict[str, str]) -> None:
    """A Cinder with these volumes: names by id."""
    from types import SimpleNamespace

    from freezer.openstack import osclients

    records = {key: SimpleNamespace(id=key, name=name, size=1) for key, name in volumes.items()}
    cinder = SimpleNamespace(
        volumes=lambda details, name: list(records.values()), get_volume=records.__getitem__
    )
    osclients.OSClientManager.get_cinder = lambda self: cinder


if __name__ == "__main__":
    main()
