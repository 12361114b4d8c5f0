# SPDX-License-Identifier: Apache-2.0
"""A real OpenSSH server for tests, with keys and a user of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from tests.functional.stores import environment

_PACKAGES = ("openssh-server", "openssh-sftp-server", "libwrap0")
_NOBODY = 65534

_CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
PidFile none
AuthorizedKeysFile {folder}/authorized_keys
StrictModes no
UsePAM yes
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 100
Subsystem sftp internal-sftp
"""


@dataclasses.dataclass(frozen=True)
class SshServer:
    """A running server.

    :param folder: with ``key`` (private, of the user), ``known_hosts`` and ``files``, which the
        user may write to.
    """

    folder: pathlib.Path
    port: int
    user: str


def make_key(path: pathlib.Path) -> None:
    """A private key, and its public one in ``PATH.pub``."""
    key = ed25519.Ed25519PrivateKey.generate()
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    path.with_name(path.name + ".pub").write_bytes(public + b"\n")


def _programs(folder: pathlib.Path) -> tuple[str, dict[str, str]]:
    """``sshd``, and the environment that it needs.

    Where it is not installed, Debian's packages are unpacked and not installed: that would start a
    server on this machine. Skips the test where they cannot be had.

    :param folder: which the server's user can reach; the checkout may lie where only root can.
    """
    found = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found:
        return found, {}
    unpacked = environment.folder() / "openssh"
    unpacked.mkdir(parents=True, exist_ok=True)
    with environment.locked(unpacked):
        if not (unpacked / "usr/sbin/sshd").exists():
            if not shutil.which("apt-get"):
                pytest.skip("there is no sshd, and no apt-get to fetch it with")
            environment.run(
                ["apt-get", "download", "-qq", *_PACKAGES], "OpenSSH's server", cwd=unpacked
            )
            for package in unpacked.glob("*.deb"):
                environment.run(
                    ["dpkg", "-x", str(package), str(unpacked)], "OpenSSH's server", cwd=unpacked
                )
    for path in (unpacked / "usr/sbin/sshd", *unpacked.rglob("libwrap.so.0")):
        shutil.copy(path, folder)
    return str(folder / "sshd"), {"LD_LIBRARY_PATH": str(folder)}


@contextlib.contextmanager
def running(folder: pathlib.Path) -> Iterator[SshServer]:
    """A server that runs as a plain user: as root it would want a user ``sshd`` on the machine."""
    folder.chmod(0o755)
    sshd, variables = _programs(folder)
    for name in ("host_key", "key"):
        make_key(folder / name)
    (folder / "authorized_keys").write_text((folder / "key.pub").read_text())
    (folder / "files").mkdir()
    user = "root"
    as_nobody = {}
    if os.geteuid() == 0:
        user, as_nobody = "nobody", {"user": _NOBODY, "group": _NOBODY, "extra_groups": ()}
        for path in (folder / "host_key", folder / "files"):
            os.chown(path, _NOBODY, _NOBODY)
    else:
        import pwd

        user = pwd.getpwuid(os.geteuid()).pw_name
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    key = (folder / "host_key.pub").read_text().split()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {key[0]} {key[1]}\n")
    (folder / "config").write_text(_CONFIG.format(port=port, folder=folder))
    with _opened_to_all(folder.parent), open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [sshd, "-D", "-e", "-f", str(folder / "config")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **variables},
            **as_nobody,  # type: ignore[call-overload]
        )
        try:
            _wait_for(port, process, folder / "log")
            yield SshServer(folder, port, user)
        finally:
            process.terminate()
            process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes], log: pathlib.Path) -> None:
    until = time.monotonic() + environment.PATIENCE
    while True:
        assert process.poll() is None and time.monotonic() < until, log.read_text(errors="replace")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
            return
        time.sleep(0.1)


@contextlib.contextmanager
def _opened_to_all(path: pathlib.Path) -> Iterator[None]:
    """Let the server's user pass through the folders above."""
    changed = []
    try:
        for folder in (path, *path.parents):
            mode = folder.stat().st_mode & 0o7777
            if not mode & 0o001:
                folder.chmod(mode | 0o001)
                changed.append((folder, mode))
        yield
    finally:
        for folder, mode in changed:
            folder.chmod(mode)
