# SPDX-License-Identifier: Apache-2.0
"""What a store on a file system does when the file system, or its own process, fails."""

import contextlib
import errno
import multiprocessing
import os
import resource
import signal
import stat
import subprocess
import traceback

import pytest

from freezer_osbrick import errors
from freezer_osbrick.store import address, local
from freezer_osbrick.store.local import LocalStore

_fork = multiprocessing.get_context("fork")


@pytest.fixture
def store(tmp_path):
    return LocalStore(str(tmp_path / "store"), create=True)


def files(store):
    return sorted(
        os.path.relpath(os.path.join(folder, file), store.folder)
        for folder, _, found in os.walk(store.folder)
        for file in found
    )


def in_child(task, *, user=None):
    """Run the task in a process of its own; its exit status, 99 after an exception."""

    def run():
        try:
            if user is not None:
                os.setgroups([])
                os.setgid(user)
                os.setuid(user)
            task()
        except BaseException:
            traceback.print_exc()
            os._exit(99)
        os._exit(0)

    process = _fork.Process(target=run)
    process.start()
    process.join()
    return process.exitcode


@pytest.fixture
def named_files(monkeypatch):
    """A file system that has no files without a name."""
    monkeypatch.setattr(local, "_open_unnamed", lambda folder: None)


def test_a_process_killed_in_the_middle_of_a_put_leaves_nothing(store):
    def killed():
        def parts():
            yield bytes(1 << 20)
            os._exit(7)

        store.put("packs/00/new", parts())

    assert in_child(killed) == 7
    assert files(store) == []


def test_unnamed_files_are_refused_by_some_file_systems(store, monkeypatch):
    real_open = os.open

    def no_unnamed(path, flags, *arguments, **options):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "no")
        return real_open(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", no_unnamed)
    store.put("config", [b"whole"])
    assert store.get("config") == b"whole" and files(store) == ["config"]


def test_a_process_killed_in_the_middle_of_a_named_put(store, named_files):
    store.put("packs/00/old", [b"old"])

    def killed():
        def parts():
            for number in range(3000):
                yield bytes([number % 256]) * 1000
            os._exit(7)

        store.put("packs/00/new", parts())

    assert in_child(killed) == 7
    assert [info.name for info in store.list("")] == ["packs/00/old"]
    with pytest.raises(errors.ObjectMissing):
        store.stat("packs/00/new")
    left = [file for file in files(store) if file != "packs/00/old"]
    assert len(left) == 1 and os.path.basename(left[0]).startswith(".put-")
    assert store.sweep() == []  # too young: somebody may be writing it
    assert store.sweep(older_than=0) == [os.path.join(store.folder, left[0])]
    assert files(store) == ["packs/00/old"]
    assert store.put("packs/00/new", [b"new"]) == 3


def test_a_process_killed_between_link_and_unlink(store, monkeypatch, named_files):
    """The object is there, whole; sweeping the second name of its file does not take it away."""

    def killed():
        monkeypatch.setattr(os, "unlink", lambda path: os._exit(7))
        store.put("config", [b"whole"])

    assert in_child(killed) == 7
    assert [info.name for info in store.list("")] == ["config"]
    assert len(store.sweep(older_than=0)) == 1
    assert store.get("config") == b"whole"
    assert files(store) == ["config"]


def test_sweep_goes_by_the_clock_of_the_store(store, monkeypatch):
    """An agent whose clock is days ahead does not take what others are writing."""
    unfinished = os.path.join(store.folder, ".put-x")
    open(unfinished, "w").close()
    monkeypatch.setattr("time.time", lambda: 4e9)
    assert store.sweep(older_than=3600) == []
    os.utime(unfinished, (1, 1))
    assert store.sweep(older_than=3600) == [unfinished]


def test_a_put_whose_unfinished_file_was_swept_fails_and_harms_nothing(store, named_files):
    def parts():
        yield b"begin"
        store.sweep(older_than=0)
        yield b"end"

    with pytest.raises(errors.StoreError) as caught:
        store.put("packs/00/x", parts())
    assert not isinstance(caught.value, errors.ObjectMissing | errors.ObjectExists)
    assert files(store) == []


def test_a_link_whose_answer_was_lost(store, monkeypatch):
    """NFS repeats the request, and is told that the name exists: by then it is ours."""
    link = os.link

    def repeated(source, target, **options):
        link(source, target, **options)
        raise FileExistsError(errno.EEXIST, "File exists")

    monkeypatch.setattr(os, "link", repeated)
    assert store.put("config", [b"ours"]) == 4
    assert files(store) == ["config"]
    monkeypatch.setattr(os, "link", link)
    with pytest.raises(errors.ObjectExists):
        store.put("config", [b"another"])


def test_a_file_system_without_links(store, monkeypatch):
    def refused(source, target, **options):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    with pytest.raises(errors.StoreError, match="makes no hard links"):
        store.put("config", [b"x"])
    assert files(store) == []


def test_every_folder_on_the_way_is_durable(store, monkeypatch):
    """A power cut after the put must not take a folder away that the put made."""
    synced = []
    monkeypatch.setattr(local, "_sync_folder", synced.append)
    store.put("packs/ab/abcd", [b"x"])
    top = store.folder
    assert synced == [top, f"{top}/packs", f"{top}/packs/ab"]


def test_nobody_else_may_read(store):
    store.put("packs/ab/abcd", [b"x"])
    for path in ("", "packs", "packs/ab", "packs/ab/abcd"):
        mode = os.stat(os.path.join(store.folder, path)).st_mode
        assert stat.S_IMODE(mode) & 0o077 == 0, path


def test_the_store_of_a_file_system_that_is_not_mounted_is_not_made(tmp_path):
    store = LocalStore(str(tmp_path / "absent"))
    with pytest.raises(errors.StoreError, match="absent is missing"):
        store.put("packs/ab/abcd", [b"x"])
    with pytest.raises(errors.StoreError, match="absent"):
        store.now()
    assert list(store.list("")) == []
    assert os.listdir(tmp_path) == []


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(errors.StoreError, match="is no folder"):
        LocalStore(str(tmp_path / "file"), create=True)


def test_what_is_not_ours_is_passed_over(store):
    """A mount point has lost+found; editors, file browsers and snapshots leave their own."""
    store.put("manifests/00", [b"x"])
    for name in ("lost+found", ".snapshot", "manifests/.put-1", "Thumbs"):
        os.mkdir(os.path.join(store.folder, name), mode=0)
    for name in (".DS_Store", "manifests/README", "manifests/00~", "packs"):
        os.mkfifo(os.path.join(store.folder, name))
    os.symlink("nowhere", os.path.join(store.folder, "manifests/01"))
    assert [info.name for info in store.list("")] == ["manifests/00"]


def test_objects_in_a_folder_that_lies_elsewhere_are_listed(store, tmp_path):
    (tmp_path / "other-disk").mkdir()
    os.symlink(tmp_path / "other-disk", os.path.join(store.folder, "manifests"))
    store.put("manifests/00", [b"x"])
    assert [info.name for info in store.list("")] == ["manifests/00"]


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_a_folder_that_cannot_be_listed_is_not_empty(store, monkeypatch, number):
    """Else all backups would seem gone, and all packs unused."""
    store.put("manifests/00", [b"x"])
    scandir = os.scandir

    def failing(path):
        if str(path).endswith("manifests/"):
            raise OSError(number, os.strerror(number))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", failing)
    for prefix in ("", "manifests/"):
        with pytest.raises(errors.StoreError):
            list(store.list(prefix))


@contextlib.contextmanager
def small_file_system(folder, size="4m"):
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk(tmp_path):
    with small_file_system(tmp_path):
        store = LocalStore(str(tmp_path / "store"), create=True)
        store.put("packs/00/small", [b"s" * 1000])
        with pytest.raises(errors.StoreFull, match="packs/00/large"):
            store.put("packs/00/large", (bytes(1 << 20) for _ in range(10)))
        assert files(store) == ["packs/00/small"]
        store.put("packs/00/other", [b"o" * (2 << 20)])
        assert store.get("packs/00/small") == b"s" * 1000


def test_a_file_that_may_not_grow(store):
    def limited():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        with pytest.raises(errors.StoreFull, match="packs/00/large"):
            store.put("packs/00/large", (bytes(10_000) for _ in range(100)))
        assert files(store) == []
        store.put("packs/00/small", [bytes(10_000)])

    assert in_child(limited) == 0
    assert files(store) == ["packs/00/small"]


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_a_folder_of_somebody_else(store):
    store.put("manifests/00", [b"x"])
    store.put("packs/00/x", [b"x"])
    for folder in (store.folder, f"{store.folder}/packs", f"{store.folder}/packs/00"):
        os.chmod(folder, 0o755)
    above = store.folder
    while above != "/" and os.stat(above).st_mode & 0o005 != 0o005:
        pytest.skip("the temporary folder is not open to other users")

    def refused():
        with pytest.raises(errors.StoreAccessDenied, match="packs/00/y"):
            store.put("packs/00/y", [b"y"])
        with pytest.raises(errors.StoreAccessDenied):
            store.put("leases/1", [b"y"])
        with pytest.raises(errors.StoreAccessDenied):
            store.delete("packs/00/x")
        with pytest.raises(errors.StoreAccessDenied):
            store.get("packs/00/x")
        with pytest.raises(errors.StoreAccessDenied):
            list(store.list("manifests/"))
        with pytest.raises(errors.StoreAccessDenied):
            list(store.list(""))
        with pytest.raises(errors.StoreAccessDenied):
            store.now()

    with opened_to_all(os.path.dirname(store.folder)):
        assert in_child(refused, user=65534) == 0
    assert files(store) == ["manifests/00", "packs/00/x"]


@contextlib.contextmanager
def opened_to_all(path):
    """Let other users pass through the folders above, for a while."""
    changed = []
    try:
        while path != "/":
            mode = stat.S_IMODE(os.stat(path).st_mode)
            if mode & 0o001 == 0:
                os.chmod(path, mode | 0o001)
                changed.append((path, mode))
            path = os.path.dirname(path)
        yield
    finally:
        for changed_path, mode in changed:
            os.chmod(changed_path, mode)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("/srv/backups", "file:///srv/backups"),
        ("/srv//backups/", "file:///srv/backups"),
        ("file:///srv/backups/", "file:///srv/backups"),
        ("//srv/backups", "file:///srv/backups"),
        ("file:///srv/my%20backups", "file:///srv/my%20backups"),
        ("/srv/100%25 x?y#z", "file:///srv/100%2525%20x%3Fy%23z"),
    ],
)
def test_addresses(given, url):
    assert address.normalise(given) == url
    assert address.normalise(url) == url
    assert address.open_store(given).url == url
    assert address.open_store(url).folder == address.open_store(given).folder


@pytest.mark.parametrize(
    "given",
    ["", "backups", "./backups", "file://host/srv", "file:srv", "file://", "~/x"]
    + ["file:///srv?x=1", "file:///srv#x", "http://[broken/x", "http://host/x", "/srv/\0"],
)
def test_addresses_that_are_none(given):
    with pytest.raises(errors.BadRequest):
        address.normalise(given)
