# SPDX-License-Identifier: Apache-2.0
"""Where volumes are, on a pretended sysfs."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import pytest

from freezer_osbrick.device import disks, places, traces
from tests.unit.device.pretended import Sysfs

IQN = "iqn.2010-10.org.openstack:volume-1"
NQN = "nqn.2014-08.org.nvmexpress:volume-1"
UUID = "6c8f3a52-8b7d-4b5e-9f37-0a1b2c3d4e5f"


@pytest.fixture
def sysfs(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Sysfs:
    return Sysfs(tmp_path / "sys", monkeypatch)


def told(sysfs: Sysfs, protocol: str, **info: Any) -> places.Place:
    place = places.told({"driver_volume_type": protocol, **info}, str(sysfs.root))
    assert place is not None
    return place


def names(folders: list[str]) -> list[str]:
    return [os.path.basename(folder) for folder in folders]


@pytest.mark.parametrize("protocol", ["local", "rbd", "scaleio", "", None])
def test_kinds_that_nothing_is_known_of(protocol: Any) -> None:
    assert places.told({"driver_volume_type": protocol}) is None


@pytest.mark.parametrize(
    "info",
    [
        {"target_iqn": IQN, "target_lun": 1},
        {"target_iqn": IQN, "target_lun": "1"},
        {"target_iqns": [IQN, IQN], "target_luns": [1, 1]},
    ],
)
def test_iscsi(sysfs: Sysfs, info: dict[str, Any]) -> None:
    mine, others = sysfs.session(1, IQN), sysfs.session(2, "iqn.of.another")
    sysfs.scsi_disk(f"{mine}/target1:0:0/1:0:0:1", "sda", "6000000000000001")
    sysfs.scsi_disk(f"{mine}/target1:0:0/1:0:0:2", "sdb", "6000000000000002")
    sysfs.scsi_disk(f"{others}/target2:0:0/2:0:0:1", "sdc", "6000000000000003")
    place = told(sysfs, "iscsi", **info)
    assert names(place.disks()) == place.remains() == ["sda"]


def test_an_iscsi_session_without_disks_remains(sysfs: Sysfs) -> None:
    place = told(sysfs, "iscsi", target_iqn=IQN, target_lun=1)
    mine = sysfs.session(1, IQN)
    assert place.remains() == ["an iSCSI session1 without disks"]
    # A session that others use is theirs.
    sysfs.scsi_disk(f"{mine}/target1:0:0/1:0:0:2", "sdb", "6000000000000002")
    assert place.remains() == []


@pytest.mark.parametrize(
    "info",
    [
        {"target_wwn": "50014380242B9751", "target_lun": 1},
        {"target_wwn": ["50014380242b9751", "50014380242b9752"], "target_lun": 1},
        {"target_wwns": ["50014380242b9751"], "target_luns": [1]},
        {"initiator_target_map": {"i": ["50014380242b9751"]}, "target_lun": 1},
        {"initiator_target_lun_map": {"i": [["50014380242b9751", 1]]}},
    ],
)
def test_fibre_channel(sysfs: Sysfs, info: dict[str, Any]) -> None:
    for host, port in ((2, "0x50014380242b9751"), (3, "0x5001438024ffffff")):
        sysfs.write(f"class/fc_transport/target{host}:0:1/port_name", port)
    where = "pci/host{0}/rport-{0}:0-1/target{0}:0:1/{0}:0:1:{1}"
    sysfs.scsi_disk(where.format(2, 1), "sda", "6000000000000001")
    sysfs.scsi_disk(where.format(2, 2), "sdb", "6000000000000002")
    sysfs.scsi_disk(where.format(3, 1), "sdc", "6000000000000003")
    place = told(sysfs, "fibre_channel", **info)
    assert names(place.disks()) == place.remains() == ["sda"]
    assert place.where(disks.folder_by_number("0:0", "/")) == "at no port"


def test_numbers_that_are_addressed_in_the_flat_way(sysfs: Sysfs) -> None:
    mine = sysfs.session(1, IQN)
    sysfs.scsi_disk(f"{mine}/target1:0:0/1:0:0:16640", "sda", "6000000000000001")
    assert names(told(sysfs, "iscsi", target_iqn=IQN, target_lun=256).disks()) == ["sda"]


OLD = {"nqn": NQN, "target_portal": "192.0.2.1", "target_port": 4420, "transport_type": "tcp"}
NEW = {"target_nqn": NQN, "portals": [["192.0.2.1", "4420", "tcp"]]}


@pytest.mark.parametrize(
    "info",
    [
        {**NEW, "vol_uuid": UUID},
        {**NEW, "vol_uuid": UUID.upper().replace("-", "")},
        {**OLD, "ns_id": 3},
        {**OLD, "volume_nguid": "0102030405060708090a0b0c0d0e0f10", "ns_id": 9},
        {"vol_uuid": "x", "volume_replicas": [{**NEW, "vol_uuid": UUID}]},
    ],
)
def test_nvme(sysfs: Sysfs, info: dict[str, Any]) -> None:
    mine = sysfs.controller("nvme0", NQN, "192.0.2.1", "4420")
    others = sysfs.controller("nvme1", "nqn.other", "192.0.2.1", "4420")
    ours = {"uuid": UUID, "nguid": "01020304-0506-0708-090a-0b0c0d0e0f10"}
    sysfs.namespace(mine, "nvme0n1", 3, **ours)
    sysfs.namespace(others, "nvme1n1", 3, **ours)
    place = told(sysfs, "nvmeof", **info)
    assert names(place.disks()) == ["nvme0n1"]
    assert place.remains() == ["the NVMe controller nvme0 with the volume"]
    # Cinder takes ours away; until then a subsystem that others use keeps it.
    sysfs.namespace(mine, "nvme0n2", 4, uuid=UUID[::-1])
    assert place.remains() == []
    assert names(place.disks()) == ["nvme0n1"]


def test_a_single_path_of_a_namespace_is_no_disk(sysfs: Sysfs) -> None:
    mine = sysfs.controller("nvme0", NQN, "192.0.2.1", "4420")
    sysfs.namespace(mine, "nvme0c0n1", 3, uuid=UUID, hidden="1")
    place = told(sysfs, "nvmeof", **NEW, vol_uuid=UUID)
    assert place.disks() == []
    assert place.remains() == ["the NVMe controller nvme0 with the volume"]


def test_nvme_controllers_of_a_connection_that_was_broken_off(sysfs: Sysfs) -> None:
    sysfs.controller("nvme0", NQN, "192.0.2.1", "4420")
    sysfs.controller("nvme1", NQN, "192.0.2.9", "4420")  # somebody else's way there
    place = told(sysfs, "nvmeof", **NEW, vol_uuid=UUID)
    assert isinstance(place, places.NVMe)
    assert place.idle_controllers() == ["nvme0"]
    assert place.remains() == ["the NVMe controller nvme0 without namespaces"]


# -- traces ----------------------------------------------------------------------------------------


def test_traces_of_a_multipath_device(sysfs: Sysfs, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [
        sysfs.scsi_disk(f"{sysfs.session(n, IQN)}/target{n}:0:0/{n}:0:0:1", name, "6" * 16)
        for n, name in ((1, "sda"), (2, "sdb"))
    ]
    folder = sysfs.multipath("dm-0", "3" + "6" * 16, *paths)
    sysfs.write(f"{os.path.relpath(folder, sysfs.root)}/diskseq", "17")
    sysfs.link("dev/block/7:0", os.path.relpath(folder, sysfs.root))
    number = os.makedev(7, 0)
    real = os.stat

    def stat(path: Any, **options: Any) -> Any:
        if path == "/dev/dm-0":
            return type("Stat", (), {"st_rdev": number})
        return real(path, **options)

    monkeypatch.setattr(os, "stat", stat)
    found = traces.of("/dev/dm-0", str(sysfs.root))
    assert names(list(found)) == ["sda", "sdb", "dm-0"]
    assert names(traces.remaining(found)) == ["sda", "sdb", "dm-0"]
    # The next device of that name is another one.
    sysfs.write(f"{os.path.relpath(folder, sysfs.root)}/diskseq", "18")
    assert names(traces.remaining(found)) == ["sda", "sdb"]


def test_traces_of_files_and_of_nothing(tmp_path: pathlib.Path) -> None:
    (tmp_path / "volume").touch()
    assert traces.of(str(tmp_path / "volume")) == {}
    assert traces.of(str(tmp_path / "none")) == {}


def test_links_that_udev_forgot(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "dev" / "disk" / "by-id"
    folder.mkdir(parents=True)
    (tmp_path / "dev" / "sdb").touch()
    for name in ("sda", "sdb", "sdc"):
        (folder / f"scsi-{name}").symlink_to(f"../../{name}")
    found = traces.dangling(["/sys/devices/x/block/sda", "/sys/devices/y/block/sdb"], str(tmp_path))
    assert found == [str(folder / "scsi-sda")]


def test_what_stands_upon_a_disk(sysfs: Sysfs) -> None:
    sysfs.write("devices/x/block/sda/sda1/partition", "1")
    for number, where in ((3, "holders"), (4, "sda1/holders")):
        sysfs.write(f"devices/virtual/block/dm-{number}/dm/name", f"guest-root{number}")
        sysfs.link(f"devices/x/block/sda/{where}/dm-{number}", f"devices/virtual/block/dm-{number}")
    found = disks.holders(str(sysfs.root / "devices/x/block/sda"))
    assert found == ["dm-3 (guest-root3)", "dm-4 (guest-root4)"]
