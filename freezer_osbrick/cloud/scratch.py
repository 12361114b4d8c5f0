# SPDX-License-Identifier: Apache-2.0
"""A run's folder of temporary files."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

from freezer_osbrick import errors


def clear(folder: str) -> None:
    """Remove a folder and all below it; what is mounted there is unmounted and not emptied.

    :raises errors.Leftovers: something is still mounted there, or cannot be removed.
    """
    for point in mounts_below(folder):
        done = subprocess.run(["umount", "--", point], capture_output=True, text=True, check=False)
        if done.returncode:
            raise errors.Leftovers(f"{point} cannot be unmounted: {done.stderr.strip()}")
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise errors.Leftovers(f"The folder {folder} cannot be removed: {error}.") from error


def mounts_below(folder: str, mountinfo: str = "/proc/self/mountinfo") -> list[str]:
    """The mount points below a folder, the innermost first."""
    prefix = os.path.realpath(folder) + "/"
    with open(mountinfo, encoding="utf-8", errors="surrogateescape") as file:
        points = [_unescaped(line.split(" ")[4]) for line in file]
    below = [point for point in points if (point + "/").startswith(prefix)]
    return below[::-1]  # the kernel lists the outer ones first


def _unescaped(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)
