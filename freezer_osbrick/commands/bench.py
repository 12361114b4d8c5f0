# SPDX-License-Identifier: Apache-2.0
"""``freezer-osbrick bench``."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from freezer_osbrick import errors
from freezer_osbrick.commands import base
from freezer_osbrick.commands.columns import Column, Text

MIB = 1 << 20
LEAST = 16  # MiB


class Rate(Text):
    """Bytes in a second."""

    def human_readable(self) -> str:
        return f"{self._value / 1e6:,.0f} MB/s"


class Duration(Text):
    """A span of time in seconds, which may be very short."""

    def human_readable(self) -> str:
        return f"{self._value:.2f} s"


STEPS = (
    Column("step", "Step"),
    Column("threads", "Threads"),
    Column("bytes_per_second", "Speed", Rate),
    Column("bytes_per_cpu_second", "Speed a core", Rate),
    Column("seconds", "Time", Duration),
    Column("cpu_seconds", "CPU time", Duration),
    Column("bytes", "Bytes", everyday=False),
)


class Bench(base.OsbrickLister):
    """Measure what each step of a backup and a restore costs on this machine.

    Reads, compares with zeros, hashes, compresses, seals, puts, gets and back; then whole backups
    and restores, sealed, with one thread and more. Nothing is kept of it.
    """

    columns = STEPS
    need_sort_by_cliff = False  # steps stand in the order in which a backup takes them

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "path",
            metavar="<path>",
            nargs="?",
            help="file or block device to read (default: generated data)",
        )
        parser.add_argument(
            "--repository",
            metavar="<url-or-name>",
            help=(
                "where to put and get, as for backup; a repository that is there is not touched"
                " (default: a temporary folder)"
            ),
        )
        parser.add_argument(
            "--size",
            metavar="<MiB>",
            type=int,
            default=1024,
            help="how much of it to use, or to generate (default: 1024)",
        )
        parser.add_argument(
            "--threads",
            metavar="<number>",
            type=int,
            help="most threads to try (default: workers of the configuration)",
        )
        return parser

    def check(self, parsed_args: argparse.Namespace) -> None:
        super().check(parsed_args)
        if parsed_args.size < LEAST:
            raise errors.BadRequest(f"Too little to measure: give --size {LEAST} or more.")
        if parsed_args.threads is not None and parsed_args.threads < 1:
            raise errors.BadRequest("At least one thread is needed: give --threads 1 or more.")

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        from freezer_osbrick.operations.bench import bench

        context = self.open_context(parsed_args)
        try:
            steps = bench(
                context,
                url=parsed_args.repository,
                path=parsed_args.path,
                size=parsed_args.size * MIB,
                threads=parsed_args.threads,
                listener=self._tell,
            )
        finally:
            self._tell("")
        return self.rows([_record(step) for step in steps], parsed_args)

    def _tell(self, step: str) -> None:
        """One line on a terminal that says what is being measured; an empty one at the end."""
        stream = self.app.stderr
        if stream.isatty():
            stream.write(f"\r\033[K{step}" if step else "\r\033[K")
            stream.flush()


def _record(step: Any) -> dict[str, Any]:
    rates = ("bytes_per_second", "bytes_per_cpu_second")
    return dataclasses.asdict(step) | {rate: round(getattr(step, rate)) for rate in rates}
