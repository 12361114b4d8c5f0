# SPDX-License-Identifier: Apache-2.0
"""Mounting a backup: the volume as a file that is fetched while it is read."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence

from oslo_log import log

from freezer_osbrick import errors
from freezer_osbrick.filesystem import image_folder, logical_volumes, partitions
from freezer_osbrick.filesystem.image_folder import Image, ImageFolder
from freezer_osbrick.filesystem.logical_volumes import LogicalVolume, NotReadable
from freezer_osbrick.operations.contents import BLOCKS, content_of
from freezer_osbrick.operations.context import Context
from freezer_osbrick.pipeline.reading import CACHE_SIZE, BackupReader
from freezer_osbrick.repository import catalogue
from freezer_osbrick.repository.catalogue import Backup
from freezer_osbrick.repository.leases import Lease
from freezer_osbrick.repository.manifest import Manifest

LOG = log.getLogger(__name__)

WHOLE = "volume.img"


@dataclasses.dataclass(frozen=True)
class MountRequest:
    """What to mount, and where.

    :param backup_id: or its first characters.
    :param folder: an empty one that is there.
    :param cache_size: bytes of what was read last that are kept.
    :param cache_folder: keep them in a nameless file there, not in memory.
    :param shared: let all users of this host look in, not only who mounts.
    """

    backup_id: str
    folder: str
    cache_size: int = CACHE_SIZE
    cache_folder: str | None = None
    shared: bool = False


def mount(
    context: Context, url: str, request: MountRequest, ready: Callable[[list[str]], None]
) -> None:
    """Show a backup as files in a folder, and return when that was unmounted.

    :param ready: called with the names of the files when the folder can be used.
    :raises errors.OsbrickError: it was not mounted.
    """
    image_folder.check(request.folder)
    repository = context.open_repository(url)
    backup = catalogue.find(repository, request.backup_id)
    _refuse_files(backup)
    manifest = Manifest(repository, bytes.fromhex(backup.id))
    reader = BackupReader(
        repository,
        manifest,
        threads=context.conf.osbrick.workers,
        cache_size=request.cache_size,
        cache_folder=request.cache_folder,
    )
    with reader, Lease(repository, "mount", needed=False):
        images = _images(reader)
        files = ImageFolder(
            reader.read,
            images,
            moment=backup.time,
            shared=request.shared,
            ready=lambda: ready(list(images)),
        )
        image_folder.show(
            files,
            os.path.abspath(request.folder),
            name=f"backup-{backup.id}",
            shared=request.shared,
        )


def _refuse_files(backup: Backup) -> None:
    """:raises errors.BadRequest: the backup holds files, not the blocks of a volume."""
    if content_of(backup.head) != BLOCKS:
        raise errors.BadRequest(
            f"Backup {backup.id} holds files, not the blocks of a volume: list them with"
            " 'freezer-osbrick files list'."
        )


def _images(reader: BackupReader) -> dict[str, Image]:
    """The volume, and each of its partitions and logical volumes for programs that know no
    offset; of logical volumes those that lie in one piece."""
    images = {WHOLE: Image(0, reader.size)}
    try:
        table = partitions.read_table(reader.read, reader.size)
        for partition in table.partitions if table else ():
            images[f"partition-{partition.number}.img"] = Image(partition.start, partition.size)
        for image in list(images.values()):
            for volume in _logical_volumes(reader, image):
                if len(volume.pieces) == 1:
                    images[f"{volume.folder}.img"] = Image(*volume.pieces[0])
    except errors.Damaged as error:
        LOG.warning("The parts of the volume are not all shown by themselves: %s", error)
    return images


def _logical_volumes(reader: BackupReader, image: Image) -> Sequence[LogicalVolume]:
    try:
        return logical_volumes.read_group(reader.read, image.start, image.size).volumes
    except NotReadable:
        return ()
