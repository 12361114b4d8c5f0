# SPDX-License-Identifier: Apache-2.0
"""A large volume with little in it: what backup and restore of 1 TiB with 20 GiB of data cost.

Usage: sparse.py --folder FOLDER, which needs room for the data and half as much again.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import images
import measure
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from images import GIB, MIB, SEED

HERE = pathlib.Path(__file__).resolve().parent
PIECE = 4 * MIB
_TEXT = b"Half of each piece of this volume is text, which zstd makes very small. "


def main(argv: Sequence[str] | None = None) -> int:
    args = _parse(argv)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="sparse-", dir=args.folder))
    try:
        volume = folder / "volume"
        make(volume, int(args.size * GIB), int(args.data * GIB))
        figures = measured(folder, volume, args)
    finally:
        shutil.rmtree(folder)
    print(table(figures))
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def make(path: pathlib.Path, size: int, data: int) -> None:
    """A sparse file with seeded data in pieces of 4 MiB all over it, half of each random."""
    places = sorted(random.Random(SEED).sample(range(size // PIECE), data // PIECE))
    key = SEED.to_bytes(16, "big")
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    text = (_TEXT * (PIECE // 2 // len(_TEXT) + 1))[: PIECE // 2]
    zeros = bytes(PIECE // 2)
    with open(path, "wb") as file:
        file.truncate(size)
        for place in places:
            file.seek(place * PIECE)
            file.write(stream.update(zeros))
            file.write(text)


def measured(
    folder: pathlib.Path, volume: pathlib.Path, args: argparse.Namespace
) -> list[dict[str, Any]]:
    """A row for each phase."""
    found = []
    for phase, words in _phases(args):
        print(f"{phase} …", file=sys.stderr, flush=True)
        repository = folder / ("all-read" if "--read-holes" in words else "repository")
        if not repository.exists():
            _drive(folder, repository, "init")
        target = volume
        if "restore" in words:
            target = folder / "restored"
            with open(target, "wb") as file:
                file.truncate(volume.stat().st_size)
        before = measure.stored(repository)
        cost, told = _drive(folder, repository, *words, str(target))
        row = {"phase": phase, "wall": cost.wall, "cpu": cost.cpu, **told}
        row["stored"] = measure.stored(repository) - before
        manifests = [path.stat().st_size for path in (repository / "manifests").iterdir()]
        row["manifest"] = max(manifests)
        if "restore" in words and not _same(volume, target):
            raise SystemExit("WRONG DATA: the restored volume is not the source.")
        found.append(row)
    return found


def table(figures: Sequence[dict[str, Any]]) -> str:
    """The rows as text."""
    lines = ["phase                 wall s    CPU s  memory MiB  read MiB  stored MB  manifest MB"]
    for row in figures:
        lines.append(
            f"{row['phase']:<20} {row['wall']:>7.1f} {row['cpu']:>8.1f}"
            f" {row['memory'] / MIB:>11.0f} {row['read'] / MIB:>9.0f}"
            f" {row['stored'] / 1e6:>10.1f} {row['manifest'] / 1e6:>12.2f}"
        )
    return "\n".join(lines)


def _phases(args: argparse.Namespace) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield "full", ("backup",)
    yield "unchanged", ("backup",)
    if args.restore:
        yield "restore", ("restore",)
    if args.read_holes:
        yield "full, all read", ("--read-holes", "backup")
        yield "unchanged, all read", ("--read-holes", "backup")


def _drive(
    folder: pathlib.Path, repository: pathlib.Path, *words: str
) -> tuple[measure.Cost, dict[str, Any]]:
    """One run of our driver: what it cost, and what it told of itself."""
    told = folder / "told"
    options = [word for word in words if word.startswith("--")]
    verb, *rest = [word for word in words if not word.startswith("--")]
    driver = [sys.executable, HERE / "drive_ours.py", "--tell", told, *options]
    cost = measure.run(
        [*driver, verb, repository, *rest],
        log=folder / "log",
        written=repository if verb != "restore" else pathlib.Path(rest[0]),
        environment={"PYTHONPATH": str(HERE.parent)},
    )
    return cost, json.loads(told.read_text())


def _same(one: pathlib.Path, other: pathlib.Path) -> bool:
    """Whether two sparse files read alike; looks only where one of them has data."""
    with open(one, "rb") as first, open(other, "rb") as second:
        for offset, length in [*images.extents(one), *images.extents(other)]:
            for start in range(offset, offset + length, PIECE):
                count = min(PIECE, offset + length - start)
                first.seek(start)
                second.seek(start)
                if first.read(count) != second.read(count):
                    return False
    return True


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", default=".", help="for the volume and the repositories")
    parser.add_argument("--size", type=float, default=1024, help="of the volume, in GiB")
    parser.add_argument("--data", type=float, default=20, help="in it, in GiB")
    parser.add_argument("--restore", action="store_true", help="restore it, and compare")
    parser.add_argument(
        "--read-holes",
        action="store_true",
        help="also as a device that cannot tell what is empty: all of it is read",
    )
    parser.add_argument("--json", metavar="FILE", help="write all figures there as well")
    args = parser.parse_args(argv)
    if not 0 < args.data <= args.size:
        parser.error("the data must fit into the volume")
    return args


if __name__ == "__main__":
    sys.exit(main())
