# SPDX-License-Identifier: Apache-2.0
"""Arguments that say which volumes, shared by backup and restore."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from freezer_osbrick.commands import base

if TYPE_CHECKING:
    from freezer_osbrick.operations.choice import Selection


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """The ways to choose, and the filters."""
    base.add_volume_arguments(parser, verb)
    group = parser.add_argument_group(
        "which volumes", "Volumes by their ids, or one of the others. Own temporary ones never."
    )
    group.add_argument(
        "--all-tenant-volumes",
        action="store_true",
        help="all volumes of the project",
    )
    group.add_argument(
        "--all-tenants",
        action="store_true",
        help="all volumes of all projects, for an administrator",
    )
    group.add_argument(
        "--consistency-groups",
        metavar="<group-id>",
        action="append",
        default=[],
        help=(
            "all volumes of this group, or of several separated by commas; a group whose type "
            "promises it is frozen at one instant"
        ),
    )
    group.add_argument(
        "--project-id",
        metavar="<project-id>",
        help="all volumes of this project, for an administrator",
    )
    group.add_argument(
        "--only-name",
        metavar="<pattern>",
        help="of these volumes, only those whose name matches the pattern, as a shell's of files",
    )
    group.add_argument(
        "--only-metadata",
        metavar="<key=value>",
        action="append",
        default=[],
        help="only volumes with this property; may be repeated",
    )
    group.add_argument("--only-type", metavar="<type>", help="only volumes of this type")
    group.add_argument("--only-zone", metavar="<zone>", help="only volumes in this zone")
    group.add_argument(
        "--only-size", metavar="<GiB>", help="only volumes of this size: 10, 10-200, 10- or -200"
    )
    group.add_argument(
        "--retry-failed",
        metavar="<file>",
        help=(
            f"{verb} the volumes that a run did not finish: its report file, or what it printed "
            "with -f json"
        ),
    )


def chosen(parsed_args: argparse.Namespace) -> Selection:
    """What was chosen; empty where nothing was.

    :raises errors.BadRequest: it contradicts itself.
    """
    from freezer_osbrick.operations import choice

    named = base.volume_ids(parsed_args)
    selection = choice.Selection(
        volume_ids=named,
        all_tenant_volumes=parsed_args.all_tenant_volumes,
        all_tenants=parsed_args.all_tenants,
        consistency_groups=base.words(parsed_args.consistency_groups),
        project_id=parsed_args.project_id,
        filters=choice.filters(
            name=parsed_args.only_name,
            metadata=parsed_args.only_metadata,
            volume_type=parsed_args.only_type,
            availability_zone=parsed_args.only_zone,
            size=parsed_args.only_size,
        ),
    )
    if parsed_args.retry_failed is not None:
        return choice.again(selection, parsed_args.retry_failed)
    if selection:
        selection.check()
    return selection
