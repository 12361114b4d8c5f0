# SPDX-License-Identifier: Apache-2.0
"""The storage guest's disk: Debian with its own kernel, Cinder, and what our package needs.

Built once of the packages of Debian and PyPI, and kept in ``.venv/storage-guest`` until the recipe
changes. Our package itself is not on it.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence

from tests import environments

HERE = pathlib.Path(__file__).parent
CHECKOUT = HERE.parents[1]
FOLDER = pathlib.Path(
    os.environ.get("FREEZER_OSBRICK_STORAGE_GUEST", CHECKOUT / ".venv" / "storage-guest")
)

# Where things lie in the guest.
CLOUD = "opt/cloud"
STATE = "srv/cloud"
OURS = "opt/osbrick"

HOST_PACKAGES = (
    "busybox-static",
    "cpio",
    "e2fsprogs",
    "kmod",
    "mmdebstrap",
    "python3-venv",
    "qemu-system-x86",
)
GUEST_PACKAGES = (
    *(
        "bash",
        "busybox-static",
        "ca-certificates",
        "dmsetup",
        "e2fsprogs",
        "fcoe-utils",
        "iproute2",
    ),
    *("kmod", "lsscsi", "lvm2", "mount", "multipath-tools", "netbase", "nvme-cli", "open-iscsi"),
    *("procps", "python3", "sg3-utils", "sg3-utils-udev", "sudo", "sysfsutils"),
    *("thin-provisioning-tools", "udev", "util-linux", "uuid-runtime"),
)
MODULES = (
    *("virtio_pci", "virtio_blk", "virtio_console", "virtio_rng", "ext4"),
    *("dm-mod", "dm-thin-pool", "dm-snapshot", "dm-multipath", "dm-round-robin", "dm-service-time"),
    *(
        "scsi_dh_alua",
        "sd_mod",
        "sg",
        "loop",
        "dummy",
        "configfs",
        "crc32c_generic",
        "crc32c-intel",
    ),
    *(
        "crct10dif_generic",
        "crct10dif-pclmul",
        "iscsi_tcp",
        "target_core_mod",
        "target_core_iblock",
    ),
    *("iscsi_target_mod", "nvme-tcp", "nvme-fabrics", "nvmet", "nvmet-tcp", "vmxnet3", "libfc"),
    *("libfcoe", "fcoe", "tcm_fc", "scsi_transport_fc", "qemu_fw_cfg"),
)
_BOOT_MODULES = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4")

_EARLY_INIT = """\
#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
while read module; do insmod /modules/$module 2>/dev/null; done </modules/order
i=0; while [ ! -b /dev/vda ] && [ $i -lt 100 ]; do sleep 0.05; i=$((i+1)); done
mount -t ext4 -o rw,noatime /dev/vda /newroot || exec sh
mount --move /dev /newroot/dev; mount --move /proc /newroot/proc; mount --move /sys /newroot/sys
exec switch_root /newroot /sbin/storage-guest-init
"""


class ImageError(Exception):
    """The image cannot be built; the message says why."""


def install_host_packages() -> None:
    """Install what builds and runs the guest, naming it before; root's to do."""
    listed = _run(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\\n"])
    installed = {line.split()[0] for line in listed.splitlines() if line.endswith(" installed")}
    missing = [name for name in HOST_PACKAGES if name not in installed]
    if not missing:
        return
    if os.geteuid() != 0:
        raise ImageError(f"these Debian packages are needed: {' '.join(missing)}")
    say(f"installing these Debian packages: {' '.join(missing)}")
    quietly = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=600"]
    _run([*apt, "update"], env=quietly)
    _run([*apt, "install", "--no-install-recommends", *missing], env=quietly)


def ensure() -> pathlib.Path:
    """The folder with ``vmlinuz``, ``initrd.gz`` and ``root.img``; built where it is not there."""
    install_host_packages()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with environments.locked(FOLDER):
        stamp = FOLDER / "stamp"
        wanted = fingerprint()
        if not stamp.exists() or stamp.read_text() != wanted:
            if os.geteuid() != 0:
                raise ImageError("only root can build the storage guest")
            stamp.unlink(missing_ok=True)
            _Build(FOLDER).all()
            stamp.write_text(wanted)
    return FOLDER


def fingerprint() -> str:
    """Changes with the recipe, the packages and the system that it is built on."""
    found = hashlib.sha256()
    for path in (pathlib.Path(__file__), HERE / "inside" / "init.sh", *_requirements()):
        found.update(path.read_bytes())
    found.update(_codename().encode())
    return found.hexdigest()


def _requirements() -> tuple[pathlib.Path, pathlib.Path]:
    return CHECKOUT / "devstack" / "embedded" / "requirements.txt", CHECKOUT / "requirements.txt"


class _Build:
    """One build, of which nothing but the result stays."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._out = folder
        self._work = folder / "work"
        self._root = self._work / "root"
        self._kernel = self._work / "kernel"
        self._release = ""

    def all(self) -> None:
        _remove(self._work)
        self._work.mkdir()
        self._step("the kernel", self._fetch_kernel)
        self._step("Debian", self._bootstrap)
        self._step("Cinder and Keystone", lambda: self._environment(CLOUD, _requirements()[0]))
        self._step("what our package needs", lambda: self._environment(OURS, _requirements()[1]))
        self._step("the cloud's databases", self._seed)
        self._step("the disk", self._disk)
        _remove(self._work)

    @staticmethod
    def _step(what: str, do: object) -> None:
        began = time.monotonic()
        do()  # type: ignore[operator]
        say(f"{what}: {time.monotonic() - began:.0f} s")

    def _fetch_kernel(self) -> None:
        # Not the "cloud" kernel: it has no Fibre Channel.
        depends = _run(["apt-cache", "depends", "linux-image-amd64"])
        package = re.search(r"Depends: (linux-image-\S+)", depends)
        if package is None:
            raise ImageError("apt knows no package linux-image-amd64: run apt-get update")
        self._release = package[1].removeprefix("linux-image-")
        _run(["apt-get", "-q", "download", package[1]], cwd=self._work)
        (archive,) = self._work.glob("linux-image-*.deb")
        _run(["dpkg-deb", "-x", str(archive), str(self._kernel)])
        _run(["depmod", "-b", str(self._kernel), self._release])
        shutil.copy(self._kernel / "boot" / f"vmlinuz-{self._release}", self._out / "vmlinuz")

    def _bootstrap(self) -> None:
        sources = [
            path
            for path in ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list")
            if os.path.exists(path)
        ]
        if not sources:
            raise ImageError("this system has no Debian sources to take packages from")
        options = [
            f"--aptopt={path}" for path in sorted(pathlib.Path("/etc/apt/apt.conf.d").glob("*"))
        ]
        left_out = ("man", "doc", "locale", "info")
        options += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in left_out]
        _run(
            [
                *(
                    "mmdebstrap",
                    "--mode=root",
                    "--variant=minbase",
                    "--format=directory",
                    "--quiet",
                ),
                f"--include={','.join(GUEST_PACKAGES)}",
                *('--aptopt=APT::Install-Recommends "false"', "--dpkgopt=force-unsafe-io"),
                *options,
                *(_codename(), str(self._root), sources[0]),
            ]
        )
        shutil.rmtree(self._root / "var" / "lib" / "apt" / "lists")
        (self._root / "etc" / "hostname").write_text("storage-guest\n")
        (self._root / "etc" / "hosts").write_text("127.0.0.1 localhost storage-guest\n")

    def _environment(self, where: str, requirements: pathlib.Path) -> None:
        """A virtual environment in the guest, made from outside: Python is of the same version."""
        venv = self._root / where
        _run(["/usr/bin/python3", "-m", "venv", str(venv)])
        pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        _run([*pip, "--disable-pip-version-check", "-r", str(requirements)])
        for script in (venv / "bin").iterdir():
            if script.is_file() and not script.is_symlink():
                text = script.read_bytes().replace(str(venv).encode(), b"/" + where.encode())
                script.write_bytes(text)
        for tests in list(venv.glob("lib/python3*/site-packages/*/tests")):
            _remove(tests)

    def _seed(self) -> None:
        """Let the cloud make its databases here, where it is quicker than in the guest."""
        state = self._root / STATE
        state.mkdir(parents=True)
        # The pool of the type "file" in a folder: no image of a file system that stays mounted.
        (state / "cloud.json").write_text('{"pool_kind": "directory"}')
        launcher = str(CHECKOUT / "devstack" / "embedded" / "cloud.py")
        python = [str(self._root / CLOUD / "bin" / "python"), launcher]
        where = ["--state", str(state)]
        try:
            venv = str(self._root / CLOUD)
            _run([*python, "up", *where, "--venv", venv, "--attach", "file"])
        finally:
            _run([*python, "down", *where])

    def _disk(self) -> None:
        shutil.copy(HERE / "inside" / "init.sh", self._root / "sbin" / "storage-guest-init")
        (self._root / "sbin" / "storage-guest-init").chmod(0o755)
        self._install_modules()
        self._early()
        used = int(_run(["du", "-sm", str(self._root)]).split()[0])
        image = self._out / "root.img"
        image.unlink(missing_ok=True)
        _run(
            [
                *("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal,^metadata_csum", "-m", "0"),
                *("-E", "lazy_itable_init=0,nodiscard", "-d", str(self._root)),
                *(str(image), f"{used + 2500}M"),
            ]
        )

    def _install_modules(self) -> None:
        source = self._kernel / "lib" / "modules" / self._release
        target = self._root / "lib" / "modules" / self._release
        for name in MODULES:
            for path in self._with_dependencies(name):
                copy = target / path.relative_to(source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, copy)
        for name in ("modules.builtin", "modules.order", "modules.builtin.modinfo"):
            shutil.copy(source / name, target / name)
        _run(["depmod", "-b", str(self._root), self._release])

    def _early(self) -> None:
        """The initial RAM disk: a shell and what mounts the root file system."""
        folder = self._work / "early"
        for name in ("bin", "proc", "sys", "dev", "newroot", "modules"):
            (folder / name).mkdir(parents=True)
        shutil.copy("/bin/busybox", folder / "bin" / "busybox")
        for name in ("sh", "mount", "insmod", "switch_root", "sleep"):
            (folder / "bin" / name).symlink_to("busybox")
        order = []
        for module in _BOOT_MODULES:
            for path in self._with_dependencies(module):
                if path.name not in order:
                    order.append(path.name)
                    shutil.copy(path, folder / "modules" / path.name)
        (folder / "modules" / "order").write_text("".join(f"{name}\n" for name in order))
        (folder / "init").write_text(_EARLY_INIT)
        (folder / "init").chmod(0o755)
        pack = f"find . | cpio --quiet -o -H newc | gzip -1 >{self._out / 'initrd.gz'}"
        _run(["sh", "-c", pack], cwd=folder)

    def _with_dependencies(self, module: str) -> list[pathlib.Path]:
        """The files of a module, in the order of loading; none for one that is built in."""
        lines = _run(
            ["modprobe", "-d", str(self._kernel), "-S", self._release, "--show-depends", module]
        )
        files = [line.split()[1] for line in lines.splitlines() if line.startswith("insmod")]
        return [pathlib.Path(name) for name in files]


def _codename() -> str:
    found = re.search(
        r"^VERSION_CODENAME=(\w+)", pathlib.Path("/etc/os-release").read_text(), re.MULTILINE
    )
    if found is None:
        raise ImageError("the storage guest is built on Debian")
    return found[1]


def _remove(folder: pathlib.Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def say(line: str) -> None:
    """Tell what takes time."""
    print(f"storage guest: {line}", file=sys.stderr, flush=True)


def _run(command: Sequence[str], **options: object) -> str:
    done = subprocess.run(
        list(command),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        **options,  # type: ignore[call-overload]
    )
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-8:])
        raise ImageError(f"{' '.join(command)[:200]} failed:\n{last}")
    return str(done.stdout)
