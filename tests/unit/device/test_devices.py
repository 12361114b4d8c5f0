# SPDX-License-Identifier: Apache-2.0
"""One suite for every kind of opened volume."""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import mmap
import os
import pathlib
import stat
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from freezer_osbrick import errors
from freezer_osbrick.device import path_device, volume_device
from freezer_osbrick.device.opening import open_device
from freezer_osbrick.device.volume_device import Device
from tests.unit.device.conftest import MIB, SIZE, FakeHandle, FakeImage

Opener = Callable[..., Device]


@pytest.fixture(params=["file", "loop device", "Ceph image"])
def volume(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Any:
    """The device info of a volume with known content."""
    content = bytes(range(256)) * (SIZE // 256)
    if request.param == "Ceph image":
        return {"type": "rbd", "path": FakeHandle(FakeImage(content))}
    path = tmp_path / "volume"
    path.write_bytes(content)
    if request.param == "loop device":
        return {"type": "block", "path": request.getfixturevalue("loop_device")(path)}
    return {"type": "local", "path": str(path)}


@pytest.fixture
def opened(volume: Any) -> Iterator[Opener]:
    made: list[Device] = []

    def opener(*, size: int = SIZE, writable: bool = True, **options: Any) -> Device:
        made.append(open_device(volume, size=size, writable=writable, **options))
        return made[-1]

    yield opener
    for device in made:
        device.close()


def read(device: Device, offset: int, length: int) -> bytes:
    buffer = bytearray(length)
    device.readinto(offset, memoryview(buffer))
    return bytes(buffer)


def pattern(offset: int, length: int) -> bytes:
    """What the volume holds there."""
    ring = bytes(range(256))
    return (ring * (length // 256 + 2))[offset % 256 :][:length]


def test_size_in_bytes(opened: Opener) -> None:
    assert opened().size == SIZE


def test_reads_into_a_part_of_a_reused_buffer(opened: Opener) -> None:
    device = opened(writable=False)
    buffer = bytearray(3 * MIB)
    device.readinto(5, memoryview(buffer)[MIB : 2 * MIB])
    assert buffer[:MIB] == bytes(MIB)
    assert buffer[MIB : 2 * MIB] == pattern(5, MIB)
    assert buffer[2 * MIB :] == bytes(MIB)


def test_reads_to_the_last_byte(opened: Opener) -> None:
    device = opened()
    assert read(device, SIZE - 3, 3) == b"\xfd\xfe\xff"
    assert read(device, SIZE, 0) == b""


@pytest.mark.parametrize(("offset", "length"), [(SIZE - 1, 2), (SIZE, 1), (-1, 1), (0, SIZE + 1)])
def test_nothing_beyond_the_ends(opened: Opener, offset: int, length: int) -> None:
    device = opened()
    for refused in (
        lambda: device.readinto(offset, memoryview(bytearray(length))),
        lambda: device.write(offset, bytes(length)),
        lambda: device.zero(offset, length),
    ):
        with pytest.raises(errors.DeviceError, match="do not lie within"):
            refused()
    assert read(device, 0, SIZE) == pattern(0, SIZE)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_writes_any_buffer_where_it_is_told(opened: Opener, kind: Any) -> None:
    device = opened()
    device.write(1001, kind(b"x" * 5000))
    device.flush()
    assert read(device, 1000, 5002) == pattern(1000, 1) + b"x" * 5000 + pattern(6001, 1)


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, SIZE), (4096, 65536), (1, 1), (511, 2), (513, 1022), (100, 3 * MIB + 7), (512, 0)],
)
def test_zeroes_exactly_the_range(opened: Opener, offset: int, length: int) -> None:
    device = opened()
    device.zero(offset, length)
    expected = bytearray(pattern(0, SIZE))
    expected[offset : offset + length] = bytes(length)
    assert read(device, 0, SIZE) == expected
    assert device.size == SIZE


def test_zeroes_what_was_written_just_before(opened: Opener) -> None:
    device = opened()
    device.write(4096, b"x" * 8192)
    device.zero(4096, 8192)
    device.write(4096, b"y")
    assert read(device, 4095, 8194) == b"\xff" + b"y" + bytes(8191) + b"\x00"


@pytest.mark.parametrize("shift", [0, 1, 512])
def test_aligned_reading_sees_what_was_written_just_before(opened: Opener, shift: int) -> None:
    """Aligned buffers are read past the page cache, which holds what was written."""
    device = opened()
    with mmap.mmap(-1, 16384) as memory, memoryview(memory) as view:
        for content in (b"x" * 8192, b"y" * 8192):
            device.write(4096, content)
            with view[shift : shift + 8192] as buffer:
                device.readinto(4096, buffer)
                assert buffer == content
        with view[:4096] as buffer:
            device.readinto(512 + shift, buffer)
            assert buffer[: 3584 - shift] == pattern(512 + shift, 3584 - shift)


def test_read_only_is_enforced_by_us(opened: Opener) -> None:
    device = opened(writable=False)
    for refused in (lambda: device.write(0, b"x"), lambda: device.zero(0, 1)):
        with pytest.raises(errors.DeviceError, match="for reading only"):
            refused()
    assert read(device, 0, 16) == pattern(0, 16)


def test_many_threads_at_once(opened: Opener) -> None:
    device = opened()
    failures = []

    def work(number: int) -> None:
        mine = bytes([number]) * 65536
        for _ in range(20):
            device.write(number * 65536, mine)
            if read(device, number * 65536, 65536) != mine:
                failures.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_closed_twice_and_used_after(opened: Opener) -> None:
    device = opened()
    device.close()
    device.close()
    for refused in (lambda: read(device, 0, 1), lambda: device.write(0, b"x"), device.flush):
        with pytest.raises(errors.DeviceError, match="is closed"):
            refused()


@pytest.mark.parametrize("size", [SIZE + 1, SIZE - (1 << 30)])
def test_another_size_is_not_the_volume(opened: Opener, size: int) -> None:
    with pytest.raises(errors.IdentityError, match="this is not the volume"):
        opened(size=size)


def test_a_little_larger_is_the_volume(opened: Opener) -> None:
    assert opened(size=SIZE - (1 << 30) + 1).size == SIZE


# -- paths only ------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "file"
    path.write_bytes(pattern(0, SIZE))
    return path


def test_a_file_that_is_cut_short_while_it_is_read(file: pathlib.Path) -> None:
    device = open_device({"path": str(file)}, size=SIZE, writable=False)
    os.truncate(file, MIB)
    with pytest.raises(errors.DeviceError, match="cut short"):
        read(device, 0, SIZE)
    device.close()


def test_reads_and_writes_in_pieces_as_the_kernel_likes(
    file: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preadv, pwrite = os.preadv, os.pwrite
    monkeypatch.setattr(os, "preadv", lambda fd, bufs, at: preadv(fd, [bufs[0][:1000]], at))
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:999], at))
    device = open_device({"path": str(file)}, size=SIZE, writable=True)
    assert read(device, 7, 100_000) == pattern(7, 100_000)
    device.write(5, b"z" * 10_000)
    assert read(device, 4, 10_002) == b"\x04" + b"z" * 10_000 + pattern(10_005, 1)
    device.close()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses before something is tried again, which take no time."""
    slept: list[float] = []
    monkeypatch.setattr(path_device.time, "sleep", slept.append)
    return slept


@pytest.mark.parametrize("call", ["preadv", "pwrite", "fsync"])
def test_errors_of_the_kernel_are_told(
    file: pathlib.Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float], call: str
) -> None:
    device = open_device({"path": str(file)}, size=SIZE, writable=True)

    def fail(*arguments: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(errors.DeviceError, match=f"{file} could not be .*Input/output error"):
        {
            "preadv": lambda: read(device, 0, 1),
            "pwrite": lambda: device.write(0, b"x"),
            "fsync": device.flush,
        }[call]()
    # What is not durable by the first attempt never is: the kernel has dropped it.
    assert pauses == ([] if call == "fsync" else [1.0, 5.0, 15.0])
    device.close()


class Failing:
    """A call of the kernel's that fails some times before it does what it does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, call: str, *numbers: int) -> None:
        self._original = getattr(os, call)
        self.left = list(numbers)
        monkeypatch.setattr(os, call, self)

    def __call__(self, *arguments: Any) -> Any:
        if self.left:
            number = self.left.pop(0)
            raise OSError(number, os.strerror(number))
        return self._original(*arguments)


@pytest.mark.parametrize("call", ["preadv", "pwrite"])
def test_what_may_pass_is_tried_again_after_a_proof(
    file: pathlib.Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float], call: str
) -> None:
    device = open_device({"path": str(file)}, size=SIZE, writable=True)
    proofs: list[int] = []
    monkeypatch.setattr(device, "_prove", lambda: proofs.append(len(failing.left)))
    failing = Failing(monkeypatch, call, errno.EIO, errno.ENOLINK)
    device.write(7, b"y" * 10)
    assert read(device, 6, 12) == pattern(6, 1) + b"y" * 10 + pattern(17, 1)
    assert (proofs, pauses) == ([1, 0], [1.0, 5.0])
    device.close()


@pytest.mark.parametrize("number", [errno.ENODEV, errno.ENODATA, errno.ENOSPC])
def test_what_will_not_pass_is_not_tried_again(
    file: pathlib.Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float], number: int
) -> None:
    device = open_device({"path": str(file)}, size=SIZE, writable=False)
    failing = Failing(monkeypatch, "preadv", number, number)
    with pytest.raises(errors.DeviceError, match=os.strerror(number)):
        read(device, 0, 1)
    assert (failing.left, pauses) == ([number], [])
    device.close()


@pytest.mark.parametrize("writing", [False, True])
def test_after_an_error_another_volume_is_not_touched(
    file: pathlib.Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float], writing: bool
) -> None:
    device = open_device({"path": str(file)}, size=SIZE, writable=True)

    def refuse() -> None:
        raise errors.IdentityError("It is another one.")

    monkeypatch.setattr(device, "_prove", refuse)
    Failing(monkeypatch, "pwrite" if writing else "preadv", errno.EIO)
    with pytest.raises(errors.IdentityError, match="Input/output error. It is another one."):
        if writing:
            device.write(0, b"x")
        else:
            read(device, 0, 1)
    monkeypatch.undo()
    assert file.read_bytes() == pattern(0, SIZE)
    device.close()


class Answers:
    """What a disk tells of itself, from one question to the next."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, device: Any, *silent: bool) -> None:
        known = device._identity
        self._left = [dataclasses.replace(known, disks=()) if each else known for each in silent]
        monkeypatch.setattr(path_device.identity, "of", lambda descriptor: self._left.pop(0))


@pytest.fixture
def disk(tmp_path: pathlib.Path, loop_device: Callable[[pathlib.Path], str]) -> Iterator[Device]:
    path = tmp_path / "disk"
    path.write_bytes(pattern(0, SIZE))
    device = open_device({"type": "block", "path": loop_device(path)}, size=SIZE, writable=False)
    yield device
    device.close()


def test_a_disk_that_is_silent_for_a_moment(
    disk: Device, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    Answers(monkeypatch, disk, True, True, False)
    disk.prove()
    assert pauses == [1.0, 5.0]


def test_a_disk_that_stays_silent(
    disk: Device, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    Answers(monkeypatch, disk, *[True] * 4)
    with pytest.raises(errors.DeviceError, match="does not answer"):
        disk.prove()
    assert pauses == [1.0, 5.0, 15.0]


def test_a_file_that_was_cut_short_is_not_the_volume(file: pathlib.Path) -> None:
    device = open_device({"path": str(file)}, size=SIZE, writable=False)
    device.prove()
    os.truncate(file, MIB)
    with pytest.raises(errors.IdentityError, match="it was cut short"):
        device.prove()
    device.close()


class NewNode:
    """A device's node that udev gives to its group after some looks, or never."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, looks: int, group: int = 0, kind: int = stat.S_IFBLK
    ) -> None:
        self._looks = looks
        self._open = os.open
        self._found = os.stat_result((kind | 0o600, 0, 0, 1, 0, group, 0, 0, 0, 0))
        self.slept: list[float] = []
        clock = iter(range(1000))
        monkeypatch.setattr(os, "open", self)
        monkeypatch.setattr(os, "stat", lambda path: self._found)
        monkeypatch.setattr(path_device.time, "monotonic", lambda: float(next(clock)))
        monkeypatch.setattr(path_device.time, "sleep", self.slept.append)

    def __call__(self, path: str, flags: int) -> int:
        if len(self.slept) < self._looks:
            raise PermissionError(errno.EACCES, "Permission denied")
        return self._open("/dev/null", flags & ~os.O_EXCL)


def test_a_node_that_udev_has_not_come_to(monkeypatch: pytest.MonkeyPatch) -> None:
    node = NewNode(monkeypatch, 3)
    os.close(path_device._open("/dev/nvme0n1", False))
    assert len(node.slept) == 3


@pytest.mark.parametrize(
    ("group", "kind", "looks"), [(0, stat.S_IFBLK, True), (6, stat.S_IFBLK, False), (0, 0, False)]
)
def test_a_node_that_stays_forbidden(
    monkeypatch: pytest.MonkeyPatch, group: int, kind: int, looks: bool
) -> None:
    """Only a device whose group udev would set is waited for."""
    node = NewNode(monkeypatch, 1000, group, kind or stat.S_IFREG)
    with pytest.raises(errors.DeviceError, match="cannot be opened: Permission denied"):
        path_device._open("/dev/nvme0n1", False)
    monkeypatch.undo()
    assert bool(node.slept) is looks


def test_a_path_that_may_not_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(errors.DeviceError, match="cannot be opened: Permission denied"):
        path_device._open("/locked/volume", False)


def test_zeros_are_written_where_the_file_system_has_no_holes(
    file: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*arguments: Any) -> int:
        ctypes.set_errno(errno.EOPNOTSUPP)
        return -1

    monkeypatch.setattr(path_device._libc, "fallocate", cannot)
    device = open_device({"path": str(file)}, size=SIZE, writable=True)
    device.zero(10, 3 * MIB)
    assert read(device, 9, 3 * MIB + 2) == b"\x09" + bytes(3 * MIB) + pattern(10 + 3 * MIB, 1)
    device.close()


def test_zeroed_files_give_their_room_back(file: pathlib.Path) -> None:
    before = file.stat().st_blocks
    device = open_device({"path": str(file)}, size=SIZE, writable=True)
    device.zero(MIB, 4 * MIB)
    device.flush()
    device.close()
    assert file.stat().st_size == SIZE
    if before == SIZE // 512:  # the file system knows holes and has compressed nothing
        assert file.stat().st_blocks <= before - 4 * MIB // 512


def test_what_is_no_device(tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", pathlib.Path("/dev/null")):
        with pytest.raises(errors.IdentityError, match="neither a block device nor a file"):
            open_device({"path": str(path)}, size=SIZE, writable=False)
    with pytest.raises(errors.DeviceError, match="cannot be opened: No such file"):
        open_device({"path": str(tmp_path / "nothing")}, size=SIZE, writable=False)
    for info in ({}, {"path": None}, {"path": ""}, {"path": object()}):
        with pytest.raises(errors.DeviceError, match="neither a path nor a Ceph image"):
            open_device(info, size=SIZE, writable=False)


def test_an_image_format_is_refused_and_never_guessed(file: pathlib.Path) -> None:
    with pytest.raises(errors.IdentityError, match="'qcow2'"):
        open_device(
            {"path": str(file)}, size=SIZE, writable=False, connection_info={"format": "qcow2"}
        )
    # A guest may write what looks like another format: raw is raw.
    file.write_bytes(b"QFI\xfb" + bytes(SIZE - 4))
    open_device(
        {"path": str(file)}, size=SIZE, writable=False, connection_info={"format": "raw"}
    ).close()


def test_no_descriptor_stays_open_after_a_refusal(file: pathlib.Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(errors.IdentityError):
        open_device({"path": str(file)}, size=2 * SIZE, writable=False)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_read_only_block_device_is_not_opened_for_writing(
    file: pathlib.Path, loop_device: Any
) -> None:
    device = loop_device(file, "--read-only")
    with pytest.raises(errors.DeviceError):
        open_device({"path": device}, size=SIZE, writable=True)
    open_device({"path": device}, size=SIZE, writable=False).close()


def test_a_block_device_in_use_is_refused(file: pathlib.Path, loop_device: Any) -> None:
    path = loop_device(file)
    first = open_device({"path": path}, size=SIZE, writable=False)
    with pytest.raises(errors.DeviceError, match="something else on this host uses it"):
        open_device({"path": path}, size=SIZE, writable=False)
    first.close()


def test_another_volume_behind_an_open_device(file: pathlib.Path, loop_device: Any) -> None:
    """The kernel puts another file behind the same device, of the same size, while it is open."""
    path = loop_device(file, "--read-only")
    device = open_device({"path": path}, size=SIZE, writable=False)
    device.prove()
    other = file.with_name("other")
    other.write_bytes(bytes(SIZE))
    descriptor = os.open(other, os.O_RDONLY)
    with open(path, "rb") as loop:
        path_device.fcntl.ioctl(loop, 0x4C06, descriptor)  # LOOP_CHANGE_FD
    os.close(descriptor)
    with pytest.raises(errors.IdentityError, match=f"was {file} of .*{other} of"):
        device.prove()
    device.close()


def test_a_device_in_use_names_its_user(
    file: pathlib.Path, loop_device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = loop_device(file)
    first = open_device({"path": path}, size=SIZE, writable=False)
    monkeypatch.setattr(path_device.disks, "holders", lambda folder: ["dm-3 (guest-root)"])
    with pytest.raises(errors.DeviceError, match=r"opened: dm-3 \(guest-root\) on this host"):
        open_device({"path": path}, size=SIZE, writable=False)
    first.close()


@pytest.mark.parametrize("call", ["read", "write", "zero"])
def test_once_a_second_a_device_is_asked_who_it_is(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    device = opened()
    calls = {
        "read": lambda: read(device, 0, 1),
        "write": lambda: device.write(0, b"x"),
        "zero": lambda: device.zero(0, 512),
    }
    asked: list[None] = []
    monkeypatch.setattr(device, "_prove", lambda: asked.append(None))
    now = volume_device.time.monotonic()
    monkeypatch.setattr(volume_device.time, "monotonic", lambda: now + later)
    later = 0.0
    device.prove()
    for later, times in ((0.9, 1), (1.0, 2), (1.9, 2), (2.0, 3)):  # noqa: B007
        calls[call]()
        assert len(asked) == times


def test_what_is_another_volume_by_now_is_not_written_to(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = opened()
    read(device, 0, 1)

    def refuse() -> None:
        raise errors.IdentityError("It is another one.")

    monkeypatch.setattr(device, "_prove", refuse)
    monkeypatch.setattr(volume_device, "_PROOF_INTERVAL", 0.0)
    for refused in (
        lambda: read(device, 0, 1),
        lambda: device.write(0, b"x"),
        lambda: device.zero(0, 512),
    ):
        with pytest.raises(errors.IdentityError):
            refused()
    monkeypatch.undo()
    assert read(device, 0, 512) == pattern(0, 512)


def test_zeros_are_written_where_the_block_device_cannot(
    file: pathlib.Path, loop_device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = open_device({"path": loop_device(file)}, size=SIZE, writable=True)

    def cannot(*arguments: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, "no")

    monkeypatch.setattr(path_device.fcntl, "ioctl", cannot)
    device.zero(100, MIB)
    assert read(device, 99, MIB + 2) == b"\x63" + bytes(MIB) + pattern(100 + MIB, 1)
    device.close()


# -- Ceph images only ------------------------------------------------------------------------------


def ceph(image: FakeImage, **options: Any) -> Device:
    return open_device({"path": FakeHandle(image)}, size=SIZE, **options)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ("volumes/volume-2", "image is volume-1 and not volume-2"),
        ("backups/volume-1", "pool is volumes and not backups"),
    ],
)
def test_another_image_is_refused(told: str, message: str) -> None:
    with pytest.raises(errors.IdentityError, match=message):
        ceph(FakeImage(bytes(SIZE)), writable=False, connection_info={"name": told})
    ceph(
        FakeImage(bytes(SIZE)), writable=False, connection_info={"name": "volumes/volume-1"}
    ).close()


def test_an_image_that_was_cut_short_is_not_the_volume() -> None:
    image = FakeImage(bytes(SIZE))
    device = ceph(image, writable=False)
    device.prove()
    del image.content[MIB:]
    with pytest.raises(errors.IdentityError, match="volume-1 has 1048576 bytes now"):
        device.prove()


def test_short_answers_of_librbd_are_errors() -> None:
    image = FakeImage(bytes(SIZE))
    device = ceph(image, writable=True)
    image.short = 1
    with pytest.raises(errors.DeviceError, match="cut short"):
        read(device, 0, 100)
    with pytest.raises(errors.DeviceError, match="took 99 of 100"):
        device.write(0, bytes(100))


def test_errors_of_librbd_are_told() -> None:
    image = FakeImage(bytes(SIZE))
    device = ceph(image, writable=True)
    image.error = RuntimeError("[errno 110] timed out")
    with pytest.raises(errors.DeviceError, match="volume-1 could not be read at 0: .*timed out"):
        read(device, 0, 100)


def test_an_old_librbd_gets_zeros_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(FakeImage, "write_zeroes")
    device = ceph(FakeImage(b"x" * SIZE), writable=True)
    device.zero(1, MIB)
    assert read(device, 0, MIB + 2) == b"x" + bytes(MIB) + b"x"


def test_flush_reaches_the_cluster() -> None:
    image = FakeImage(bytes(SIZE))
    ceph(image, writable=True).flush()
    assert image.flushes == 1
