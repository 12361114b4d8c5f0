# SPDX-License-Identifier: Apache-2.0
"""Bringing the cloud up and down."""

from __future__ import annotations

import os
import pathlib
import time
from collections.abc import Callable

from . import ceph, configuration, loop, pool, seeding, servers, virtualenv
from .errors import CloudError
from .process import Service
from .rest import answers
from .state import SERVICES, State

_PACKAGE_PARENT = pathlib.Path(__file__).resolve().parents[1]
Say = Callable[[str], None]


def up(
    state: State,
    venv: pathlib.Path,
    say: Say,
    *,
    attach: str | None = None,
    with_ceph: bool = False,
    backends: pathlib.Path | None = None,
) -> None:
    """Bring the cloud up, or whatever part of it is down.

    ``attach`` is ``loop``, ``file`` or None for what it was (loop devices where root has them,
    else file paths). ``with_ceph`` adds a Ceph backend, ``backends`` those of a file in the words
    of ``cinder.conf``, whose section DEFAULT is for all; the cloud keeps them from then on. What
    runs, answers and has the configuration it should have is left alone.
    """
    began = time.monotonic()
    python = virtualenv.ensure(venv, say)
    with state.locked():
        state.create()
        settings = state.settings
        settings["venv"] = str(venv)
        settings["attach"] = _attach_kind(settings.get("attach"), attach)
        if with_ceph:
            settings.setdefault("ceph", {})
        if backends is not None:
            sections = configuration.read(backends)
            settings["more_options"] = sections.pop("DEFAULT", {})
            settings["more_backends"] = sections
        settings["backends"] = [
            "file",
            *(["rbd"] if "ceph" in settings else []),
            *settings.get("more_backends", {}),
        ]
        state.save()
        say(f"pool: {pool.prepare(state)}")
        how = "loop devices" if settings["attach"] == "loop" else "file paths (no block devices)"
        say(f"volumes are attached as {how}")
        keystone = _start_keystone(state, python)
        if "ceph" in settings:
            ceph.link_modules(venv)
            ceph.Cluster(state).start()
            say("Ceph is up: volume type rbd")
        cinder = _start_cinder(state, venv, python)
        keystone.wait(lambda: answers(state.auth_url), "Keystone")
        seeding.identity(state)
        state.write_openrc()
        cinder.wait(lambda: answers(state.cinder_root + "/healthcheck"), "Cinder")
        admin = seeding.admin_session(state)
        admin.authenticate()
        seeding.volume_types(state, admin)
        servers.refresh(state, admin)
    say(
        f"the cloud is up after {time.monotonic() - began:.1f} s: {state.auth_url}, "
        f"users in {state.folder}/*rc"
    )


def _attach_kind(before: str | None, wanted: str | None) -> str:
    kind = wanted or before or ("loop" if loop.usable() else "file")
    if kind == "loop" and os.geteuid() != 0:
        raise CloudError("only root can attach loop devices; use --attach file")
    return kind


def _command(python: pathlib.Path, module: str, *arguments: str) -> list[str]:
    return [str(python), "-W", "ignore", "-m", f"embedded_cloud.services.{module}", *arguments]


def _environment(**more: str) -> dict[str, str]:
    return {"PYTHONPATH": str(_PACKAGE_PARENT), "PYTHONDONTWRITEBYTECODE": "1", **more}


def _start_keystone(state: State, python: pathlib.Path) -> Service:
    """Start Keystone unless it runs; the first start also makes its database."""
    service = Service(state, "keystone")
    if service.pid() is not None and answers(state.auth_url):
        return service
    service.stop()
    with state.listener("keystone") as listener:
        path = state.keystone / "keystone.conf"
        configuration.write(path, configuration.keystone(state))
        password = state.settings["passwords"]["admin"]
        service.start(
            _command(python, "keystone_api", str(path), state.auth_url),
            _environment(OS_BOOTSTRAP_PASSWORD=password),
            listener,
        )
    return service


def _start_cinder(state: State, venv: pathlib.Path, python: pathlib.Path) -> Service:
    """Start Cinder unless it runs with the configuration that it should have."""
    service = Service(state, "cinder")
    path = state.cinder / "cinder.conf"
    if "cinder" in state.settings["ports"]:
        changed = configuration.write(path, configuration.cinder(state, venv))
        if not changed and service.pid() and answers(state.cinder_root + "/healthcheck"):
            return service
    service.stop()
    with state.listener("cinder") as listener:
        configuration.write(path, configuration.cinder(state, venv))
        service.start(
            _command(python, "cinder_services", "--config-file", str(path)),
            _environment(
                OS_CINDER_DISABLE_EVENTLET_PATCHING="true",
                PATH=f"{venv / 'bin'}:{os.environ['PATH']}",  # Cinder's helpers, cinder-rtstool
            ),
            listener,
        )
    return service


def down(state: State, wipe: bool, say: Say) -> None:
    """Stop all, detach the pool's loop devices, unmount; with ``wipe`` remove the state."""
    if not state.folder.exists():
        say(f"there is no cloud in {state.folder}")
        return
    with state.locked():
        for name in reversed(SERVICES):
            if Service(state, name).stop():
                say(f"stopped {name}")
        for name in ceph.Cluster(state).stop():
            say(f"stopped {name}")
        for line in pool.release(state):
            say(line)
        if wipe:
            state.wipe()
            say(f"removed the state in {state.folder}")
