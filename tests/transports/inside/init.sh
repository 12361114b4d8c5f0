#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The first process of the storage guest. It mounts what there is, starts udev, and lets the tests'
# agent, which the host has delivered, do the rest.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LANG=C.UTF-8 TERM=dumb
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/udev /run/lvm /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
hostname storage-guest
ip link set lo up
modprobe -a -q configfs virtio_pci virtio_console
mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
/lib/systemd/systemd-udevd --daemon
udevadm trigger --type=subsystems --action=add
udevadm trigger --type=devices --action=add --subsystem-match=block --subsystem-match=virtio-ports
udevadm settle -t 30
tar -C /srv -xf /dev/disk/by-id/virtio-delivery
cd /srv/code
PYTHONPATH=/srv/code python3 -m tests.transports.inside.agent
echo o >/proc/sysrq-trigger
sleep 5
busybox poweroff -f
