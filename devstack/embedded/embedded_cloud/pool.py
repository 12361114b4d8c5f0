# SPDX-License-Identifier: Apache-2.0
"""The pool: the folder that holds the volumes' files, on XFS with reflink where that can be."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import time

from . import loop, reflink
from .errors import CloudError
from .state import State

IMAGE_BYTES = 64 << 30  # sparse: it takes the space of what is written to it


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CloudError(f"{' '.join(command)}: {done.stderr.strip()}")


def prepare(state: State) -> str:
    """Make the pool ready; returns one line that says what it is.

    As root, and with ``mkfs.xfs`` there, it is an XFS file system on a loop device; else the
    plain folder. What it was at the first ``up`` it stays, so that no volume goes out of sight.
    """
    kind = state.settings.get("pool_kind")
    note = ""
    if kind is None:
        kind, note = _first_time(state)
        state.settings["pool_kind"] = kind
        state.save()
    if kind == "xfs" and not state.pool.is_mount():
        if os.geteuid() != 0:
            raise CloudError(f"{state.pool} is an XFS image: only root can bring this cloud up")
        _run("mount", "-o", "loop,discard", str(state.pool_image), str(state.pool))
    shares = state.settings.get("reflink")
    if shares is None:
        shares = state.settings["reflink"] = reflink.supported(state.pool)
        state.save()
    if kind == "xfs":
        return f"XFS with reflink on a loop device ({IMAGE_BYTES >> 30} GiB, sparse)"
    how = "which can reflink" if shares else "snapshots are sparse copies, not atomic"
    return f"a plain directory{note}; {how}"


def _first_time(state: State) -> tuple[str, str]:
    """Choose what the pool is: its kind, and why it is not the better one."""
    if state.pool.is_mount():  # an up that was killed right after mounting it
        return "xfs", ""
    if os.geteuid() != 0:
        return "directory", " (not root)"
    if shutil.which("mkfs.xfs") is None:
        return "directory", " (mkfs.xfs is not installed: package xfsprogs)"
    with open(state.pool_image, "wb") as image:
        image.truncate(IMAGE_BYTES)
    try:
        _run("mkfs.xfs", "-q", "-m", "reflink=1", str(state.pool_image))
        _run("mount", "-o", "loop,discard", str(state.pool_image), str(state.pool))
    except CloudError as error:
        state.pool_image.unlink()
        return "directory", f" ({error})"
    return "xfs", ""


def guest_mounts(state: State) -> list[str]:
    """Where file systems inside the pool's volumes are mounted, innermost first."""
    ours = loop.below(state.pool)
    mounts = []
    for line in pathlib.Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        device, target = line.split(" ")[:2]
        if device in ours:
            mounts.append(target.encode().decode("unicode_escape"))
    return mounts[::-1]


def release(state: State) -> list[str]:
    """Unmount and detach all that stands on the pool; returns a line for each thing undone."""
    undone = []
    for target in guest_mounts(state):
        _run("umount", target)
        undone.append(f"unmounted {target}, a file system inside a volume")
    for device, path in loop.below(state.pool).items():
        loop.detach(device)
        undone.append(f"detached {device} from {os.path.basename(path)}")
    if state.pool.is_mount():
        _unmount_pool(state)
        undone.append(f"unmounted {state.pool}")
    return undone


def _unmount_pool(state: State, seconds: float = 10) -> None:
    """Unmount; a loop device that someone still holds keeps the pool busy for a moment."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            _run("umount", str(state.pool))
            return
        except CloudError as error:
            if time.monotonic() > deadline:
                held = ", ".join(sorted(loop.below(state.pool))) or "none"
                raise CloudError(
                    f"the pool cannot be unmounted, something still uses it "
                    f"(loop devices held open: {held}); {error}"
                ) from error
            time.sleep(0.2)
