#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes the objects of a repository in a local folder unchangeable, so that the user who writes
# backups can neither change, replace nor delete them.
#
#     local-append-only.sh FOLDER           every finished object, from cron every few minutes
#     local-append-only.sh --undo FOLDER    before prune, gc or key remove, which root runs then
#
# Run it as root, on the host whose disk it is, with a file system that knows the attribute
# "immutable": ext4, XFS, btrfs. The backups themselves are made by a user without root rights.
set -eu
flag=+i
[ "${1-}" = --undo ] && { flag=-i; shift; }
[ $# -eq 1 ] && [ -d "$1" ] || { echo "usage: $0 [--undo] FOLDER" >&2; exit 2; }

# Objects that are still being written have names that begin with a dot, or for a moment two links.
find "$1" -type f ! -name '.*' -links 1 -exec chattr "$flag" -- {} +
