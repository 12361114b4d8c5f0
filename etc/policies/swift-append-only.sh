#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes a container of Swift from which a backup identity can take nothing away.
#
#     swift-append-only.sh CONTAINER PROJECT:USER
#
# Run it as the owner of the container (OS_* or ST_* variables), with python-swiftclient installed.
# PROJECT:USER are ids of Keystone, or names of Swift's own login.
#
# Swift's access lists know no difference between writing and deleting. So every version of every
# object is kept: what the backup identity replaces or deletes is still there, and only the owner
# can remove a version for good or end the keeping of versions.
set -eu
[ $# -eq 2 ] || { echo "usage: $0 CONTAINER PROJECT:USER" >&2; exit 2; }
container=$1
identity=$2

swift post "$container" -H "X-Versions-Enabled: true" \
    --read-acl "$identity,.rlistings" --write-acl "$identity"
echo "$container keeps every version; $identity may put, get and list."
