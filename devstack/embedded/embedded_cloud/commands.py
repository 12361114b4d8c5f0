# SPDX-License-Identifier: Apache-2.0
"""The command line: up, down, status, pretend-server, release-server, quota, ceph-modules."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from . import ceph, lifecycle
from .client import EmbeddedCloud
from .errors import CloudError
from .state import PROJECTS, default_folder, default_venv

_ASK_A_CLOUD = ("pretend-server", "release-server", "quota")


def _say(line: str) -> None:
    print(line, flush=True)


def _up(cloud: EmbeddedCloud, options: argparse.Namespace) -> int:
    with_ceph = options.ceph or options.install_ceph or "ceph" in cloud.state.settings
    if with_ceph:
        ceph.require(options.install_ceph, _say)
    venv = options.venv.expanduser().absolute()
    lifecycle.up(
        cloud.state,
        venv,
        _say,
        attach=options.attach,
        with_ceph=with_ceph,
        backends=options.backends,
    )
    return 0


def _down(cloud: EmbeddedCloud, options: argparse.Namespace) -> int:
    lifecycle.down(cloud.state, options.wipe, _say)
    return 0


def _status(cloud: EmbeddedCloud, options: argparse.Namespace) -> int:
    status = cloud.status()
    if options.json:
        print(json.dumps(status, indent=2))
    else:
        _print_table(status)
    return 0 if status["running"] else 3


def _print_table(status: dict[str, Any]) -> None:
    rows = [("state", status["state"]), ("running", "yes" if status["running"] else "no")]
    for name, pid in status.get("pids", {}).items():
        rows.append((name, f"pid {pid}" if pid else "not running"))
    for key in (
        "auth_url",
        "cinder_url",
        "compute_url",
        "attach",
        "pool",
        "pool_kind",
        "reflink",
        "faults",
        "api_faults",
        "venv",
        "log",
        "ceph_conf",
        "ceph_keyring",
    ):
        if status.get(key) is not None:
            rows.append((key, str(status[key])))
    if status.get("backends"):
        rows.append(("volume types", ", ".join(status["backends"])))
    for project in status.get("projects", {}).values():
        rows.append((f"user {project['username']}", project["openrc"]))
    for server_id, server in status.get("servers", {}).items():
        for volume_id, volume in server["volumes"].items():
            rows.append((f"server {server_id}", f"{volume_id} at {volume['device']}"))
    for device, path in sorted(status.get("loop_devices", {}).items()):
        rows.append((device, path))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")


def _pretend_server(cloud: EmbeddedCloud, options: argparse.Namespace) -> int:
    print(json.dumps(cloud.pretend_server(options.volume, options.project, options.server)))
    return 0


def _release_server(cloud: EmbeddedCloud, options: argparse.Namespace) -> int:
    cloud.release_server(options.volume)
    return 0


def _quota(cloud: EmbeddedCloud, options: argparse.Namespace) -> int:
    names = ("volumes", "snapshots", "gigabytes", "groups")
    limits = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.reset:
        cloud.reset_quota(options.project)
    if limits:
        cloud.set_quota(options.project, **limits)
    elif not options.reset:
        raise CloudError("name a limit (--volumes, --snapshots, --gigabytes, --groups) or --reset")
    return 0


def _ceph_modules(cloud: EmbeddedCloud, options: argparse.Namespace) -> int:
    ceph.link_modules(options.venv)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cloud.py", description=__doc__)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--state",
        type=pathlib.Path,
        default=default_folder(),
        metavar="DIR",
        help="state folder (or EMBEDDED_CLOUD_STATE; now %(default)s)",
    )
    verbs = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    up = verbs.add_parser("up", parents=[common], help="bring the cloud up")
    up.add_argument(
        "--venv",
        type=pathlib.Path,
        default=default_venv(),
        metavar="DIR",
        help="the cloud's environment (or EMBEDDED_CLOUD_VENV; now %(default)s)",
    )
    up.add_argument(
        "--attach",
        choices=("loop", "file"),
        help="attach volumes as loop devices (default for root) or as file paths",
    )
    up.add_argument(
        "--ceph",
        action="store_true",
        help="add a Ceph backend (volume type rbd); kept at later ups",
    )
    up.add_argument(
        "--install-ceph",
        action="store_true",
        help="the same, and let apt-get install Ceph's packages where they are missing",
    )
    up.add_argument(
        "--backends",
        type=pathlib.Path,
        metavar="FILE",
        help="further backends in the words of cinder.conf: each section but DEFAULT is one, and a"
        " volume type of that name; kept at later ups",
    )
    up.set_defaults(run=_up)

    down = verbs.add_parser("down", parents=[common], help="stop all of it")
    down.add_argument("--wipe", action="store_true", help="remove the state as well")
    down.set_defaults(run=_down)

    status = verbs.add_parser(
        "status", parents=[common], help="say what runs; exit status 3 when the cloud is not up"
    )
    status.add_argument("--json", action="store_true", help="for programs; shows passwords")
    status.set_defaults(run=_status)

    pretend = verbs.add_parser(
        "pretend-server",
        parents=[common],
        help="attach a volume to a server that is only pretended",
    )
    pretend.add_argument("volume", metavar="VOLUME_ID")
    pretend.add_argument("--as", dest="project", choices=PROJECTS, default="demo")
    pretend.add_argument("--server", metavar="ID", help="add the volume to this server")
    pretend.set_defaults(run=_pretend_server)

    release = verbs.add_parser(
        "release-server", parents=[common], help="detach a volume from its pretended server"
    )
    release.add_argument("volume", metavar="VOLUME_ID")
    release.set_defaults(run=_release_server)

    quota = verbs.add_parser("quota", parents=[common], help="set a project's quotas in Cinder")
    quota.add_argument("project", choices=PROJECTS)
    for name in ("volumes", "snapshots", "gigabytes", "groups"):
        quota.add_argument(f"--{name}", type=int, metavar="N")
    quota.add_argument("--reset", action="store_true", help="back to the defaults first")
    quota.set_defaults(run=_quota)

    modules = verbs.add_parser(
        "ceph-modules",
        parents=[common],
        help="show Debian's rados and rbd modules to a virtual environment, an agent's say",
    )
    modules.add_argument("venv", type=pathlib.Path, metavar="VENV")
    modules.set_defaults(run=_ceph_modules)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    # losetup, mount and mkfs.xfs lie where a plain shell may not look
    os.environ["PATH"] = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    options = _parser().parse_args(arguments)
    try:
        cloud = EmbeddedCloud(options.state)
        if options.command in _ASK_A_CLOUD and not cloud.state.exists():
            raise CloudError(f"there is no cloud in {cloud.state.folder}: bring it up first")
        return int(options.run(cloud, options))
    except (CloudError, OSError) as error:
        print(f"cloud.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("cloud.py: interrupted", file=sys.stderr)
        return 130
