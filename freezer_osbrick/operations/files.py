# SPDX-License-Identifier: Apache-2.0
"""Single files out of backups. The guest's file systems are read in user space."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import stat
from collections.abc import Iterator
from typing import Any

from freezer_osbrick import errors
from freezer_osbrick.guest.filesystem import NANO, BrokenFileSystem, FileSystem, Node
from freezer_osbrick.guest.placing import Placing
from freezer_osbrick.guest.volume import GuestVolume, Part, os_text
from freezer_osbrick.operations.contents import FILES, content_of
from freezer_osbrick.operations.context import Context
from freezer_osbrick.pipeline.reading import BackupReader
from freezer_osbrick.repository import catalogue
from freezer_osbrick.repository.leases import Lease
from freezer_osbrick.repository.manifest import Manifest

# Problems that a report names; what is beyond is counted.
_MOST_PROBLEMS = 1000


@dataclasses.dataclass(frozen=True)
class ListedFile:
    """A file, a folder and so on in a backup.

    :param path: from the top of the volume; what is no plain character is escaped.
    :param mode: as ``ls -l`` shows it.
    :param size: in bytes; of a partition all of it.
    :param mtime: seconds since the epoch.
    :param target: of a symbolic link; of a partition what it holds.
    """

    path: str
    mode: str
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    mtime: float | None = None
    links: int | None = None
    target: str = ""

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass
class Listing:
    """:param notes: what a user should know of the file systems.
    :param problems: what could not be read, a sentence each."""

    files: list[ListedFile] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class FilesReport:
    """A restore of files.

    :param made: files, folders and so on that were made.
    :param bytes_written: of content.
    :param problems: what could not be restored, or not as it was, a sentence each.
    :param problem_count: of them, also where there are too many to name each.
    """

    made: int = 0
    bytes_written: int = 0
    notes: list[str] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)
    problem_count: int = 0

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def list_files(
    context: Context, url: str, backup_id: str, path: bytes = b"/", *, recursive: bool = False
) -> Listing:
    """What lies at a path of a backed-up volume: a file itself, or what is in a folder.

    :param recursive: also what is in the folders in it.
    :raises errors.OsbrickError: nothing is there, or it cannot be read.
    """
    listing = Listing()
    with _opened(context, url, backup_id) as volume:
        listing.notes = volume.notes
        tops = [path]
        if volume.parts[0].name and not path.strip(b"/."):
            listing.files += [_partition(part) for part in volume.parts]
            tops = [part.name for part in volume.parts if part.files] if recursive else []
        for top in tops:
            _list_below(volume, top, recursive, listing)
    return listing


def restore_files(
    context: Context, url: str, backup_id: str, paths: list[bytes], folder: str
) -> FilesReport:
    """Restore files and whole folders into a folder of this host, each under its last name. Nothing
    that is there already is touched.

    :param folder: made if it is not there.
    :raises errors.BadRequest: a path is not in the backup; nothing was restored.
    :raises errors.DeviceError: there is no room left.
    """
    report = FilesReport()

    def tell(path: bytes, reason: str) -> None:
        report.problem_count += 1
        if len(report.problems) < _MOST_PROBLEMS:
            report.problems.append(f"/{os_text(path)}: {reason}")

    with _opened(context, url, backup_id) as volume:
        report.notes = volume.notes
        found = [volume.find(path) for path in paths]
        _check_names([path for path, _, _ in found])
        root = _open_folder(folder)
        try:
            placing = Placing(volume, root, tell)
            try:
                for one in found:
                    placing.place(one)
            finally:
                placing.finish()
                report.made, report.bytes_written = placing.made, placing.written
        finally:
            os.close(root)
    return report


@contextlib.contextmanager
def _opened(context: Context, url: str, backup_id: str) -> Iterator[GuestVolume]:
    repository = context.open_repository(url)
    backup = catalogue.find(repository, backup_id)
    manifest = Manifest(repository, bytes.fromhex(backup.id))
    with (
        Lease(repository, "files", needed=False),
        BackupReader(repository, manifest, threads=context.conf.osbrick.workers) as reader,
    ):
        try:
            if content_of(manifest.head) == FILES:
                yield GuestVolume.of_files(manifest.head, reader.read, reader.size)
            else:
                yield GuestVolume.of_blocks(reader.read, reader.size)
        except BrokenFileSystem as error:
            raise errors.DeviceError(
                f"The file system in backup {backup.id} cannot be read: {error}."
            ) from error


def _check_names(paths: list[bytes]) -> None:
    names = [path.rpartition(b"/")[2] for path in paths]
    for name in names:
        if names.count(name) > 1:
            raise errors.BadRequest(
                f"Two of the paths end with {os_text(name) or '/'}: restore them one by one."
            )


def _open_folder(folder: str) -> int:
    try:
        if not os.path.isdir(folder):
            os.makedirs(folder, 0o700)
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise errors.BadRequest(
            f"The folder {folder} cannot be restored into: {error.strerror}."
        ) from error


def _list_below(volume: GuestVolume, path: bytes, recursive: bool, listing: Listing) -> None:
    found = volume.find(path)
    top, files, node = found
    if not node.is_folder:
        listing.files.append(_listed(files, top, node))
        return
    for inner, below in volume.walk(found):
        if not recursive and inner.rpartition(b"/")[0] != top:
            break
        if isinstance(below, BrokenFileSystem):
            listing.problems.append(f"/{os_text(inner)}: {below}")
        else:
            listing.files.append(_listed(files, inner, below))
    listing.files.sort(key=lambda file: file.path)


def _listed(files: FileSystem, path: bytes, node: Node) -> ListedFile:
    target = ""
    if node.is_symlink:
        with contextlib.suppress(BrokenFileSystem, errors.Damaged):
            target = os_text(files.target(node))
    return ListedFile(
        path=f"/{os_text(path)}",
        mode=stat.filemode(node.mode),
        uid=node.uid,
        gid=node.gid,
        size=node.size,
        mtime=node.mtime / NANO,
        links=node.links,
        target=target,
    )


def _partition(part: Part) -> ListedFile:
    what = part.reason or " ".join(filter(None, (part.kind, part.label)))
    return ListedFile(
        path=f"/{os_text(part.name)}",
        mode="dr-xr-xr-x" if part.files else "b---------",
        size=part.size,
        target=what,
    )
