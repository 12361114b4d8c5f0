# SPDX-License-Identifier: Apache-2.0
"""Images of volumes, made by a seeded generator: each before and after a change."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

SEED = 20261120
# The change: pages of a database all over three quarters of the volume, new data in one piece, and
# a stretch that was discarded and reads as zeros.
SCATTERED_WRITES = 2000
SEQUENTIAL = 64 * MIB
DISCARDED = 16 * MIB

_LARGEST_FILE = 64 * MIB
_COPY = 4 * MIB


@dataclasses.dataclass(frozen=True)
class Pair:
    """A volume before and after a change.

    :param size: bytes of each image.
    """

    name: str
    before: pathlib.Path
    after: pathlib.Path
    size: int
    made_of: str


def make(kind: str, folder: pathlib.Path, size: int) -> Pair:
    """The images of a kind, made if they are not there yet.

    :param size: bytes, a multiple of 64 MiB, at least 512 MiB.
    """
    stem = f"{kind}-{size // MIB}-{SEED}"
    before, after = folder / f"{stem}.before", folder / f"{stem}.after"
    story = folder / f"{stem}.txt"
    if not story.exists():
        folder.mkdir(parents=True, exist_ok=True)
        made_of = KINDS[kind](before, size)
        _copy(before, after)
        _change(after, size)
        story.write_text(made_of)
    return Pair(kind, before, after, size, story.read_text())


def given(before: pathlib.Path, after: pathlib.Path) -> Pair:
    """Two images of the user's own.

    :raises ValueError: they have not the same size.
    """
    sizes = before.stat().st_size, after.stat().st_size
    if sizes[0] != sizes[1] or not sizes[0]:
        raise ValueError(f"the images must have the same size, and have {sizes[0]} and {sizes[1]}")
    return Pair("own", before.resolve(), after.resolve(), sizes[0], "images of your own")


def digest(path: pathlib.Path) -> str:
    """SHA-256 of a file, as hexadecimal."""
    hasher = hashlib.sha256()
    for piece in pieces(path):
        hasher.update(piece)
    return hasher.hexdigest()


def pieces(path: pathlib.Path) -> Iterator[memoryview]:
    """The bytes of a file, in a buffer that is used again."""
    buffer = memoryview(bytearray(_COPY))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            yield buffer[:count]


def extents(path: pathlib.Path) -> Iterator[tuple[int, int]]:
    """Where a sparse file has data: ``(offset, length)`` in bytes."""
    with open(path, "rb") as file:
        end = 0
        while True:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:  # ENXIO: nothing but a hole follows
                return
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            yield start, end - start


def _filesystem(path: pathlib.Path, size: int) -> str:
    """An ext4 file system, two thirds full: programs, libraries and text of this machine, and an
    eighth of the volume random."""
    tree = path.with_suffix(".tree")
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir()
    randomness = size // 8
    _random_file(tree / "random.bin", randomness, SEED)
    copied = _copy_files(tree, size * 2 // 3 - randomness)
    with open(path, "wb") as file:
        file.truncate(size)
    options = "lazy_itable_init=0,hash_seed=00000000-0000-4000-8000-000000000001"
    uuid = "00000000-0000-4000-8000-000000000002"
    command = ["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-U", uuid, "-E", options]
    subprocess.run([*command, "-d", str(tree), str(path)], check=True)
    shutil.rmtree(tree)
    return (
        f"ext4 of {size // MIB} MiB with {copied // MIB} MiB of files from /usr and"
        f" {randomness // MIB} MiB random"
    )


def _copy_files(tree: pathlib.Path, wanted: int) -> int:
    """Copy files from /usr in an order that follows from the seed; bytes copied."""
    found = sorted(
        os.path.join(folder, name) for folder, _folders, names in os.walk("/usr") for name in names
    )
    random.Random(SEED).shuffle(found)
    copied = 0
    for number, source in enumerate(found):
        if copied >= wanted:
            break
        if os.path.islink(source) or not os.path.isfile(source):
            continue
        length = os.path.getsize(source)
        if not 0 < length <= min(_LARGEST_FILE, wanted - copied) or not os.access(source, os.R_OK):
            continue
        folder = tree / f"{number % 199:03d}"
        folder.mkdir(exist_ok=True)
        shutil.copyfile(source, folder / f"{number}-{os.path.basename(source)[:80]}")
        copied += length
    return copied


def _empty(path: pathlib.Path, size: int) -> str:
    """Mostly zeros: a twentieth of the volume holds random data, in pieces of 1 MiB."""
    generator = random.Random(SEED)
    places = sorted(generator.sample(range(size // MIB), size // MIB // 20))
    with open(path, "wb") as file:
        file.truncate(size)
        for place in places:
            file.seek(place * MIB)
            file.write(generator.randbytes(MIB))
    return f"{size // MIB} MiB of zeros with {len(places)} MiB random in pieces of 1 MiB"


def _incompressible(path: pathlib.Path, size: int) -> str:
    _random_file(path, size, SEED + 1)
    return f"{size // MIB} MiB random"


KINDS: dict[str, Callable[[pathlib.Path, int], str]] = {
    "filesystem": _filesystem,
    "empty": _empty,
    "incompressible": _incompressible,
}


def _random_file(path: pathlib.Path, size: int, seed: int) -> None:
    generator = random.Random(seed)
    with open(path, "wb") as file:
        for _ in range(size // MIB):
            file.write(generator.randbytes(MIB))


def _change(path: pathlib.Path, size: int) -> None:
    generator = random.Random(SEED + 2)
    span = size * 3 // 4
    with open(path, "r+b") as file:
        for _ in range(SCATTERED_WRITES):
            file.seek(generator.randrange(span // (4 * KIB)) * 4 * KIB)
            file.write(generator.randbytes(4 * KIB))
        file.seek(span)
        for _ in range(SEQUENTIAL // MIB):
            file.write(generator.randbytes(MIB))
        # Where every kind of image holds data.
        file.seek(span // 2 // MIB * MIB)
        file.write(bytes(DISCARDED))


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
    """Holes stay holes."""
    with open(target, "wb") as file:
        zeros = bytes(_COPY)
        for piece in pieces(source):
            if piece == zeros[: len(piece)]:
                file.seek(len(piece), os.SEEK_CUR)
            else:
                file.write(piece)
        file.truncate()
