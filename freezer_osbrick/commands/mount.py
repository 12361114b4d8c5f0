# SPDX-License-Identifier: Apache-2.0
"""``freezer-osbrick mount``: a backup as a file."""

from __future__ import annotations

import argparse
import os

from freezer_osbrick import errors
from freezer_osbrick.commands import background, base

MIB = 1 << 20


class Mount(base.OsbrickCommand):
    """Show the volume of a backup as a read-only file, volume.img, in a folder.

    Nothing is fetched before it is read. Each partition is a file, too: partition-1.img and so on.
    It stays mounted until Ctrl-C, SIGTERM or 'fusermount3 -u <folder>'.
    """

    _background: background.Ready | None = None

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "backup_id",
            metavar="<backup-id>",
            help="id of the backup; the first characters do where they name only one",
        )
        parser.add_argument("folder", metavar="<folder>", help="an empty folder to mount at")
        base.add_repository_argument(parser)
        parser.add_argument(
            "--cache-size",
            metavar="<MiB>",
            type=int,
            default=64,
            help="how much of what was read last is kept (default: 64)",
        )
        parser.add_argument(
            "--cache-folder",
            metavar="<folder>",
            help=(
                "keep it in a file there, not in memory; the file has no name, is not sealed, and"
                " is gone when the mount ends"
            ),
        )
        parser.add_argument(
            "--allow-other",
            action="store_true",
            help="let all users of this host read it, not only who mounts it",
        )
        parser.add_argument(
            "--background", action="store_true", help="return as soon as it is mounted"
        )
        return parser

    def check(self, parsed_args: argparse.Namespace) -> None:
        super().check(parsed_args)
        base.check_repository(parsed_args)
        if parsed_args.cache_size < 1:
            raise errors.BadRequest("The cache needs some room: give --cache-size 1 or more.")

    def run(self, parsed_args: argparse.Namespace) -> int:
        if not parsed_args.background:
            return super().run(parsed_args)

        def work(ready: background.Ready) -> int:
            self._background = ready
            return super(Mount, self).run(parsed_args)

        return background.run(work)

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        from freezer_osbrick.operations.mount import MountRequest, mount

        context = self.open_context(parsed_args)
        request = MountRequest(
            backup_id=parsed_args.backup_id,
            folder=os.path.abspath(parsed_args.folder),
            cache_size=parsed_args.cache_size * MIB,
            cache_folder=parsed_args.cache_folder,
            shared=parsed_args.allow_other,
        )

        def ready(names: list[str]) -> None:
            self._tell(request.folder, names)

        mount(context, base.repository_url(context, parsed_args), request, ready)

    def _tell(self, folder: str, names: list[str]) -> None:
        end = f"'fusermount3 -u {folder}'"
        if self._background is None:
            end = f"Ctrl-C or {end}"
        stream = self.app.stdout
        stream.write(f"{folder} has {', '.join(names)}. {end} ends it.\n")
        stream.flush()
        if self._background is not None:
            self._background()
