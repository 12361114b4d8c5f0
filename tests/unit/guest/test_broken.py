# SPDX-License-Identifier: Apache-2.0
"""File systems that make no sense: told in a sentence, whatever is in them."""

import random

import pytest

from freezer_osbrick import errors
from freezer_osbrick.guest.filesystem import BrokenFileSystem
from freezer_osbrick.guest.volume import GuestVolume
from tests.unit.guest import images

# Of each image, where its structures lie: flips there do more than in empty space.
KINDS = ("ext4", "xfs", "btrfs", "vfat")
ROUNDS = 60
MOST_READ = 200 << 20


class TooMuch(Exception):
    pass


@pytest.fixture(scope="module", params=KINDS)
def image(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    for number in range(40):
        (folder / f"file-{number}").write_bytes(b"%d" % number * 50)
    (folder / "folder").mkdir()
    (folder / "folder" / "inner").write_bytes(b"x" * 9000)
    path = tmp_path_factory.mktemp("image") / "image"
    images.make(request.param, path, folder)
    content = path.read_bytes()
    used = [place for place in range(0, len(content), 512) if any(content[place : place + 512])]
    return content, used


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_nonsense_is_told(image, seed):
    content, used = image
    dice = random.Random(seed)
    changed = {}
    for _ in range(dice.choice((1, 8, 64, 512))):
        place = dice.choice(used) + dice.randrange(512)
        changed[place] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
    read_so_far = 0

    def read(offset, length):
        nonlocal read_so_far
        assert length <= 1 << 21
        read_so_far += length
        if read_so_far > MOST_READ:
            raise TooMuch
        data = bytearray(content[offset : offset + length])
        for place, byte in changed.items():
            if offset <= place < offset + len(data):
                data[place - offset] = byte
        return bytes(data)

    try:
        walk(GuestVolume.of_blocks(read, len(content)))
    except (errors.OsbrickError, BrokenFileSystem) as error:
        assert str(error)


def walk(volume):
    for part in volume.parts:
        if part.files is None:
            continue
        for _, node in volume.walk(volume.find(part.name)):
            if isinstance(node, BrokenFileSystem):
                continue
            try:
                part.files.xattrs(node)
                if node.is_symlink:
                    part.files.target(node)
                elif node.is_file:
                    for start, data in part.files.content(node):
                        assert start + len(data) <= node.size
            except BrokenFileSystem as error:
                assert str(error)


@pytest.mark.parametrize("kind", KINDS)
def test_a_volume_that_is_cut_off(kind, tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_bytes(b"x" * 10000)
    images.make(kind, tmp_path / "image", tmp_path / "source")
    content = (tmp_path / "image").read_bytes()
    for size in (0, 100, 1024, 4096, 70000, 300000):
        try:
            walk(GuestVolume.of_blocks(images.reader(content[:size]), size))
        except (errors.OsbrickError, BrokenFileSystem) as error:
            assert str(error)
