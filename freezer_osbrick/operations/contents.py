# SPDX-License-Identifier: Apache-2.0
"""What a backup is made of: the blocks of a volume, or its files."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from freezer_osbrick import errors, interruption
from freezer_osbrick.device.hints import Hints
from freezer_osbrick.device.volume_device import Device
from freezer_osbrick.filesystem import source
from freezer_osbrick.filesystem.source import FileSource, Unread, UnreadFiles
from freezer_osbrick.filesystem.stored import StoredFiles
from freezer_osbrick.pipeline.reading import BackupReader
from freezer_osbrick.repository.manifest import Manifest
from freezer_osbrick.repository.repository import Repository

BLOCKS, FILES = "blocks", "files"

_TOLD = 20  # files that are named in one sentence


def content_of(head: dict[str, Any]) -> str:
    """What the backup with this head is made of.

    :raises errors.UnknownFormat: something that a later version knows.
    """
    content = str(head.get("content", BLOCKS))
    if content not in (BLOCKS, FILES):
        raise errors.UnknownFormat(
            f"The backup holds {content!r}, which needs a later version of freezer-osbrick."
        )
    return content


@dataclasses.dataclass(frozen=True)
class Laid:
    """A volume as it is to be stored.

    :param device: what is read.
    :param hints: what of it need not be; None where the device itself has to be asked.
    """

    device: Device
    hints: Hints | None


class Contents(Protocol):
    """One kind of content of one attached volume.

    :ivar kind: as it stands in the manifest.
    :ivar device: the volume.
    :ivar notes: what the owner of the volume should know, a sentence each.
    :ivar file_systems: whose files are stored, such as ``ext4 on partition 1``.
    """

    kind: str
    device: Device
    notes: Sequence[str]
    file_systems: Sequence[str]

    def laid_out(
        self, repository: Repository, parent: Manifest | None
    ) -> contextlib.AbstractContextManager[Laid]:
        """Lay the volume out.

        :param parent: a backup of the same kind; the places of its files are kept where it is one
            of the same volume.
        """

    def facts(self) -> dict[str, Any]:
        """What is to stand in the manifest's head, when all is read."""

    def prove(self) -> None:
        """What was read came from the volume.

        :raises errors.DeviceError: that is not certain.
        """

    def unread(self) -> list[Unread]:
        """The files that could not be read."""


class Blocks:
    """All blocks, whatever they mean."""

    kind = BLOCKS
    notes: Sequence[str] = ()
    file_systems: Sequence[str] = ()

    def __init__(self, device: Device) -> None:
        self.device = device

    @contextlib.contextmanager
    def laid_out(self, repository: Repository, parent: Manifest | None) -> Iterator[Laid]:
        yield Laid(self.device, None)

    def facts(self) -> dict[str, Any]:
        return {}

    def prove(self) -> None:
        self.device.prove()

    def unread(self) -> list[Unread]:
        return []


class Files:
    """The files of all file systems."""

    kind = FILES

    def __init__(
        self, device: Device, volume_id: str, mounted: FileSource, patterns: Sequence[str]
    ) -> None:
        """:param device: that the file systems are on.
        :param patterns: of what is left out.
        """
        self.device = device
        self.notes: Sequence[str] = mounted.disk.notes
        self.file_systems: Sequence[str] = [place.label for place in mounted.disk.places]
        self._volume_id = volume_id
        self._source = mounted
        self._patterns = patterns
        self._unread = UnreadFiles()
        self._facts: dict[str, Any] = {}

    @contextlib.contextmanager
    def laid_out(self, repository: Repository, parent: Manifest | None) -> Iterator[Laid]:
        self._unread = UnreadFiles()
        with contextlib.ExitStack() as stack:
            before = None
            if parent and parent.head["volume"]["id"] == self._volume_id:
                reader = stack.enter_context(BackupReader(repository, parent))
                before = StoredFiles(parent.head, reader.read)
            laid = stack.enter_context(
                self._source.lay_out(
                    before, self._patterns, self._unread, lambda _: interruption.check()
                )
            )
            self._facts = laid.facts
            yield Laid(laid.volume, laid.hints)

    def facts(self) -> dict[str, Any]:
        unread = [dataclasses.asdict(one) for one in self._unread]
        return {"files": {**self._facts, "unread": unread}}

    def prove(self) -> None:
        self.device.prove()

    def unread(self) -> list[Unread]:
        return list(self._unread)


@contextlib.contextmanager
def opened(
    device: Device,
    volume_id: str,
    kind: str,
    patterns: Sequence[str],
    *,
    repair: bool,
) -> Iterator[Contents]:
    """The content of an attached volume, until the end of the block.

    :param volume_id: of the volume that is backed up, whose clone the device may be.
    :param kind: BLOCKS or FILES.
    :raises errors.NoFileSystem: files are wanted and there are none.
    :raises errors.JournalDirty: a journal is to be replayed, and ``repair`` is False.
    """
    if kind == BLOCKS:
        yield Blocks(device)
        return
    with source.opened(device, repair=repair) as mounted:
        yield Files(device, volume_id, mounted, patterns)


def told(unread: Sequence[Unread]) -> str:
    """One sentence on files that could not be read."""
    named = ", ".join(f"{one.path!r} ({one.reason})" for one in unread[:_TOLD])
    more = f" and {len(unread) - _TOLD} more" if len(unread) > _TOLD else ""
    what = "1 file" if len(unread) == 1 else f"{len(unread)} files"
    return f"Of {what} not everything could be read: {named}{more}."
