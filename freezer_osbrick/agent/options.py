# SPDX-License-Identifier: Apache-2.0
"""What the engine adds to Freezer's options.

Another option is one more entry in OPTIONS: the command line, an ini file and a scheduler's job
all reach it from there, and the engine reads it as an attribute of Freezer's arguments.
"""

from __future__ import annotations

import ast
import copy
import json
from typing import Any

from oslo_config import cfg, types

from freezer_osbrick import errors, quantities

ENGINE_NAME = "osbrick"
ENGINE_NAMES = (ENGINE_NAME, "cinder-osbrick")
COMPRESSIONS = ("zstd", "none")
LIMITS = ("upload_limit", "download_limit")


def parse_list(value: Any) -> list[str]:
    """A list from JSON, from Python source (the scheduler's) or from words between commas.

    :raises ValueError: it begins like a list and is none.
    """
    if isinstance(value, list | tuple):
        return [str(item) for item in value]
    text = str(value).strip()
    if not text.startswith(("[", "(")):
        return [word.strip() for word in text.split(",") if word.strip()]
    parsed = parse_literal(text)
    if not isinstance(parsed, list | tuple):
        raise ValueError(f"{text!r} is no list")
    return [str(item) for item in parsed]


def parse_literal(text: str) -> Any:
    """A value from JSON, or from Python source, as the scheduler writes it.

    :raises ValueError: it is neither.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        try:
            return ast.literal_eval(text)
        except (SyntaxError, ValueError, MemoryError, RecursionError) as exc:
            raise ValueError(f"{text!r} is no list") from exc


class Words(types.ConfigType):
    """Several words between commas, or a list as forms and job documents send it; kept as words
    between commas."""

    def __init__(self) -> None:
        super().__init__(type_name="list")

    def __call__(self, value: Any) -> str | None:
        if isinstance(value, dict) or str(value).lstrip().startswith("{"):
            raise ValueError(f"{value!r} is no list")
        return ",".join(dict.fromkeys(parse_list(value))) or None

    def _formatter(self, value: str) -> str:
        return value

    def __repr__(self) -> str:
        return "Words"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Words)

    __hash__ = None  # type: ignore[assignment]


class Bandwidth(types.ConfigType):
    """Bytes a second, as Freezer's own help text writes them: a number, 10K, 120M or 10G; -1 is no
    limit."""

    def __init__(self) -> None:
        super().__init__(type_name="bandwidth")

    def __call__(self, value: Any) -> int:
        try:
            rate = quantities.parse_rate(value)
        except errors.BadRequest as exc:
            raise ValueError(str(exc)) from exc
        return -1 if rate is None else rate

    def _formatter(self, value: int) -> str:
        return str(value)

    def __repr__(self) -> str:
        return "Bandwidth"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bandwidth)

    __hash__ = None  # type: ignore[assignment]


OPTIONS = [
    cfg.Opt(
        "single-volume-id",
        dest="single_volume_id",
        type=Words(),
        help="Engine osbrick: id of the Cinder volume to back up or restore, or several separated "
        "by commas. --cinderbrick-vol-id and --cinder-vol-id mean the same.",
    ),
    cfg.BoolOpt(
        "all-tenant-volumes",
        dest="all_tenant_volumes",
        default=False,
        help="Engine osbrick: back up or restore all volumes of the project, or of the one that "
        "--project-id names.",
    ),
    cfg.BoolOpt(
        "all-tenants",
        dest="all_tenants",
        default=False,
        help="Engine osbrick: back up or restore all volumes of all projects, for an "
        "administrator.",
    ),
    cfg.Opt(
        "consistency-groups",
        dest="consistency_groups",
        type=Words(),
        help="Engine osbrick: back up or restore all volumes of this group, or of several "
        "separated by commas. A group whose type promises it is frozen at one instant.",
    ),
    cfg.StrOpt(
        "only-name",
        dest="only_name",
        help="Engine osbrick: of the chosen volumes only those whose name matches a pattern, such "
        "as db-*.",
    ),
    cfg.Opt(
        "only-metadata",
        dest="only_metadata",
        type=Words(),
        help="Engine osbrick: only volumes with these properties: KEY=VALUE, several separated by "
        "commas.",
    ),
    cfg.StrOpt("only-type", dest="only_type", help="Engine osbrick: only volumes of this type."),
    cfg.StrOpt("only-zone", dest="only_zone", help="Engine osbrick: only volumes in this zone."),
    cfg.StrOpt(
        "only-size",
        dest="only_size",
        help="Engine osbrick: only volumes of this size in GiB: 10, 10-200, 10- or -200.",
    ),
    cfg.StrOpt(
        "retry-failed",
        dest="retry_failed",
        help="Engine osbrick: the volumes that a run did not finish, by the file that it kept with "
        "--report-file.",
    ),
    cfg.BoolOpt(
        "cold",
        default=False,
        help="Engine osbrick, backup: detach the volume from its server, back the volume itself "
        "up, and attach it again.",
    ),
    cfg.IntOpt(
        "parallel",
        dest="parallel",
        min=1,
        help="Engine osbrick: volumes to back up or restore at the same time. Default: parallel in "
        "the group [osbrick], which is 10.",
    ),
    cfg.StrOpt(
        "report-file",
        dest="report_file",
        help="Engine osbrick: file in which is kept what becomes of each volume, as JSON, while "
        "the run goes on.",
    ),
    cfg.StrOpt(
        "volume-type",
        dest="volume_type",
        help="Engine osbrick, restore to a new volume: its type, instead of the one in the backup.",
    ),
    cfg.StrOpt(
        "availability-zone",
        dest="availability_zone",
        help="Engine osbrick, restore to a new volume: its availability zone, instead of the one "
        "in the backup.",
    ),
    cfg.StrOpt(
        "content",
        choices=("blocks", "files"),
        default="blocks",
        help="Engine osbrick, backup: store all blocks of the volume, or the files of its file "
        "systems; --exclude leaves some of these out.",
    ),
    cfg.BoolOpt(
        "fallback-to-blocks",
        dest="fallback_to_blocks",
        default=False,
        help="Engine osbrick, backup with --content files: store the blocks of a volume without a "
        "file system, instead of failing.",
    ),
    cfg.BoolOpt(
        "keep-snapshot",
        dest="keep_snapshot",
        help="Engine osbrick, backup: leave the snapshot on the volume until the next backup, "
        "which then reads only what its storage (Ceph) says has changed. It takes room and quota, "
        "and Cinder deletes no volume that has one.",
    ),
    cfg.BoolOpt(
        "no-hints",
        dest="no_hints",
        default=False,
        help="Engine osbrick, backup: read everything, even what is known to be empty.",
    ),
    cfg.Opt(
        "audit",
        type=quantities.Share(),
        help="Engine osbrick, backup: read this share of what need not be read all the same, to "
        "prove it; at least 64 blocks. Default: audit in the group [osbrick], which is 1%.",
    ),
    cfg.IntOpt(
        "full-read-every",
        dest="full_read_every",
        min=0,
        help="Engine osbrick, backup: read everything each so many backups; 0 for never. Default: "
        "full_read_every in the group [osbrick], which is 30.",
    ),
    cfg.StrOpt(
        "to-folder",
        dest="to_folder",
        help="Engine osbrick, restore of a backup of files: into this empty folder, and into no "
        "volume.",
    ),
    cfg.StrOpt(
        "new-name",
        dest="new_name",
        help="Engine osbrick, restore: the name of the restored volume, instead of the one in the "
        "backup.",
    ),
    cfg.IntOpt(
        "size",
        min=1,
        help="Engine osbrick, restore: the size of the restored volume in GiB, not less than the "
        "one in the backup.",
    ),
    cfg.BoolOpt(
        "in-place",
        dest="in_place",
        default=False,
        help="Engine osbrick, restore: write to the existing volume itself, which nothing may be "
        "attached to.",
    ),
    cfg.BoolOpt(
        "meta-override",
        dest="meta_override",
        default=False,
        help="Engine osbrick, restore: a volume that exists gets name, description, properties, "
        "image metadata and bootable flag of the backup, and so does its restored clone.",
    ),
    cfg.BoolOpt(
        "verify",
        default=False,
        help="Engine osbrick, restore: read the restored volume back and compare it with the "
        "backup.",
    ),
    cfg.BoolOpt(
        "recreate-vol-on-error",
        dest="recreate_vol_on_error",
        default=False,
        help="Engine osbrick: a restore that fails on its volume is tried again with a new volume, "
        "and the broken one is removed.",
    ),
    cfg.BoolOpt(
        "remove-old-vol",
        dest="remove_old_vol",
        default=False,
        help="Engine osbrick, restore, DANGEROUS: delete the existing volume when the restored one "
        "was read back and proved; never one that is attached to a server. Asks on a terminal, and "
        "needs --yes elsewhere.",
    ),
    cfg.BoolOpt(
        "yes",
        default=False,
        help="Engine osbrick: do not ask before old volumes are removed.",
    ),
]


def list_opts() -> list[tuple[str | None, list[cfg.Opt]]]:
    """For oslo.config's generator."""
    return [(None, OPTIONS)]


def with_choices(option: Any, added: tuple[str, ...]) -> cfg.Opt:
    """A copy of a string option that takes more values."""
    wider: Any = copy.copy(option)
    wider.type = copy.copy(option.type)
    wider.type.choices = {**option.type.choices, **dict.fromkeys(added)}
    return wider


def with_type(option: Any, kind: types.ConfigType) -> cfg.Opt:
    """A copy of an option whose values are of another type."""
    other: Any = copy.copy(option)
    other.type = kind
    return other


def is_ours(conf: cfg.ConfigOpts = cfg.CONF) -> bool:
    """Whether this process was asked to run our engine."""
    return "engine_name" in conf and conf.engine_name in ENGINE_NAMES


def on_command_line(conf: cfg.ConfigOpts, name: str) -> bool:
    return _location(conf, name) is cfg.Locations.command_line


def is_given(conf: cfg.ConfigOpts, name: str) -> bool:
    """Whether somebody set the option: on the command line, in a file or in a job."""
    return _location(conf, name) not in (cfg.Locations.opt_default, cfg.Locations.set_default)


def _location(conf: cfg.ConfigOpts, name: str) -> cfg.Locations:
    location = conf.get_location(name)
    return location.location if location is not None else cfg.Locations.opt_default
