# SPDX-License-Identifier: Apache-2.0
"""The storage guest as a machine that runs, and calls into it."""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import queue
import shlex
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from types import TracebackType
from typing import Any, TextIO

from tests.transports import image

_MEMORY = 3584  # MiB
_PROCESSORS = 1  # two machines run at a time
_PATIENCE = 900.0  # seconds that a call may take before the guest is given up
_PORT = "tests"

# KVM is not asked for: on nested machines it may be there and not run this kernel.
_TCG = "tcg,tb-size=1024"
# What a kernel does for safety and for statistics is dear on an emulated processor.
_KERNEL = (
    "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable nokaslr audit=0 lsm=capability "
    "random.trust_cpu=on init_on_alloc=0 hardened_usercopy=off psi=0 cgroup_disable=memory "
    "nowatchdog rcupdate.rcu_expedited=1"
)


class GuestError(Exception):
    """A call failed in the guest, or the guest is gone; the message tells all that is known."""


class Machine:
    """A running guest.

    :param disks: the folder of ``root.img`` and ``volumes.img``.
    :param delivery: an archive that the guest sees as a disk.
    :param state: what ``save`` has written, to go on from there; None for a boot. Going on, nothing
        is written into the disks; a boot does write.
    """

    def __init__(
        self, disks: pathlib.Path, delivery: pathlib.Path, state: pathlib.Path | None = None
    ) -> None:
        files = image.ensure()
        # Not in /tmp, which may be memory.
        self._folder = pathlib.Path(tempfile.mkdtemp(prefix="storage-guest-", dir="/var/tmp"))
        self.console = self._folder / "console"
        self._calls, self._control = self._folder / "calls", self._folder / "control"
        keep = "snapshot=off" if state is None else "snapshot=on"
        command = [
            *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"),
            *("-accel", _TCG, "-cpu", "Westmere-v1", "-M", "q35", "-no-reboot"),
            *("-m", str(_MEMORY), "-smp", str(_PROCESSORS), "-serial", f"file:{self.console}"),
            *("-kernel", str(files / "vmlinuz"), "-initrd", str(files / "initrd.gz")),
            *("-append", _KERNEL),
            *_drive("root", disks / "root.img", keep),
            *_drive("volumes", disks / "volumes.img", f"{keep},discard=unmap"),
            *_drive("delivery", delivery, "readonly=on"),
            *_fibre_channel(),
            *("-device", "virtio-rng-pci", "-device", "virtio-serial-pci"),
            *("-chardev", f"socket,id=tests,path={self._calls},server=on,wait=off"),
            *("-device", f"virtserialport,chardev=tests,name={_PORT}"),
            *("-qmp", f"unix:{self._control},server=on,wait=off"),
            *(() if state is None else ("-incoming", f"exec:cat {shlex.quote(str(state))}")),
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
            self._socket = self._connect(self._calls)
            threading.Thread(target=self._receive, daemon=True).start()
            self.call("shell.hostname")
        except BaseException:
            self.close()
            raise

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

    def save(self, path: pathlib.Path) -> None:
        """Write the whole state of the guest into a file; it stands still then."""
        with self._connect(self._control) as control, control.makefile("rw") as lines:
            _order(lines, "qmp_capabilities")
            _order(lines, "migrate-set-parameters", **{"max-bandwidth": 1 << 40})
            _order(lines, "migrate", uri=f"exec:cat >{shlex.quote(str(path))}")
            while (status := _order(lines, "query-migrate").get("status")) != "completed":
                if status in ("failed", "cancelled"):
                    raise GuestError(f"its state could not be saved\n{self._last()}")
                time.sleep(0.2)

    def _connect(self, path: pathlib.Path) -> socket.socket:
        found = socket.socket(socket.AF_UNIX)
        while True:
            try:
                found.connect(str(path))
                return found
            except OSError:
                if self._process.poll() is not None:
                    raise GuestError(f"QEMU ended.\n{self._last()}") from None
                time.sleep(0.05)

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


def _order(lines: TextIO, name: str, **arguments: Any) -> dict[str, Any]:
    """Give QEMU an order; returns its answer."""
    lines.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
    lines.flush()
    while True:
        answer = json.loads(lines.readline())
        if "error" in answer:
            raise GuestError(f"QEMU refuses {name}: {answer['error']['desc']}")
        if "return" in answer:  # what else comes is a greeting, or an event
            return dict(answer["return"])


def _drive(name: str, path: pathlib.Path, options: str) -> list[str]:
    drive = f"file={path},format=raw,if=none,id={name},cache=unsafe,{options}"
    return ["-drive", drive, "-device", f"virtio-blk-pci,drive={name},serial={name}"]


def _fibre_channel() -> list[str]:
    """Two network cards on one hub, for Fibre Channel over Ethernet from the one to the other.

    os-brick finds volumes by a card's place on the PCI bus, which virtio's cards do not tell.
    """
    words = []
    for number in (1, 2):
        name = f"fc{number}"
        words += ["-netdev", f"hubport,id={name},hubid=0"]
        words += ["-device", f"vmxnet3,netdev={name},mac=52:54:00:fc:00:0{number}"]
    return words
