# SPDX-License-Identifier: Apache-2.0
"""Single files out of backups of real volumes, and backups mounted with real FUSE.

What the kernel shows of a file system is what our readers have to show.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import stat
import struct
import subprocess
import time
from collections.abc import Iterator

import pytest

from freezer_osbrick.guest.filesystem import BrokenFileSystem
from freezer_osbrick.guest.volume import GuestVolume
from tests.functional.backup_host import MIB, BackupHost

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mount and losetup")
pytest.importorskip("freezer")

KINDS = {
    "ext4": (["mkfs.ext4", "-q", "-F"], "loop"),
    "ext4 inline": (["mkfs.ext4", "-q", "-F", "-O", "inline_data,ea_inode"], "loop"),
    "ext3": (["mkfs.ext3", "-q", "-F", "-b", "1024"], "loop"),
    "ext2": (["mkfs.ext2", "-q", "-F", "-I", "128"], "loop"),
    "xfs": (["mkfs.xfs", "-q", "-f"], "loop,nouuid"),
    "xfs wide": (["mkfs.xfs", "-q", "-f", "-n", "size=16384", "-i", "size=1024"], "loop,nouuid"),
    "btrfs": (["mkfs.btrfs", "-q", "-f"], "loop"),
    "btrfs zstd": (["mkfs.btrfs", "-q", "-f"], "loop,compress-force=zstd"),
    "btrfs zlib": (["mkfs.btrfs", "-q", "-f"], "loop,compress-force=zlib"),
    "btrfs lzo": (["mkfs.btrfs", "-q", "-f"], "loop,compress-force=lzo"),
}
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, permissions, identifier)
    for tag, permissions, identifier in [
        (1, 6, 0xFFFFFFFF),
        (2, 4, 1234),
        (4, 4, 0xFFFFFFFF),
        (16, 6, 0xFFFFFFFF),
        (32, 0, 0xFFFFFFFF),
    ]
)


def run(*command: object) -> None:
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)


def fill(folder: pathlib.Path) -> None:
    """What files can be, and how they can lie."""
    base = os.fsencode(folder)
    (folder / "hello").write_bytes(b"hello\n")
    (folder / "empty").write_bytes(b"")
    (folder / "noise").write_bytes(os.urandom(5_000_001))
    (folder / "text").write_bytes(b"all the same " * 100_000)
    with open(base + b"/odd\n\xff name", "wb") as file:
        file.write(b"odd")
    folder.joinpath("deep", *(f"d{number}" for number in range(20))).mkdir(parents=True)
    (folder / "many").mkdir()
    for number in range(1500):
        (folder / "many" / f"a-name-of-some-length-{number:05}").write_bytes(b"%d" % number)
    with open(folder / "sparse", "wb") as file:
        file.seek(5_000_000)
        file.write(b"middle")
        file.truncate(60_000_000)
    with open(folder / "pieces", "wb") as file:
        for page in range(0, 3000, 2):
            file.seek(page * 4096)
            file.write(b"%d" % page)
    with open(folder / "reserved", "wb") as file:
        if "ext2" not in str(folder) and "ext3" not in str(folder):
            os.posix_fallocate(file.fileno(), 0, MIB)
        file.write(b"start")
    os.link(folder / "hello", folder / "again")
    os.symlink("hello", folder / "short link")
    os.symlink("/x/" * 300, folder / "long link")
    os.mkfifo(folder / "fifo")
    os.mknod(folder / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(folder / "disk", stat.S_IFBLK | 0o600, os.makedev(259, 70000))
    os.setxattr(folder / "hello", "user.name", b"value")
    os.setxattr(folder / "noise", "trusted.long", b"v" * 700)
    os.setxattr(folder / "hello", "system.posix_acl_access", ACL)
    os.setxattr(folder / "many", "system.posix_acl_default", ACL)
    os.setxattr(
        folder / "text", "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
    )
    os.chown(folder / "empty", 70000, 80000)
    os.chmod(folder / "empty", 0o4751)
    os.utime(folder / "empty", ns=(1_234_567_890_000_000_000, 1_999_999_999_123_456_789))


Seen = dict[bytes, tuple[object, ...]]


def by_the_kernel(folder: pathlib.Path) -> Seen:
    seen: Seen = {}
    base = os.fsencode(folder)
    for above, folders, files in os.walk(base):
        for name in folders + files:
            path = above + b"/" + name
            status = os.lstat(path)
            attributes = {
                os.fsencode(key): os.getxattr(path, key, follow_symlinks=False)
                for key in os.listxattr(path, follow_symlinks=False)
                if not key.startswith("trusted.SGI_ACL")  # the same ACL by another name
            }
            content: bytes | None = None
            if stat.S_ISREG(status.st_mode):
                content = pathlib.Path(os.fsdecode(path)).read_bytes()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            is_folder = stat.S_ISDIR(status.st_mode)
            device = (os.major(status.st_rdev), os.minor(status.st_rdev))
            seen[path[len(base) + 1 :]] = (
                status.st_mode,
                status.st_uid,
                status.st_gid,
                None if is_folder else (status.st_size, status.st_nlink),
                status.st_mtime_ns,
                device,
                attributes,
                content,
            )
    return seen


def by_us(image: pathlib.Path) -> Seen:
    seen: Seen = {}
    with open(image, "rb") as file:
        volume = GuestVolume.of_blocks(
            lambda offset, length: os.pread(file.fileno(), length, offset), image.stat().st_size
        )
        (part,) = volume.parts
        assert part.files is not None, part.reason
        for path, node in volume.walk(volume.find(b"/")):
            assert not isinstance(node, BrokenFileSystem), (path, node)
            content: bytes | None = None
            if node.is_file:
                whole = bytearray(node.size)
                for start, data in part.files.content(node):
                    whole[start : start + len(data)] = data
                content = bytes(whole)
            elif node.is_symlink:
                content = part.files.target(node)
            seen[path] = (
                node.mode,
                node.uid,
                node.gid,
                None if node.is_folder else (node.size, node.links),
                node.mtime,
                node.device,
                dict(part.files.xattrs(node)),
                content,
            )
    return seen


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("state", ["unmounted", "in use"])
def test_we_see_what_the_kernel_sees(kind: str, state: str, tmp_path: pathlib.Path) -> None:
    """``in use``: a copy taken while it is mounted, as a snapshot is. The kernel replays the
    journal of its copy; of ext3 and ext4 we do."""
    image, copy, mounted = tmp_path / "image", tmp_path / "copy", tmp_path / kind.replace(" ", "-")
    if state == "in use" and not kind.startswith(("ext4", "ext3")):
        pytest.skip("only the journal of ext3 and ext4 is read")
    command, options = KINDS[kind]
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not installed")
    with open(image, "wb") as file:
        file.truncate(400 * MIB)
    run(*command, image)
    mounted.mkdir()
    run("mount", "-o", options, image, mounted)
    try:
        fill(mounted)
        os.sync()
        (mounted / "late").write_bytes(b"late")
        os.unlink(mounted / "many" / "a-name-of-some-length-00007")
        with open(mounted / "late", "rb") as file:
            os.fsync(file.fileno())
        if state == "in use":
            run("cp", "--sparse=always", image, copy)
    finally:
        run("umount", mounted)
    if state == "unmounted":
        copy = image
    ours = by_us(copy)
    run("mount", "-o", options, copy, mounted)
    try:
        theirs = by_the_kernel(mounted)
    finally:
        run("umount", mounted)
    assert b"late" in ours
    assert ours.keys() == theirs.keys()
    assert [path for path in ours if ours[path] != theirs[path]] == []


# -- backups of a real volume ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def disk(host: BackupHost, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A disk with ext4, XFS and ext2 in three partitions, in a folder with their files."""
    folder = tmp_path_factory.mktemp("disk")
    source = folder / "source"
    (source / "etc").mkdir(parents=True)
    (source / "etc" / "hosts").write_bytes(b"127.0.0.1 localhost\n")
    (source / "data").write_bytes(os.urandom(9 * MIB))
    image = folder / "image"
    with open(image, "wb") as file:
        file.truncate(1 << 30)
    table = b"label: gpt\nsize=100MiB\nsize=400MiB\nsize=64MiB\n"
    subprocess.run(["sfdisk", "-q", str(image)], input=table, check=True, stdout=subprocess.DEVNULL)
    for start, size, command in (
        (1, 100, ["mkfs.ext4", "-q", "-F", "-d", source]),
        (101, 400, ["mkfs.xfs", "-q", "-f"]),
        (501, 64, ["mkfs.ext2", "-q", "-F", "-d", source]),
    ):
        part = folder / "part"
        with open(part, "wb") as file:
            file.truncate(size * MIB)
        run(*command, part)
        run(
            "dd",
            f"if={part}",
            f"of={image}",
            "bs=1M",
            f"seek={start}",
            "conv=notrunc",
            "status=none",
        )
    return folder


@pytest.fixture(scope="module")
def backup_id(host: BackupHost, disk: pathlib.Path) -> str:
    volume = host.bench.volume(1, name="disk")
    target = host.bench.file_of(volume.id)
    run("dd", f"if={disk / 'image'}", f"of={target}", "bs=1M", "conv=notrunc,sparse", "status=none")
    return str(host.backup(volume.id)["backup_id"])


def test_files_of_a_backup(host: BackupHost, disk: pathlib.Path, backup_id: str) -> None:
    parts = host.command("files", "list", backup_id, "-f", "json").rows
    assert [(part["path"], part["target"]) for part in parts] == [
        ("/partition-1", "ext4"),
        ("/partition-2", "xfs"),
        ("/partition-3", "ext2"),
    ]
    (listed,) = host.command("files", "list", backup_id, "/partition-1/etc", "-f", "json").rows
    assert (listed["path"], listed["size"]) == ("/partition-1/etc/hosts", 20)
    everything = host.command("files", "list", backup_id, "--recursive", "-f", "json").rows
    assert "/partition-3/etc/hosts" in [file["path"] for file in everything]

    target = host.folder / "found"
    told = host.command(
        *("files", "restore", backup_id, "/partition-1/etc", "/partition-3/data"),
        *("--to", str(target), "-f", "json"),
    ).document
    assert (told["made"], told["problem_count"]) == (3, 0)
    assert (target / "etc" / "hosts").read_bytes() == b"127.0.0.1 localhost\n"
    assert (target / "data").read_bytes() == (disk / "source" / "data").read_bytes()
    again = host.command("files", "restore", backup_id, "/partition-1/etc", "--to", str(target))
    assert again.status == 1
    assert "/partition-1/etc: File exists" in again.stderr
    shutil.rmtree(target)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["list", "BACKUP", "/etc"], "begins with one of: partition-1, partition-2, partition-3"),
        (["list", "BACKUP", "/partition-1/no"], "There is no /partition-1/no in the backup."),
        (["restore", "BACKUP", "/partition-1/etc/../x", "--to", "/nowhere"], "no '..'"),
        (["list", "ffff"], "There is no backup"),
    ],
)
def test_refusals(host: BackupHost, backup_id: str, words: list[str], sentence: str) -> None:
    words = [backup_id if word == "BACKUP" else word for word in words]
    done = host.command("files", *words)
    assert sentence in done.error
    assert not pathlib.Path("/nowhere").exists()


@pytest.fixture
def mounting(host: BackupHost) -> Iterator[pathlib.Path]:
    pytest.importorskip("mfusepy")
    if not os.path.exists("/dev/fuse") or not shutil.which("fusermount3"):
        pytest.skip("FUSE is not there")
    folder = host.folder / "mounted"
    folder.mkdir()
    yield folder
    assert not os.path.ismount(folder)
    folder.rmdir()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, "fusermount3"])
def test_mount(host: BackupHost, disk: pathlib.Path, backup_id: str, mounting, end) -> None:
    running = host.start(
        "freezer-osbrick", "mount", backup_id, str(mounting), "--repository", "nightly"
    )
    running.until((mounting / "volume.img").exists)
    assert sorted(os.listdir(mounting)) == [
        "partition-1.img",
        "partition-2.img",
        "partition-3.img",
        "volume.img",
    ]
    assert (mounting / "volume.img").stat().st_size == 1 << 30
    run("cmp", mounting / "volume.img", disk / "image")
    run("cmp", "-n", 64 * MIB, mounting / "partition-3.img", disk / "part")
    (line,) = [
        line
        for line in pathlib.Path("/proc/self/mounts").read_text().splitlines()
        if str(mounting) in line
    ]
    assert {"ro", "nosuid", "nodev", "default_permissions"} <= set(line.split()[3].split(","))
    with pytest.raises(OSError, match="Read-only|denied"):
        open(mounting / "volume.img", "r+b")
    if isinstance(end, str):
        run("fusermount3", "-u", mounting)
    else:
        running._process.send_signal(end)
    done = running.wait()
    assert done.status == 0, done.stderr
    assert "volume.img" in done.stdout


def test_mount_in_the_background_and_a_kill(host: BackupHost, backup_id: str, mounting) -> None:
    log_file = host.folder / "mount.log"
    done = host.start(
        "freezer-osbrick",
        *("--log-file", str(log_file), "mount", "--background", backup_id, str(mounting)),
        *("--repository", "nightly"),
    ).wait()
    assert done.status == 0, done.stderr
    assert (mounting / "volume.img").read_bytes()[510:512] == b"\x55\xaa"
    found = subprocess.run(
        ["pgrep", "-f", f"mount --background {backup_id}"], capture_output=True, check=True
    )
    (pid,) = map(int, found.stdout.split())
    os.kill(pid, signal.SIGKILL)
    while pathlib.Path(f"/proc/{pid}/root").exists():
        time.sleep(0.05)
    refused = host.start(
        "freezer-osbrick", "mount", backup_id, str(mounting), "--repository", "nightly"
    ).wait()
    assert "'fusermount3 -u" in refused.error
    run("fusermount3", "-u", mounting)
    log_file.unlink()


def test_what_is_damaged_is_an_error_there_and_nowhere_else(
    host: BackupHost, disk: pathlib.Path, backup_id: str, mounting
) -> None:
    """On a copy of the repository, sealed or not the same, of which one byte is changed."""
    copy = host.folder / "copy"
    shutil.copytree(host.repository, copy)
    pack = max(copy.glob("packs/*/*"), key=lambda path: path.stat().st_size)
    with open(pack, "r+b") as file:
        file.seek(pack.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes((byte[0] ^ 1,)))
    running = host.start(
        "freezer-osbrick", "mount", backup_id, str(mounting), "--repository", str(copy)
    )
    running.until((mounting / "volume.img").exists)
    failed = []
    with (
        open(mounting / "volume.img", "rb", buffering=0) as ours,
        open(disk / "image", "rb") as its,
    ):
        for offset in range(0, 1 << 30, 64 << 10):
            try:
                data = os.pread(ours.fileno(), 64 << 10, offset)
            except OSError as error:
                assert error.errno == 5
                failed.append(offset)
            else:
                assert data == os.pread(its.fileno(), 64 << 10, offset), offset
    run("fusermount3", "-u", mounting)
    done = running.wait()
    assert done.status == 0
    assert len(failed) == 1
    assert "A read failed" in done.stderr
    assert f"{failed[0]}+65536" in done.stderr
    shutil.rmtree(copy)


def test_sealed(host: BackupHost, tmp_path: pathlib.Path) -> None:
    key = tmp_path / "key"
    key.write_text("a secret")
    volume = host.bench.volume(1, name="sealed")
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(b"in a sealed backup")
    run("mkfs.ext4", "-q", "-F", "-d", source, host.bench.file_of(volume.id))
    words = ["--repository", str(tmp_path / "backups"), "--encrypt-pass-file", str(key)]
    done = host.start(
        "freezer-osbrick", "backup", volume.id, "--backup-name", "x", *words, "-f", "json"
    ).wait()
    assert done.status == 0, done.stderr
    (found,) = json.loads(done.stdout)
    target = tmp_path / "target"
    done = host.start(
        "freezer-osbrick",
        "files",
        "restore",
        found["backup_id"],
        "/file",
        "--to",
        str(target),
        *words,
    ).wait()
    assert done.status == 0, done.stderr
    assert (target / "file").read_bytes() == b"in a sealed backup"
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
