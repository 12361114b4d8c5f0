# SPDX-License-Identifier: Apache-2.0
"""Loop devices: a file of the pool shown as a block device."""

from __future__ import annotations

import os
import pathlib
import subprocess

_DELETED = " (deleted)"


class LoopError(Exception):
    """``losetup`` failed; the message is its own."""


def _losetup(*arguments: str) -> str:
    done = subprocess.run(["losetup", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise LoopError(f"losetup {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def usable() -> bool:
    """Whether there are loop devices for us: not for a plain user, nor in a plain container."""
    try:
        _losetup("--find")
    except (LoopError, OSError):
        return False
    return os.geteuid() == 0


def devices() -> dict[str, str]:
    """All loop devices in use: ``/dev/loopN`` → path of the file behind it."""
    found = {}
    for entry in pathlib.Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            backing = entry.read_text(encoding="utf-8", errors="surrogateescape").rstrip("\n")
        except OSError:  # it was detached while we looked
            continue
        found[f"/dev/{entry.parts[3]}"] = backing.removesuffix(_DELETED)
    return found


def below(folder: str | os.PathLike[str]) -> dict[str, str]:
    """The loop devices whose file lies in the folder."""
    prefix = os.path.join(os.path.realpath(folder), "")
    return {device: path for device, path in devices().items() if path.startswith(prefix)}


def of(path: str | os.PathLike[str]) -> list[str]:
    """The loop devices of one file."""
    wanted = os.path.realpath(path)
    return sorted(device for device, backing in devices().items() if backing == wanted)


def is_read_only(device: str) -> bool:
    """Whether the kernel refuses writes to the device."""
    flag = pathlib.Path("/sys/block", os.path.basename(device), "ro")
    return flag.read_text(encoding="ascii").strip() == "1"


def attach(path: str | os.PathLike[str], read_only: bool) -> str:
    """Show the file as a block device; the same device again when there is one already."""
    for device in of(path):
        if is_read_only(device) == read_only:
            return device
    mode = ["--read-only"] if read_only else []
    device = _losetup("--find", "--show", *mode, os.fspath(path))
    try:
        _losetup("--direct-io=on", device)  # no second page cache below the device's own
    except LoopError:
        pass  # the file system does not offer it; the device works all the same
    return device


def detach(device: str) -> None:
    """Release the device; the kernel does it when the last holder closes it."""
    _losetup("--detach", device)


def refresh_size(device: str) -> None:
    """Let the device follow its file, which has grown."""
    _losetup("--set-capacity", device)
