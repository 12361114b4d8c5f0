# SPDX-License-Identifier: Apache-2.0
"""Starts freezer-osbrick without the time that its imports take on an emulated processor.

It imports them once: at its start what others wrote, at the first run our package. Each run is a
fork of it, with the user, the variables and the arguments that a request on standard input tells.
The answer is its process id. A second request waits for its end. A plain run is the installed
program and imports all by itself.
"""

from __future__ import annotations

import importlib
import json
import os
import pwd
import sys
from typing import Any


def main() -> None:
    """Serve until standard input ends."""
    sys.path.pop(0)
    import_libraries()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            status = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
            print(json.dumps({"status": status}), flush=True)
            continue
        import_package()
        pid = os.fork()
        if not pid:
            os.setsid()
            run(request)
        print(json.dumps({"pid": pid}), flush=True)


def import_libraries() -> None:
    """What our package imports sooner or later."""
    import brick_cinderclient_ext.client  # noqa: F401
    import cinderclient.v3.client  # noqa: F401
    import cliff.app  # noqa: F401
    import openstack  # noqa: F401
    import os_brick.initiator.connector  # noqa: F401
    from os_brick.initiator.connectors import fibre_channel, iscsi, nvmeof  # noqa: F401


def import_package() -> None:
    """Our package, which may have been installed after the start."""
    importlib.invalidate_caches()
    import freezer_osbrick.commands.main
    import freezer_osbrick.operations.backup
    import freezer_osbrick.operations.restore  # noqa: F401


def run(request: dict[str, Any]) -> None:
    """Become the run. Does not return."""
    status = 70
    try:
        for number, path in enumerate(request["streams"]):
            descriptor = os.open(path, os.O_RDWR)
            os.dup2(descriptor, number)
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["folder"])
        if request["user"] != "root":
            entry = pwd.getpwnam(request["user"])
            os.initgroups(entry.pw_name, entry.pw_gid)
            os.setgid(entry.pw_gid)
            os.setuid(entry.pw_uid)
        if request["plain"]:
            program = os.path.join(os.path.dirname(sys.executable), "freezer-osbrick")
            os.execve(program, [program, *request["words"]], request["environment"])
        sys.argv = ["freezer-osbrick", *request["words"]]
        from freezer_osbrick.commands import main as command

        status = command.main(request["words"])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
