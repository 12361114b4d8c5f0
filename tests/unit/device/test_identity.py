# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import errno
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from freezer_osbrick import errors
from freezer_osbrick.device import identity
from freezer_osbrick.device.inquiry import Answer
from tests.unit.device.pretended import GIB, Sysfs

WWN = "600508b400105e210000900000490000"
OTHER = WWN[:-1] + "1"
IQN = "iqn.2010-10.org.openstack:volume-1"
ISCSI = {"driver_volume_type": "iscsi", "target_iqn": IQN, "target_lun": 1}


@pytest.mark.parametrize("actual", [GIB, GIB + 1, 2 * GIB - 1])
def test_sizes_of_the_volume(actual: int) -> None:
    identity.prove_size("it", actual, GIB)


@pytest.mark.parametrize("actual", [0, GIB - 1, 2 * GIB])
def test_sizes_of_something_else(actual: int) -> None:
    with pytest.raises(errors.IdentityError, match=f"it has {actual} bytes"):
        identity.prove_size("it", actual, GIB)


@pytest.fixture
def sysfs(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Sysfs:
    return Sysfs(tmp_path / "sys", monkeypatch)


@pytest.fixture
def descriptor(tmp_path: pathlib.Path) -> Iterator[int]:
    """Of a file of 1 GiB, which the pretended sysfs takes for the block device 0:0."""
    descriptor = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR)
    os.ftruncate(descriptor, GIB)
    yield descriptor
    os.close(descriptor)


def prove(
    sysfs: Sysfs, descriptor: int, connection: dict[str, Any], device: dict[str, Any]
) -> identity.Identity:
    found = identity.of(descriptor, sysfs=str(sysfs.root))
    identity.prove_told("it", found, connection, device, sysfs=str(sysfs.root))
    return found


def single(sysfs: Sysfs, **options: Any) -> str:
    """One disk at the place that ISCSI tells of."""
    where = sysfs.session(1, IQN) + "/target1:0:0/1:0:0:1"
    folder = sysfs.scsi_disk(where, "sda", options.pop("digits", WWN), **options)
    sysfs.is_device(folder)
    sysfs.opened = "sda"
    return folder


def double(sysfs: Sysfs) -> str:
    """A multipath device of two disks there."""
    paths = [
        sysfs.scsi_disk(
            sysfs.session(number, IQN) + f"/target{number}:0:0/{number}:0:0:1", name, WWN
        )
        for number, name in ((1, "sda"), (2, "sdb"))
    ]
    folder = sysfs.multipath("dm-0", "3" + WWN, *paths)
    sysfs.is_device(folder)
    return folder


# -- what was told ---------------------------------------------------------------------------------


def test_the_disk_that_was_told(sysfs: Sysfs, descriptor: int) -> None:
    single(sysfs)
    prove(sysfs, descriptor, ISCSI, {"scsi_wwn": "3" + WWN})
    with pytest.raises(errors.IdentityError, match=f"sda is naa.{WWN} .*not naa.{OTHER}"):
        prove(sysfs, descriptor, ISCSI, {"scsi_wwn": "3" + OTHER})


@pytest.mark.parametrize(
    "told", [{"target_iqn": "iqn.other"}, {"target_lun": 2}, {"target_iqns": [], "target_iqn": ""}]
)
def test_a_disk_at_another_place(sysfs: Sysfs, descriptor: int, told: dict[str, Any]) -> None:
    single(sysfs)
    with pytest.raises(errors.IdentityError, match=f"sda is unit 1 of {IQN}"):
        prove(sysfs, descriptor, {**ISCSI, **told}, {})


def test_a_disk_that_the_kernel_takes_for_an_earlier_one(sysfs: Sysfs, descriptor: int) -> None:
    single(sysfs, cached=OTHER)
    with pytest.raises(errors.IdentityError, match=f"as naa.{OTHER}, and the disk says .*{WWN}"):
        prove(sysfs, descriptor, ISCSI, {})


def test_a_disk_whose_size_the_kernel_does_not_know(sysfs: Sysfs, descriptor: int) -> None:
    single(sysfs, size=2 * GIB)
    with pytest.raises(errors.IdentityError, match=f"kernel has {GIB} bytes.*disk says {2 * GIB}"):
        prove(sysfs, descriptor, ISCSI, {})


def test_every_path_of_a_multipath_device(sysfs: Sysfs, descriptor: int) -> None:
    double(sysfs)
    assert len(prove(sysfs, descriptor, ISCSI, {"scsi_wwn": "3" + WWN}).disks) == 2
    sysfs.answers["sdb"] = Answer(frozenset({f"naa.{OTHER}"}), GIB)
    with pytest.raises(errors.IdentityError, match="sdb"):
        prove(sysfs, descriptor, ISCSI, {})


def test_a_path_that_something_else_is_built_upon(sysfs: Sysfs, descriptor: int) -> None:
    double(sysfs)
    where = "devices/platform/host1/session1/target1:0:0/1:0:0:1/block/sda/holders"
    sysfs.link(f"{where}/dm-0", "devices/virtual/block/dm-0")
    prove(sysfs, descriptor, ISCSI, {})
    sysfs.write("devices/virtual/block/dm-7/dm/name", "guest-root")
    sysfs.link(f"{where}/dm-7", "devices/virtual/block/dm-7")
    with pytest.raises(errors.DeviceError, match=r"dm-7 \(guest-root\) on this host uses .*sda"):
        prove(sysfs, descriptor, ISCSI, {})


def test_paths_that_discovery_has_found(sysfs: Sysfs, descriptor: int) -> None:
    """Storage with a target a portal: Cinder names one of them."""
    double(sysfs)
    sysfs.write("class/iscsi_session/session2/targetname", "iqn.of.another.portal")
    prove(sysfs, descriptor, ISCSI, {})


def test_a_path_that_is_down(sysfs: Sysfs, descriptor: int) -> None:
    double(sysfs)
    sysfs.answers["sda"] = OSError(errno.EIO, "no")
    found = prove(sysfs, descriptor, ISCSI, {})
    assert [os.path.basename(disk.folder) for disk in found.disks] == ["sdb"]
    sysfs.write("devices/platform/host2/session2/target2:0:0/2:0:0:1/state", "blocked")
    with pytest.raises(errors.DeviceError, match="does not answer .*sda, .*sdb"):
        prove(sysfs, descriptor, ISCSI, {})


def test_who_may_not_ask_has_what_the_kernel_keeps(sysfs: Sysfs, descriptor: int) -> None:
    single(sysfs)
    sysfs.answers["sda"] = OSError(errno.EPERM, "only root")
    (disk,) = prove(sysfs, descriptor, ISCSI, {"scsi_wwn": "3" + WWN}).disks
    assert (disk.names, disk.size) == ({f"naa.{WWN}"}, None)


def test_an_nvme_namespace(sysfs: Sysfs, descriptor: int) -> None:
    told = "6c8f3a52-8b7d-4b5e-9f37-0a1b2c3d4e5f"
    connection = {
        "driver_volume_type": "nvmeof",
        "target_nqn": "nqn.1",
        "portals": [["192.0.2.1", "4420", "tcp"]],
        "vol_uuid": told,
    }
    controller = sysfs.controller("nvme0", "nqn.1", "192.0.2.1", "4420")
    sysfs.is_device(sysfs.namespace(controller, "nvme0n1", 3, uuid=told))
    sysfs.answers["nvme0n1"] = Answer(frozenset({f"uuid.{told}"}), GIB)
    sysfs.opened = "nvme0n1"
    prove(sysfs, descriptor, connection, {})
    for other in ({"vol_uuid": told[::-1]}, {"target_nqn": "nqn.2"}):
        with pytest.raises(errors.IdentityError, match="namespace 3 of nqn.1"):
            prove(sysfs, descriptor, {**connection, **other}, {})
    # Who may not ask the namespace has what the kernel keeps.
    sysfs.answers["nvme0n1"] = OSError(errno.EACCES, "only root")
    (disk,) = prove(sysfs, descriptor, connection, {}).disks
    assert disk.names == {f"uuid.{told}"}


def test_replicas_of_a_volume_have_names_of_their_own(sysfs: Sysfs, descriptor: int) -> None:
    replicas = []
    members = []
    for number in (0, 1):
        name = f"00000000-0000-0000-0000-00000000000{number + 1}"
        controller = sysfs.controller(f"nvme{number}", f"nqn.{number}", "192.0.2.1", "4420")
        members.append(sysfs.namespace(controller, f"nvme{number}n1", 1, uuid=name))
        sysfs.answers[f"nvme{number}n1"] = Answer(frozenset({f"uuid.{name}"}), 2 * GIB)
        portals = [["192.0.2.1", "4420", "tcp"]]
        replicas.append({"target_nqn": f"nqn.{number}", "vol_uuid": name, "portals": portals})
    sysfs.write("devices/virtual/block/md0/md/level", "raid1")
    for member in members:
        link = f"devices/virtual/block/md0/slaves/{os.path.basename(member)}"
        sysfs.link(link, os.path.relpath(member, sysfs.root))
    sysfs.is_device(str(sysfs.root / "devices/virtual/block/md0"))
    connection = {
        "driver_volume_type": "nvmeof",
        "vol_uuid": "99999999-0000-0000-0000-000000000000",  # Cinder's, and of no namespace
        "volume_replicas": replicas,
    }
    prove(sysfs, descriptor, connection, {})


def test_nothing_told_and_nothing_known(sysfs: Sysfs, descriptor: int) -> None:
    sysfs.write("devices/virtual/block/loop0/loop/backing_file", "/pool/volume")
    sysfs.is_device(str(sysfs.root / "devices/virtual/block/loop0"))
    found = prove(sysfs, descriptor, {"driver_volume_type": "local"}, {"scsi_wwn": "1ATA     D"})
    assert (found.size, found.mapped) == (GIB, "/pool/volume")


# -- later -----------------------------------------------------------------------------------------


def same(sysfs: Sysfs, descriptor: int, before: identity.Identity) -> None:
    identity.prove_same("it", before, identity.of(descriptor, sysfs=str(sysfs.root)))


def test_another_volume_under_the_same_lun(sysfs: Sysfs, descriptor: int) -> None:
    """The kernel shows in sysfs what it showed before."""
    single(sysfs)
    before = prove(sysfs, descriptor, ISCSI, {})
    same(sysfs, descriptor, before)
    sysfs.answers["sda"] = Answer(frozenset({f"naa.{OTHER}"}), GIB)
    with pytest.raises(errors.IdentityError, match=f"was naa.{WWN} .*and is naa.{OTHER} .*now"):
        same(sysfs, descriptor, before)


def test_a_disk_that_the_kernel_has_taken_away(sysfs: Sysfs, descriptor: int) -> None:
    """A descriptor that is still open shows a disk without bytes."""
    single(sysfs)
    before = prove(sysfs, descriptor, ISCSI, {})
    now = dataclasses.replace(before, size=0)
    with pytest.raises(errors.DeviceError, match="it is gone: the kernel has taken") as told:
        identity.prove_same("it", before, now)
    assert not isinstance(told.value, errors.IdentityError)


def test_the_same_name_and_another_size(sysfs: Sysfs, descriptor: int) -> None:
    single(sysfs)
    before = prove(sysfs, descriptor, ISCSI, {})
    sysfs.answers["sda"] = Answer(frozenset({f"naa.{WWN}"}), 2 * GIB)
    with pytest.raises(errors.IdentityError, match=f"{2 * GIB} bytes now"):
        same(sysfs, descriptor, before)


def test_a_disk_without_names_that_changes_its_size(sysfs: Sysfs, descriptor: int) -> None:
    single(sysfs)
    sysfs.answers["sda"] = Answer(frozenset(), None)
    sysfs.write("devices/platform/host1/session1/target1:0:0/1:0:0:1/vpd_pg83", b"")
    before = prove(sysfs, descriptor, ISCSI, {})
    same(sysfs, descriptor, before)
    os.ftruncate(descriptor, 2 * GIB)
    with pytest.raises(errors.IdentityError, match="not the volume any more"):
        same(sysfs, descriptor, before)


def test_paths_come_and_go(sysfs: Sysfs, descriptor: int) -> None:
    folder = double(sysfs)
    before = prove(sysfs, descriptor, ISCSI, {})
    sysfs.answers["sda"] = OSError(errno.ENODEV, "gone")
    same(sysfs, descriptor, before)
    os.unlink(os.path.join(folder, "slaves", "sda"))
    third = sysfs.scsi_disk(sysfs.session(3, IQN) + "/target3:0:0/3:0:0:1", "sdc", WWN)
    os.symlink(third, os.path.join(folder, "slaves", "sdc"))
    same(sysfs, descriptor, before)
    sysfs.answers["sdc"] = Answer(frozenset({f"naa.{OTHER}"}), GIB)
    with pytest.raises(errors.IdentityError, match="sdc"):
        same(sysfs, descriptor, before)
    sysfs.answers["sdb"] = sysfs.answers["sdc"] = OSError(errno.EIO, "no")
    with pytest.raises(errors.DeviceError, match="does not answer"):
        same(sysfs, descriptor, before)


def test_a_multipath_device_made_anew_of_other_disks(sysfs: Sysfs, descriptor: int) -> None:
    """An alias that was given to another volume under a live map."""
    double(sysfs)
    before = prove(sysfs, descriptor, ISCSI, {})
    sysfs.write("devices/virtual/block/dm-0/dm/uuid", f"mpath-3{OTHER}")
    with pytest.raises(errors.IdentityError, match=f"was mpath-3{WWN}.*is mpath-3{OTHER}"):
        same(sysfs, descriptor, before)
