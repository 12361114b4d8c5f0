# SPDX-License-Identifier: Apache-2.0
"""Is the structure of a repository sound? Everything but the blocks' content is read.

Manifests, packs (present, of the right size, header and trailer fit), chunk maps (proved by the
chunks' ids, and pointing into packs that the manifest lists), and what the manifests' indexes say
is in use, which garbage collection believes.
"""

from __future__ import annotations

import dataclasses
import re
import threading
from collections import Counter

from freezer_osbrick import errors
from freezer_osbrick.pipeline import walk, workers
from freezer_osbrick.pipeline.progress import Progress
from freezer_osbrick.repository import catalogue, keys, packs
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository.catalogue import Backup
from freezer_osbrick.repository.chunkmap import ChunkMap
from freezer_osbrick.repository.manifest import PackUse
from freezer_osbrick.repository.maps import read_maps
from freezer_osbrick.repository.ranges import merge
from freezer_osbrick.repository.repository import Repository
from freezer_osbrick.repository.sealing import TAG_SIZE

# Of memory, for each pack of an opened backup: its use, and what its maps say of it.
_BYTES_A_PACK = 600

_PACK = re.compile(f"{form.PACKS}([0-9a-f]{{2}})/(\\1[0-9a-f]{{{2 * form.OBJECT_ID_SIZE - 2}}})")


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something that is not as it should be.

    :param backup: id of the backup that it harms, in hexadecimal; None where it is of no single
        one.
    :param ranges: ``(offset, length)`` in bytes of the volume that cannot be restored for it.
    """

    backup: str | None
    text: str
    ranges: tuple[tuple[int, int], ...] = ()


@dataclasses.dataclass
class Census:
    """What is in the store. Amounts in bytes.

    :param unneeded: packs that no backup needs, those of backups that are under way among them;
        None where a manifest cannot be read, so that nobody knows.
    :param leases: of runs that are under way, or that died.
    :param doomed: lists of packs that garbage collection is going to delete.
    :param stale: verifications of backups that are gone.
    :param unknown: objects that are none of ours.
    """

    backups: int = 0
    packs: int = 0
    pack_bytes: int = 0
    unneeded: int | None = 0
    unneeded_bytes: int | None = 0
    leases: int = 0
    doomed: int = 0
    stale: int = 0
    unknown: int = 0


class _Reader(walk.OpenedBackup):
    """A backup, and what its maps say is in use."""

    def __init__(self, repository: Repository, backup: Backup) -> None:
        super().__init__(repository, backup)
        self.live: Counter[bytes] = Counter()
        self.lost: dict[str, list[tuple[int, int]]] = {}

    def lose(self, offset: int, length: int, reason: str) -> None:
        lost = self.lost.setdefault(reason, [])
        lost.append((offset, length))
        if len(lost) > 65536:
            self.lost[reason] = merge(lost)


class RepositoryChecker:
    """Checks a repository once. That its configuration is sound, its opening has shown.

    :ivar problems: what was found.
    :ivar census: what there is.
    :ivar broken: packs that are not as they should be, and why.
    :ivar sizes: bytes of the packs that are there.
    """

    def __init__(
        self,
        repository: Repository,
        *,
        threads: int = 4,
        progress: Progress,
        lease: str | None = None,
    ) -> None:
        """:param lease: id of the caller's own, which is not counted."""
        self._repository = repository
        self._threads = threads
        self._progress = progress
        self._lock = threading.Lock()
        self.problems: list[Problem] = []
        self.census = Census()
        self._kinds: dict[bytes, int] = {}
        self.sizes: dict[bytes, int] = {}
        self.broken: dict[bytes, str] = {}
        self._lease = lease
        self._needed: set[bytes] = set()
        self._unreadable = False

    def run(self) -> list[Problem]:
        """:raises errors.StoreError: the store failed; that says nothing about the repository."""
        self._check_keys()
        backups, unreadable = catalogue.survey(self._repository)
        for backup_id, reason in unreadable.items():
            self.problems.append(Problem(backup_id, reason))
        self.census.backups = len(backups) + len(unreadable)
        # After the manifests: what they name was stored before them.
        self._take_census({backup.id for backup in backups} | unreadable.keys())
        self._unreadable = bool(unreadable)
        for group in walk.groups(backups, _BYTES_A_PACK):
            self._check_group(group)
        self._count_unneeded()
        return self.problems

    def _check_keys(self) -> None:
        if self._repository.master_key:
            try:
                keys.keys(self._repository.store)
            except (errors.Damaged, errors.UnknownFormat) as error:
                self.problems.append(Problem(None, str(error)))

    def _take_census(self, backup_ids: set[str]) -> None:
        """Look at the names and sizes of all objects."""
        census = self.census
        leases: set[str] = set()
        for info in self._repository.store.list(""):
            match = _PACK.fullmatch(info.name)
            if match:
                self.sizes[bytes.fromhex(match.group(2))] = info.size
            elif info.name.startswith(form.LEASES):
                leases.add(info.name.split("/")[1])
            elif info.name.startswith(form.DOOMED):
                census.doomed += 1
            elif info.name.startswith(form.VERIFIED):
                census.stale += info.name.split("/")[1] not in backup_ids
            elif info.name.startswith(form.MANIFESTS):
                # One that appeared since is a backup, and no less ours.
                census.unknown += not catalogue.is_id(info.name.removeprefix(form.MANIFESTS))
            elif info.name != form.CONFIG_NAME and not info.name.startswith(form.KEYS):
                census.unknown += 1
        census.leases = len(leases - {self._lease})
        census.packs = len(self.sizes)
        census.pack_bytes = sum(self.sizes.values())

    def _check_group(self, group: list[Backup]) -> None:
        readers: list[_Reader] = []
        for backup in group:
            try:
                readers.append(_Reader(self._repository, backup))
            except errors.BackupMissing:
                continue
            except (errors.Damaged, errors.UnknownFormat) as error:
                self._unreadable = True
                self.problems.append(Problem(backup.id, str(error), ((0, backup.size),)))
        self._check_packs(readers)
        if readers:
            self._progress.enter("check", max(reader.manifest.size for reader in readers))
        walk.run(
            self._repository,
            readers,
            self._threads,
            self._progress,
            lambda: lambda indexes: self._visit(readers, indexes),
        )
        for reader in readers:
            problems = self._judge(reader)
            if reader.gone or (problems and reader.has_changed(self._repository)):
                self._again(reader.backup)
            else:
                self.problems += problems

    def _again(self, backup: Backup) -> None:
        """Check a backup that was removed or written anew meanwhile, if it is still there."""
        checker = RepositoryChecker(
            self._repository, threads=self._threads, progress=self._progress
        )
        checker._check_group([backup])
        self.problems += checker.problems
        self._needed |= checker._needed
        self._unreadable |= checker._unreadable

    def _check_packs(self, readers: list[_Reader]) -> None:
        """Look at the packs that these backups need and that nobody has looked at."""
        new: dict[bytes, PackUse] = {}
        for reader in readers:
            for pack, use in reader.manifest.packs.items():
                if pack not in self._kinds:
                    new[pack] = use
        found = list(new.items())
        self._kinds.update((pack, use.kind) for pack, use in found)

        def check(number: int) -> None:
            pack, use = found[number]
            problem = self._pack_problem(pack, use.kind)
            if problem:
                with self._lock:
                    self.broken[pack] = problem

        workers.run(len(found), self._threads, lambda: check)

    def _pack_problem(self, pack: bytes, kind: int) -> str | None:
        """What is wrong with a pack, apart from the content of its boxes."""
        name = form.pack_name(pack)
        try:
            # Not what the listing said: the pack may be younger than that.
            self.sizes[pack] = self._repository.store.stat(name).size
            listed = packs.read_trailer(self._repository, kind, pack)
        except errors.ObjectMissing:
            self.sizes.pop(pack, None)
            return f"Object {name} is missing."
        except (errors.Damaged, errors.UnknownFormat) as error:
            return str(error)
        end = form.HEADER.size
        for _, offset, length in listed:
            if offset != end:
                return f"The trailer of object {name} does not fit what is in it."
            end = offset + length
        return None

    def _visit(self, readers: list[_Reader], indexes: range) -> None:
        uses, unreadable = walk.chunks(self._repository, readers, indexes)
        with self._lock:
            for one in unreadable:
                one.use.backup.lose(one.use.offset, one.length, str(one.error))
        wanted = ((chunk, chunk.entry, chunk.length) for chunk in uses)
        for chunk, found in read_maps(self._repository, wanted):
            with self._lock:
                for use in uses[chunk]:
                    if isinstance(found, errors.Damaged):
                        use.backup.lose(use.offset, chunk.length, str(found))
                    else:
                        self._account(use, chunk, found)

    def _account(self, use: walk.Use[_Reader], chunk: walk.Chunk, chunk_map: ChunkMap) -> None:
        """Count what a chunk needs, and see that it is there."""
        reader, block_size = use.backup, self._repository.block_size
        reader.live[chunk.entry.pack] += chunk.entry.length
        for pack, stored in chunk_map.stored().items():
            reader.live[pack] += stored
        for index in range(len(chunk_map)):
            if chunk_map.block_id(index) == form.ZEROS:
                continue
            problem = self._block_problem(chunk_map, index)
            if problem:
                start = index * block_size
                size = min(block_size, chunk.length - start)
                reader.lose(use.offset + start, size, problem)

    def _block_problem(self, chunk_map: ChunkMap, index: int) -> str | None:
        pack = chunk_map.packs[index]
        if pack is None or chunk_map.lengths[index] > self._repository.block_size + TAG_SIZE:
            return "A chunk map contradicts itself."
        if pack not in self.sizes:
            return f"Object {form.pack_name(pack)} is missing."
        if chunk_map.offsets[index] + chunk_map.lengths[index] > self.sizes[pack]:
            return f"Object {form.pack_name(pack)} is shorter than it should be."
        return None

    def _judge(self, reader: _Reader) -> list[Problem]:
        """What is wrong with a backup."""
        backup_id = reader.backup.id
        problems = [
            Problem(backup_id, reason, tuple(merge(lost))) for reason, lost in reader.lost.items()
        ]
        told = set(reader.lost)
        uses = reader.manifest.packs
        for pack, use in uses.items():
            reason = self.broken.get(pack)
            if reason is None and self.sizes[pack] != use.size:
                reason = (
                    f"Object {form.pack_name(pack)} has {self.sizes[pack]} bytes and should have"
                    f" {use.size}."
                )
            if reason is None and self._kinds[pack] != use.kind:
                reason = f"Object {form.pack_name(pack)} is of another kind than it should be."
            if reason and reason not in told:
                problems.append(Problem(backup_id, reason))
        self._needed |= uses.keys()
        if not reader.lost and {pack: use.live for pack, use in uses.items()} != reader.live:
            problems.append(
                Problem(backup_id, "The index of its manifest does not say what its maps need.")
            )
        return problems

    def _count_unneeded(self) -> None:
        if self._unreadable:
            self.census.unneeded = self.census.unneeded_bytes = None
            return
        unneeded = self.sizes.keys() - self._needed
        self.census.unneeded = len(unneeded)
        self.census.unneeded_bytes = sum(self.sizes[pack] for pack in unneeded)
