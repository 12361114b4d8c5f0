# SPDX-License-Identifier: Apache-2.0
"""The storage guest as a machine that runs, and calls into it."""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import queue
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from types import TracebackType
from typing import Any

from tests.transports import image

_MEMORY = 3584  # MiB
_DISK = 24 << 30  # of the volumes, sparse
_PATIENCE = 900.0  # seconds that a call may take before the guest is given up
_PORT = "tests"

# KVM is not asked for: on nested machines it may be there and not run this kernel.
_TCG = "tcg,thread=multi,tb-size=1024"
_KERNEL = (
    "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable nokaslr audit=0 selinux=0 "
    "apparmor=0 random.trust_cpu=on"
)


class GuestError(Exception):
    """A call failed in the guest, or the guest is gone; the message tells all that is known."""


class Machine:
    """A running guest. Its disks are thrown away at the end.

    :param share: a folder that the guest sees, read-only, as ``/host``.
    """

    def __init__(self, share: pathlib.Path) -> None:
        files = image.ensure()
        # Not in /tmp, which may be memory.
        self._folder = pathlib.Path(tempfile.mkdtemp(prefix="storage-guest-", dir="/var/tmp"))
        self.console = self._folder / "console"
        disk = self._folder / "volumes.raw"
        with open(disk, "wb") as file:
            file.truncate(_DISK)
        self._socket_path = self._folder / "socket"
        command = [
            *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"),
            *("-accel", _TCG, "-cpu", "Westmere-v1", "-M", "q35", "-no-reboot"),
            *("-m", str(_MEMORY), "-smp", "2", "-serial", f"file:{self.console}"),
            *("-kernel", str(files / "vmlinuz"), "-initrd", str(files / "initrd.gz")),
            *("-append", _KERNEL),
            # Every boot begins with the disk as it was built.
            *_drive("root", files / "root.img", "snapshot=on"),
            *_drive("volumes", disk, "discard=unmap"),
            *_fibre_channel(),
            *("-device", "virtio-rng-pci", "-device", "virtio-serial-pci"),
            *("-chardev", f"socket,id=tests,path={self._socket_path},server=on,wait=off"),
            *("-device", f"virtserialport,chardev=tests,name={_PORT}"),
            *("-fsdev", f"local,id=host,path={share},security_model=none,readonly=on"),
            *("-device", "virtio-9p-pci,fsdev=host,mount_tag=hostshare"),
        ]
        with open(self._folder / "qemu", "wb") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": str(self._folder)},
            )
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._waiting: dict[int, queue.SimpleQueue[dict[str, Any]]] = {}
        self._unread = b""
        try:
            self._socket = self._connect()
        except BaseException:
            self.close()
            raise
        threading.Thread(target=self._receive, daemon=True).start()

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def call(self, function: str, *arguments: Any, **named: Any) -> Any:
        """Call ``module.function`` of ``inside`` in the guest; arguments and result are JSON.

        Several threads may call at the same time.
        """
        reply: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        with self._lock:
            number = next(self._numbers)
            self._waiting[number] = reply
            request = {"id": number, "call": function, "arguments": arguments, "named": named}
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        try:
            answer = reply.get(timeout=_PATIENCE)
        except queue.Empty:
            answer = {"error": f"no answer within {_PATIENCE:.0f} s"}
        if "error" in answer:
            raise GuestError(f"{function}: {answer['error']}\n{self._last()}")
        return answer["result"]

    def _receive(self) -> None:
        try:
            while True:
                answer = json.loads(self._line())
                self._waiting.pop(answer["id"]).put(answer)
        except (OSError, GuestError) as error:
            for reply in self._waiting.values():
                reply.put({"error": f"the guest is gone: {error}"})

    def close(self) -> None:
        """End the guest and remove its disks."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _connect(self) -> socket.socket:
        found = socket.socket(socket.AF_UNIX)
        while True:
            try:
                found.connect(str(self._socket_path))
                break
            except OSError:
                if self._process.poll() is not None:
                    raise GuestError(f"QEMU ended.\n{self._last()}") from None
                time.sleep(0.05)
        found.settimeout(_PATIENCE)
        self._socket = found
        if self._line() != b'{"ready": true}':
            raise GuestError("The guest did not come up.")
        found.settimeout(None)
        return found

    def _line(self) -> bytes:
        while b"\n" not in self._unread:
            part = self._socket.recv(1 << 16)
            if not part:
                raise GuestError("its port was closed")
            self._unread += part
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _last(self) -> str:
        told = ""
        for path in (self._folder / "qemu", self.console):
            if path.exists():
                told += "\n".join(path.read_text(errors="replace").splitlines()[-25:])
        return told


def _drive(name: str, path: pathlib.Path, options: str) -> list[str]:
    drive = f"file={path},format=raw,if=none,id={name},cache=unsafe,{options}"
    return ["-drive", drive, "-device", f"virtio-blk-pci,drive={name},serial={name}"]


def _fibre_channel() -> list[str]:
    """Two network cards on one hub, for Fibre Channel over Ethernet from the one to the other."""
    words = []
    for number in (1, 2):
        name = f"fc{number}"
        words += ["-netdev", f"hubport,id={name},hubid=0"]
        words += ["-device", f"e1000e,netdev={name},mac=52:54:00:fc:00:0{number}"]
    return words
