# SPDX-License-Identifier: Apache-2.0
"""The storage guest as it is when all is set up, frozen: tests go on from there.

An emulated processor takes minutes for Cinder's start. The state is made once, and again when the
disk changes or the code that runs in the guest; our package comes into it afterwards.
"""

from __future__ import annotations

import hashlib
import pathlib
import subprocess
import sys
import tarfile
import time

from tests import environments
from tests.transports import image, machine
from tests.transports.machine import Machine

_CODE = ("devstack/embedded", "tests/transports/inside", "etc/sudoers.d")
_PACKAGES = ("tests/__init__.py", "tests/transports/__init__.py")
_VOLUMES = 24 << 30  # bytes of the disk for volumes, sparse
_DELIVERY = 32 << 20  # bytes of the disk that brings something: a guest remembers the size


def thaw(folder: pathlib.Path) -> Machine:
    """A machine that goes on from the frozen state, with our package's wheel as its delivery.

    :param folder: for the wheel.
    """
    state = ensure()
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    command = [*pip, "--no-deps", "--wheel-dir", str(folder), str(image.CHECKOUT)]
    with environments.locked(state):  # setuptools builds in the checkout
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    (wheel,) = folder.glob("*.whl")
    delivery = _pack(folder / "delivery", {wheel.name: wheel})
    return Machine(state, delivery, state / "state")


def ensure() -> pathlib.Path:
    """The folder of the frozen state; made where it is not there or does not fit any more."""
    folder = image.ensure() / "frozen"
    folder.mkdir(exist_ok=True)
    with environments.locked(folder):
        stamp = folder / "stamp"
        wanted = _fingerprint()
        if not stamp.exists() or stamp.read_text() != wanted:
            stamp.unlink(missing_ok=True)
            _freeze(folder)
            stamp.write_text(wanted)
    return folder


def _freeze(folder: pathlib.Path) -> None:
    subprocess.run(
        ["cp", "--sparse=always", str(folder.parent / "root.img"), str(folder)], check=True
    )
    (folder / "volumes.img").unlink(missing_ok=True)
    with open(folder / "volumes.img", "wb") as file:
        file.truncate(_VOLUMES)
    delivery = _pack(folder / "delivery", {f"code/{name}": path for name, path in _code().items()})
    began = time.monotonic()
    with Machine(folder, delivery) as booted:
        image.say(f"booted in {time.monotonic() - began:.0f} s")
        parts = booted.call("storage.prepare")
        said = ", ".join(f"{name} {seconds:.0f}" for name, seconds in parts.items())
        image.say(f"set up: {said} s")
        booted.call("users.settle")
        booted.call("runs.warm")
        booted.save(folder / "state")
    image.say(f"frozen after {time.monotonic() - began:.0f} s")


def _code() -> dict[str, pathlib.Path]:
    """What of the checkout runs in the guest."""
    found = {name: image.CHECKOUT / name for name in _PACKAGES}
    for name in _CODE:
        for path in sorted((image.CHECKOUT / name).rglob("*")):
            inside = path.relative_to(image.CHECKOUT)
            hidden = any(part.startswith((".", "__pycache__")) for part in inside.parts)
            if path.is_file() and not hidden:
                found[str(inside)] = path
    return found


def _fingerprint() -> str:
    """Changes with the disk, the code in the guest, and the machine: a state is of one version."""
    found = hashlib.sha256(image.fingerprint().encode())
    found.update(pathlib.Path(machine.__file__).read_bytes())
    for name, path in _code().items():
        found.update(f"{name} {path.stat().st_mode} ".encode() + path.read_bytes())
    version = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, check=True)
    found.update(version.stdout)
    return found.hexdigest()


def _pack(archive: pathlib.Path, files: dict[str, pathlib.Path]) -> pathlib.Path:
    """An archive of the size that the guest knows."""
    with tarfile.open(archive, "w") as packed:
        for name, path in files.items():
            packed.add(path, name)
    assert archive.stat().st_size <= _DELIVERY, archive
    with open(archive, "r+b") as file:
        file.truncate(_DELIVERY)
    return archive


if __name__ == "__main__":
    try:
        ensure()
    except image.ImageError as error:
        sys.exit(f"The storage guest cannot be made: {error}")
