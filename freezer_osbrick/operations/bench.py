# SPDX-License-Identifier: Apache-2.0
"""What each step of a backup and a restore costs on this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator

import zstandard
from cryptography.hazmat.primitives.ciphers import aead

from freezer_osbrick import errors
from freezer_osbrick.device.path_device import PathDevice
from freezer_osbrick.device.volume_device import Device
from freezer_osbrick.operations.context import Context
from freezer_osbrick.pipeline.backup import BackupWriter
from freezer_osbrick.pipeline.progress import Progress
from freezer_osbrick.pipeline.restore import RestoreReader
from freezer_osbrick.pipeline.scan import ChunkBuffer
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository import packs, repository
from freezer_osbrick.repository.manifest import Manifest
from freezer_osbrick.repository.repository import Repository
from freezer_osbrick.store.base import Buffer
from freezer_osbrick.store.local import LocalStore
from freezer_osbrick.store.subfolder import SubfolderStore

DEFAULT_SIZE = 1 << 30

# Objects of ours in the user's store lie below this name, apart from any repository there.
FOLDER = "bench"

_MIB = 1 << 20
_SAMPLE = 64 * _MIB  # for steps that work on memory
_LEVELS = (1, 3)


@dataclasses.dataclass(frozen=True)
class Step:
    """What one step took.

    :param threads: that worked on it.
    :param bytes: of the volume that went through it; for ``put`` and ``get`` of the store.
    :param seconds: on the clock.
    :param cpu_seconds: of all threads, user and system.
    """

    step: str
    threads: int
    bytes: int
    seconds: float
    cpu_seconds: float

    @property
    def bytes_per_second(self) -> float:
        return self.bytes / max(self.seconds, 1e-9)

    @property
    def bytes_per_cpu_second(self) -> float:
        """What one core could do that had nothing else to do."""
        return self.bytes / max(self.cpu_seconds, 1e-9)


Listener = Callable[[str], None]


def bench(
    context: Context,
    *,
    url: str | None = None,
    path: str | None = None,
    size: int = DEFAULT_SIZE,
    threads: int | None = None,
    listener: Listener = lambda step: None,
) -> list[Step]:
    """Measure each step by itself, then whole backups and restores with 1 … ``threads`` threads.

    :param url: of a store; what is put there is deleted again, and a repository that is there is
        not touched. None for a temporary folder.
    :param path: file or block device to read, at most ``size`` bytes of it; it is never written.
        None for generated data.
    :param threads: None for as many as the configuration says.
    :param listener: told of each step before it begins.
    :raises errors.OsbrickError: something could not be read or stored.
    """
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="freezer-osbrick-"))
        if path is None:
            listener("generate")
            path = os.path.join(folder, "volume")
            _generate(path, size)
        device = stack.enter_context(contextlib.closing(_Beginning(path, size)))
        inner = context.open_store(url) if url else LocalStore(f"{folder}/store", create=True)
        store = SubfolderStore(stack.enter_context(inner), FOLDER)
        store.clear()  # what a killed run left
        stack.callback(store.clear)
        opened = repository.create(store, secret=os.urandom(32))
        run = _Run(opened, device, folder, listener)
        run.read()
        run.steps_in_memory()
        run.store()
        most = threads or context.conf.osbrick.workers
        for number in range(1, most + 1):
            run.backup_and_restore(number)
        return run.steps


class _Run:
    def __init__(self, opened: Repository, device: Device, folder: str, listener: Listener) -> None:
        self._repository = opened
        self._device = device
        self._folder = folder
        self._listener = listener
        self.steps: list[Step] = []

    @contextlib.contextmanager
    def _measured(self, step: str, size: int, threads: int = 1) -> Iterator[None]:
        self._listener(step if threads == 1 else f"{step}, {threads} threads")
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        self.steps.append(Step(step, threads, size, wall, cpu))

    def read(self) -> None:
        buffer = ChunkBuffer(self._repository)
        chunk, size = self._repository.chunk_size, self._device.size
        with self._measured("read", size):
            for offset in range(0, size, chunk):
                buffer.read(self._device, offset, min(chunk, size - offset))

    def steps_in_memory(self) -> None:
        """Each step on blocks of the volume that are not zeros."""
        chunks = self._sample()
        size = sum(buffer.length for buffer in chunks)
        with self._measured("zero test", size):
            # On memory that is all zeros, as the test reads only that to its end.
            empty = ChunkBuffer(self._repository)
            for buffer in chunks:
                empty.range_zeros(0, buffer.length)
        with self._measured("hash", size):
            for buffer in chunks:
                buffer.block_ids()
        contents = [b.block(number) for b in chunks for number in range(b.block_count)]
        for level in _LEVELS:
            compressor = zstandard.ZstdCompressor(level=level)
            with self._measured(f"compress, zstd {level}", size):
                for content in contents:
                    compressor.compress(content)
        compressor = zstandard.ZstdCompressor(level=_LEVELS[0])
        squeezed = [compressor.compress(content) for content in contents]
        decompressor = zstandard.ZstdDecompressor()
        with self._measured("decompress", size):
            for data in squeezed:
                decompressor.decompress(data)
        cipher = aead.AESGCM(os.urandom(32))
        nonces = [number.to_bytes(12, "little") for number in range(len(squeezed))]
        # What is counted are bytes that are sealed, which are fewer than those of the volume.
        total = sum(map(len, squeezed))
        with self._measured("seal, AES-256-GCM", total):
            for nonce, data in zip(nonces, squeezed, strict=True):
                cipher.encrypt(nonce, data, None)
        sealed = [cipher.encrypt(*pair, None) for pair in zip(nonces, squeezed, strict=True)]
        with self._measured("open, AES-256-GCM", total):
            for nonce, box in zip(nonces, sealed, strict=True):
                cipher.decrypt(nonce, box, None)

    def store(self) -> None:
        """Objects of the size of a pack, one after the other, that cannot be compressed."""
        store = self._repository.store
        piece = os.urandom(_MIB)
        parts: list[Buffer] = [piece] * (packs.TARGET_SIZE // _MIB)
        count = max(1, min(4, self._device.size // packs.TARGET_SIZE))
        names = [f"objects/{number}" for number in range(count)]
        with self._measured("put", count * packs.TARGET_SIZE):
            for name in names:
                store.put(name, parts)
        with self._measured("get", count * packs.TARGET_SIZE):
            for name in names:
                store.get(name)
        for name in names:
            store.delete(name)

    def backup_and_restore(self, threads: int) -> None:
        """The whole way in both directions, and a backup of the unchanged volume."""
        size = self._device.size
        with self._measured("backup", size, threads):
            manifest = self._backup(threads, None)
        with self._measured("backup, unchanged", size, threads):
            self._backup(threads, manifest)
        target = os.path.join(self._folder, "restored")
        with open(target, "wb") as file:
            file.truncate(size)
        with contextlib.closing(_open(target, size, writable=True)) as device:
            reader = RestoreReader(
                self._repository,
                manifest,
                device,
                compare=False,
                threads=threads,
                progress=Progress(FOLDER),
            )
            with self._measured("restore", size, threads):
                reader.run()
        os.unlink(target)

    def _backup(self, threads: int, parent: Manifest | None) -> Manifest:
        backup_id = os.urandom(form.OBJECT_ID_SIZE)
        writer = BackupWriter(
            self._repository,
            backup_id,
            self._device,
            parent=parent,
            threads=threads,
            progress=Progress(FOLDER),
        )
        writer.run({"backup": backup_id.hex(), "time": int(time.time())})
        return Manifest(self._repository, backup_id)

    def _sample(self) -> list[ChunkBuffer]:
        """Chunks from all over the volume that are not zeros; the first if all are."""
        chunk = self._repository.chunk_size
        count = self._repository.chunk_count(self._device.size)
        most = max(1, _SAMPLE // chunk)
        found: list[ChunkBuffer] = []
        buffer = ChunkBuffer(self._repository)
        for index in random.Random(0).sample(range(count), count):
            offset = index * chunk
            buffer.read(self._device, offset, min(chunk, self._device.size - offset))
            if not buffer.all_zeros():
                found.append(buffer)
                if len(found) == most:
                    break
                buffer = ChunkBuffer(self._repository)
        return found or [buffer]


class _Beginning(Device):
    """The first bytes of a file or a block device, for reading."""

    def __init__(self, path: str, most: int) -> None:
        try:
            with open(path, "rb", buffering=0) as file:
                size = file.seek(0, os.SEEK_END)
        except OSError as error:
            raise errors.BadRequest(f"{path} cannot be read: {error.strerror}.") from error
        if not size:
            raise errors.BadRequest(f"{path} is empty: there is nothing to measure.")
        self._whole = _open(path, size, writable=False)
        super().__init__(path, min(size, most), writable=False)

    def _readinto(self, offset: int, buffer: memoryview) -> None:
        self._whole.readinto(offset, buffer)

    def _write(self, offset: int, data: memoryview) -> None:
        self._whole.write(offset, data)  # refuses

    def _zero(self, offset: int, length: int) -> None:
        self._whole.zero(offset, length)  # refuses

    def _flush(self) -> None:
        self._whole.flush()

    def _close(self) -> None:
        self._whole.close()


def _open(path: str, size: int, *, writable: bool) -> PathDevice:
    return PathDevice(path, size=size, writable=writable, connection_info={}, device_info={})


def _generate(path: str, size: int) -> None:
    """A volume of which a quarter is zeros, a quarter random, and half can be compressed to about
    a third."""
    generator = random.Random(1)
    words = [generator.randbytes(generator.randrange(2, 9)).hex() for _ in range(4096)]
    text = " ".join(generator.choices(words, k=400_000)).encode()
    kinds = ("zeros", "random", "text", "text")
    try:
        with open(path, "wb") as file:
            for number in range(-(-size // _MIB)):
                kind = kinds[number // 4 % len(kinds)]
                if kind == "random":
                    file.write(generator.randbytes(_MIB))
                elif kind == "text":
                    start = generator.randrange(len(text) - _MIB)
                    file.write(text[start : start + _MIB])
                else:
                    file.seek(_MIB, os.SEEK_CUR)
            file.truncate(size)
    except OSError as error:
        raise errors.OsbrickError(
            f"The data to measure with cannot be written to {path}: {error.strerror}."
        ) from error
