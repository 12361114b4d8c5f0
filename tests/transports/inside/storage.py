# SPDX-License-Identifier: Apache-2.0
"""The storage of the guest, its initiators, and the cloud on top."""

from __future__ import annotations

import os
import pathlib
import time

from devstack.embedded.embedded_cloud.client import EmbeddedCloud

from .shell import read, run, until, write

STATE = "/srv/cloud"
GROUP = "cinder-volumes"
PATHS = ("10.77.1.1", "10.77.2.1")  # two portals, each on an interface of its own
INTERFACES = ("path1", "path2")
TARGETS = pathlib.Path("/sys/kernel/config/target")
INITIATOR = "iqn.2005-03.org.open-iscsi:storage-guest"

# Short times: what an administrator sets who wants errors soon.
_ISCSID = """\
iscsid.startup = /bin/systemctl start iscsid.socket
node.startup = manual
node.leading_login = No
node.session.timeo.replacement_timeout = 20
node.conn[0].timeo.login_timeout = 10
node.conn[0].timeo.logout_timeout = 10
node.conn[0].timeo.noop_out_interval = 2
node.conn[0].timeo.noop_out_timeout = 3
node.session.err_timeo.abort_timeout = 10
node.session.err_timeo.lu_reset_timeout = 10
node.session.err_timeo.tgt_reset_timeout = 10
node.session.initial_login_retry_max = 3
node.session.cmds_max = 128
node.session.queue_depth = 32
node.session.scan = manual
"""

_MULTIPATH = """\
defaults {
    user_friendly_names no
    find_multipaths strict
    path_checker tur
    polling_interval 2
    no_path_retry fail
    fast_io_fail_tmo 5
}
blacklist {
    devnode "^(vd|ram|loop|nvme)"
}
"""

# What services tell of themselves now and then is dear on an emulated processor.
_BACKENDS = """\
[DEFAULT]
backend_stats_polling_interval = 3600
report_interval = 60
service_down_time = 3600

[iscsi]
volume_driver = cinder.volume.drivers.lvm.LVMVolumeDriver
volume_group = {group}
lvm_type = thin
target_helper = lioadm
target_protocol = iscsi
target_ip_address = {paths[0]}
target_secondary_ip_addresses = {paths[1]}

[nvme]
volume_driver = cinder.volume.drivers.lvm.LVMVolumeDriver
volume_group = {group}
lvm_type = thin
target_helper = nvmet
target_protocol = nvmet_tcp
target_port = 4420
target_prefix = 2026-01.org.openstack
nvmeof_conn_info_version = 2
target_ip_address = {paths[0]}
target_secondary_ip_addresses = {paths[1]}

[fc]
volume_driver = embedded_cloud.services.fibre_channel.LVMVolumeDriver
volume_group = {group}
lvm_type = thin
target_helper = fake
"""


def prepare() -> dict[str, float]:
    """Set all of it up; returns the seconds that each part took."""
    took = {}
    for part in (_volume_group, _network, _iscsi, _nvme, _fibre_channel, cloud_up):
        began = time.monotonic()
        part()
        took[part.__name__.strip("_")] = round(time.monotonic() - began, 1)
    return took


def cloud() -> EmbeddedCloud:
    """The cloud that runs in the guest."""
    return EmbeddedCloud(STATE)


def cloud_up() -> None:
    """Bring up Keystone and Cinder."""
    write("/srv/backends.conf", _BACKENDS.format(group=GROUP, paths=PATHS))
    os.makedirs("/etc/target", exist_ok=True)  # LIO keeps its configuration there
    cloud().up("--venv", "/opt/cloud", "--backends", "/srv/backends.conf", "--attach", "file")


def _volume_group() -> None:
    run("modprobe", "-a", "dm-mod", "dm-thin-pool", "dm-snapshot", "loop")
    run("pvcreate", "-q", "/dev/disk/by-id/virtio-volumes")
    run("vgcreate", "-q", GROUP, "/dev/disk/by-id/virtio-volumes")
    # The pool as Cinder would make it, but for larger chunks. Initiators send commands of that
    # length, and each command is dear here.
    pool = ("--type", "thin-pool", "--chunksize", "256k", "--zero", "y", "--extents", "95%FREE")
    run("lvcreate", "-q", *pool, "--name", f"{GROUP}-pool", GROUP)


def _network() -> None:
    run("modprobe", "dummy")
    for interface, address in zip(INTERFACES, PATHS, strict=True):
        run("ip", "link", "add", interface, "type", "dummy")
        run("ip", "address", "add", f"{address}/24", "dev", interface)
        run("ip", "link", "set", interface, "up")


def _iscsi() -> None:
    run("modprobe", "-a", "iscsi_tcp", "sd_mod", "sg", "target_core_mod", "target_core_iblock")
    run("modprobe", "-a", "iscsi_target_mod", "dm-multipath", "dm-round-robin", "dm-service-time")
    run("modprobe", "-a", "scsi_dh_alua")
    write("/etc/iscsi/initiatorname.iscsi", f"InitiatorName={INITIATOR}\n")
    write("/etc/iscsi/iscsid.conf", _ISCSID)
    for folder in ("/run/lock/iscsi", "/etc/iscsi/nodes", "/etc/iscsi/send_targets"):
        os.makedirs(folder, exist_ok=True)
    run("iscsid")
    write("/etc/multipath.conf", _MULTIPATH)
    run("multipathd")
    until(lambda: run("multipathd", "show", "status", check=False), "multipathd's answer")


def _nvme() -> None:
    run("modprobe", "-a", "nvmet", "nvmet-tcp", "nvme-tcp", "nvme-fabrics")


def _fibre_channel() -> None:
    """A target's port on one network card, an initiator's on the other."""
    run("modprobe", "-a", "vmxnet3", "scsi_transport_fc", "libfc", "libfcoe", "fcoe", "tcm_fc")
    cards = until(_cards, "network cards", 20)
    initiator, target = cards
    wwpn = {card: "20:00:" + read(f"/sys/class/net/{card}/address") for card in cards}
    for card in cards:
        run("ip", "link", "set", card, "mtu", "2500")  # for frames of 2112 bytes and their headers
    # The target's card comes up last. An initiator learns at its login, once, what the other end
    # is; and the kernel dies of a frame that arrives while a port is being made.
    run("ip", "link", "set", initiator, "up")
    for card in cards:
        write("/sys/module/libfcoe/parameters/create_vn2vn", card)
    port = TARGETS / "fc" / wwpn[target] / "tpgt_1"
    (port / "acls" / wwpn[initiator]).mkdir(parents=True)
    run("ip", "link", "set", target, "up")
    for card in cards:
        _until_online(card)
    until(
        lambda: any(
            "Target" in read(path)
            for path in pathlib.Path("/sys/class/fc_remote_ports").glob("*/roles")
        ),
        "a Fibre Channel target",
    )


def _cards() -> list[str] | None:
    found = {
        read(path / "address"): path.name
        for path in pathlib.Path("/sys/class/net").iterdir()
        if read(path / "address").startswith("52:54:00:fc:")
    }
    return [found[address] for address in sorted(found)] if len(found) == 2 else None


def _until_online(card: str) -> None:
    def online() -> bool:
        return any(
            f"/{card}/" in os.path.realpath(host) and read(host / "port_state") == "Online"
            for host in pathlib.Path("/sys/class/fc_host").iterdir()
        )

    until(online, f"{card} online")
