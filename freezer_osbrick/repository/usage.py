# SPDX-License-Identifier: Apache-2.0
"""Usage: how much of the store each backup and each volume needs, and what its deletion would free.

The manifests say it all. Amounts are those of whole packs: garbage collection frees no less.
"""

from __future__ import annotations

import dataclasses

from freezer_osbrick import errors
from freezer_osbrick.repository import catalogue
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository.catalogue import Backup
from freezer_osbrick.repository.manifest import Manifest
from freezer_osbrick.repository.repository import Repository

# In place of a number: more than one needs the pack.
_SEVERAL = -1


@dataclasses.dataclass
class Amounts:
    """Bytes in the store.

    :param live: of blocks and maps that a backup needs, exactly; of a volume the sum, where backups
        share something more than is stored.
    :param referenced: of the packs that it needs.
    :param unique: of the packs that nothing else needs.
    :param manifests: of its manifests.
    """

    live: int = 0
    referenced: int = 0
    unique: int = 0
    manifests: int = 0

    @property
    def shared(self) -> int:
        """Bytes of the packs that others need, too."""
        return self.referenced - self.unique

    @property
    def frees(self) -> int:
        """What its deletion and garbage collection give back."""
        return self.unique + self.manifests


@dataclasses.dataclass
class BackupUsage:
    backup: Backup
    amounts: Amounts


@dataclasses.dataclass
class VolumeUsage:
    """:param backups: of the volume, oldest first."""

    volume_id: str
    backups: list[BackupUsage]
    amounts: Amounts

    @property
    def newest(self) -> Backup:
        return self.backups[-1].backup


@dataclasses.dataclass
class Usage:
    """What a repository uses.

    :param stored: bytes of all packs that are in the store.
    :param needed: bytes of the packs that any backup needs.
    :param manifests: bytes of all manifests.
    :param unreadable: manifests that cannot be read, id and reason; what they need is not known.
    """

    volumes: list[VolumeUsage]
    stored: int
    needed: int
    manifests: int
    unreadable: dict[str, str]

    @property
    def unneeded(self) -> int:
        """Bytes of packs that no backup needs, those of running backups among them."""
        return max(0, self.stored - self.needed)


def measure(repository: Repository) -> Usage:
    """Read all manifests and add up."""
    return _Measurement(repository).run()


class _Measurement:
    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._backups: list[BackupUsage] = []
        self._volumes: list[VolumeUsage] = []
        # Of each pack: its size, and the numbers of the only backup and of the only volume that
        # need it.
        self._packs: dict[bytes, tuple[int, int, int]] = {}

    def run(self) -> Usage:
        store = self._repository.store
        backups, unreadable = catalogue.survey(self._repository)
        manifests = {
            info.name.removeprefix(form.MANIFESTS): info.size for info in store.list(form.MANIFESTS)
        }
        by_volume: dict[str, list[Backup]] = {}
        for backup in backups:
            by_volume.setdefault(backup.volume_id, []).append(backup)
        for volume_id in sorted(by_volume):
            self._add_volume(volume_id, by_volume[volume_id], manifests, unreadable)
        for size, backup_number, volume_number in self._packs.values():
            if backup_number != _SEVERAL:
                self._backups[backup_number].amounts.unique += size
            if volume_number != _SEVERAL:
                self._volumes[volume_number].amounts.unique += size
        return Usage(
            volumes=[volume for volume in self._volumes if volume.backups],
            stored=sum(info.size for info in store.list(form.PACKS)),
            needed=sum(size for size, _, _ in self._packs.values()),
            manifests=sum(manifests.values()),
            unreadable=unreadable,
        )

    def _add_volume(
        self,
        volume_id: str,
        backups: list[Backup],
        manifests: dict[str, int],
        unreadable: dict[str, str],
    ) -> None:
        volume = VolumeUsage(volume_id, [], Amounts())
        self._volumes.append(volume)
        mine: set[bytes] = set()
        for backup in backups:
            try:
                manifest = Manifest(self._repository, bytes.fromhex(backup.id))
            except errors.BackupMissing:
                continue  # removed since it was listed
            except (errors.Damaged, errors.UnknownFormat) as error:
                unreadable[backup.id] = str(error)
                continue
            used = BackupUsage(backup, Amounts(manifests=manifests.get(backup.id, 0)))
            self._backups.append(used)
            volume.backups.append(used)
            self._add_packs(used, volume, manifest, mine)

    def _add_packs(
        self, used: BackupUsage, volume: VolumeUsage, manifest: Manifest, mine: set[bytes]
    ) -> None:
        """:param mine: packs that the volume is known to need."""
        backup_number, volume_number = len(self._backups) - 1, len(self._volumes) - 1
        for pack, use in manifest.packs.items():
            used.amounts.live += use.live
            used.amounts.referenced += use.size
            if pack in self._packs:
                _, _, other_volume = self._packs[pack]
                only = volume_number if other_volume == volume_number else _SEVERAL
                self._packs[pack] = (use.size, _SEVERAL, only)
            else:
                self._packs[pack] = (use.size, backup_number, volume_number)
            if pack not in mine:
                mine.add(pack)
                volume.amounts.referenced += use.size
        volume.amounts.live += used.amounts.live
        volume.amounts.manifests += used.amounts.manifests
