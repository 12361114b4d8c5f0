# SPDX-License-Identifier: Apache-2.0
"""Freezer's arguments for a run of our engine: where they come from, and what they have to be.

Adapts ``freezer.common.config``. A run of any other engine goes through Freezer's own functions
unchanged.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import os_brick.opts
from oslo_config import cfg
from oslo_log import log

from freezer_osbrick import errors
from freezer_osbrick.agent import job_file, options, places, plain_log

if TYPE_CHECKING:
    from freezer_osbrick.operations import choice

LOG = log.getLogger(__name__)

MEDIA = "cinderbrick"  # the branch of Freezer's jobs that only calls the engine
MODE = "cinder"  # freezer-api takes this one for volumes, and Freezer's CinderMode does nothing
_MODES = (MODE, "fs", MEDIA, *options.ENGINE_NAMES)

# One volume by id; each of them means the same.
_VOLUME_OPTIONS = ("single_volume_id", "cinderbrick_vol_id", "cinder_vol_id")
# They choose something that is no volume of ours.
_FOREIGN_OPTIONS = (
    "cindernative_vol_id",
    "cindernative_backup_id",
    "nova_inst_id",
    "nova_inst_name",
    "glance_image_id",
    "glance_image_name",
    "glance_image_name_filter",
)

# What they ask for has no meaning for volumes.
_UNUSED_OPTIONS = (
    "consistency_check",
    "dereference_symlink",
    "lvm_srcvol",
    "lvm_volgroup",
    "overwrite",
    "path_to_backup",
    "restore_abs_path",
    "snapshot",
    "timeout",
)


@dataclasses.dataclass
class Selection:
    """What a run of the engine is about; lies at ``osbrick`` among Freezer's arguments.

    :param places: the repositories; every backup goes to each.
    :param volumes: which; empty where the one is still to be found by ``volume_name``, or none is
        chosen.
    :param backup_name: as given; None where Freezer's default stands.
    :param hostname: as given; None where Freezer filled in this host's.
    """

    places: tuple[places.Place, ...]
    volumes: choice.Selection
    volume_name: str | None
    backup_name: str | None
    hostname: str | None

    @property
    def repositories(self) -> tuple[str, ...]:
        """Their addresses, as the operations know them."""
        return tuple(place.address for place in self.places)

    @property
    def where(self) -> str:
        """All of them, for people."""
        return " and ".join(self.repositories)

    @property
    def volume_id(self) -> str | None:
        """The one volume, where it is one that was named."""
        named = self.volumes.volume_ids
        return named[0] if len(named) == 1 else None


def patch(config: Any) -> None:
    """Adapt the module ``freezer.common.config``.

    :raises Exception: the module lacks something; nothing was changed then.
    """
    stock = config.get_backup_args
    by_name = {option.dest: index for index, option in enumerate(config._COMMON)}
    common = list(config._COMMON)
    for name, added in (
        ("engine_name", options.ENGINE_NAMES),
        ("compression", options.COMPRESSIONS),
    ):
        common[by_name[name]] = options.with_choices(common[by_name[name]], added)
    for name in options.LIMITS:
        common[by_name[name]] = options.with_type(common[by_name[name]], options.Bandwidth())
    common += [option for option in options.OPTIONS if option.dest not in by_name]
    # Freezer declares [os_brick] lock_path with another help text than os-brick: whichever comes
    # second is a DuplicateOptError. os-brick's own declaration serves both.
    brick_options = dict(os_brick.opts.list_opts())["os_brick"]

    @functools.wraps(stock)
    def get_backup_args() -> Any:
        job = _our_job(config.CONF)
        return stock() if job is None else _our_arguments(config, stock, job)

    config._OS_BRICK_OPTS[:] = brick_options
    config._COMMON[:] = common
    for option in options.OPTIONS:
        # Freezer leaves out an option whose value is None, and every one must be an attribute.
        config.DEFAULT_PARAMS.setdefault(option.dest, option.default)
    config.get_backup_args = get_backup_args
    plain_log.leave_out_tracebacks()


def _our_job(conf: cfg.ConfigOpts) -> job_file.JobFile | None:
    """The settings of this run where it is one of our engine; empty where no file was given.

    :raises errors.BadRequest: the command line and the file name different engines.
    """
    ours_so_far = conf.engine_name in options.ENGINE_NAMES
    job = job_file.JobFile("", {})
    if conf.config:
        try:
            job = job_file.read(conf.config)
        except errors.ConfigurationError:
            if ours_so_far:
                raise
            return None
    file_is_ours = job.engine in options.ENGINE_NAMES
    if file_is_ours and not ours_so_far and options.on_command_line(conf, "engine_name"):
        raise errors.BadRequest(
            f"The command line asks for engine {conf.engine_name}, and {conf.config} for "
            f"{job.engine}."
        )
    if job.engine and not file_is_ours and not options.on_command_line(conf, "engine_name"):
        return None
    return job if ours_so_far or file_is_ours else None


def _our_arguments(config: Any, stock: Any, job: job_file.JobFile) -> Any:
    conf = config.CONF
    conf.set_override("engine_name", options.ENGINE_NAME)
    settings = job_file.for_freezer(job, conf)
    settings.pop("engine_name", None)
    limits = _take_limits(conf, settings)
    reader = config.freezer_config.Config
    own_parse = reader.__dict__["parse"]
    reader.parse = staticmethod(lambda path: reader(dict(settings), []))
    try:
        arguments = stock()
    finally:
        reader.parse = own_parse
    vars(arguments).update(limits)
    settle(arguments, conf, job.storages)
    places.hide_secrets(sys.argv)
    return arguments


def _take_limits(conf: cfg.ConfigOpts, settings: dict[str, str]) -> dict[str, int]:
    """The bandwidth limits, which Freezer is not to see: it would start itself again under the
    program trickle, or run without limits where there is none."""
    limits = {}
    for name in options.LIMITS:
        given = settings.pop(name, None)
        limits[name] = conf[name] if given is None else options.Bandwidth()(given)
        conf.set_override(name, -1)
    return limits


def settle(arguments: Any, conf: cfg.ConfigOpts, storages: Mapping[str, Mapping[str, str]]) -> None:
    """Make Freezer's arguments fit our engine, or refuse them: nothing exists in the cloud yet.

    :raises errors.BadRequest: the arguments contradict each other or ask for what does not exist.
    """
    values = vars(arguments)
    if values["mode"] not in (None, False, "", *_MODES):
        raise errors.BadRequest(
            f"Engine osbrick backs up Cinder volumes: --mode must be {MODE}, not {values['mode']}."
        )
    for name in _FOREIGN_OPTIONS:
        if values.get(name):
            raise errors.BadRequest(
                f"Engine osbrick backs up Cinder volumes and cannot use {_flag(name)}."
            )
    unused = [name for name in _UNUSED_OPTIONS if values[name] and options.is_given(conf, name)]
    if unused:
        LOG.warning("Engine osbrick does not use %s.", ", ".join(map(_flag, unused)))
    _check_dates(values)
    volumes, volume_name = _chosen_volumes(values)
    chosen: tuple[places.Place, ...] = ()
    if values["action"] != "exec":
        settings = {name: job_file.for_storage(one, name, conf) for name, one in storages.items()}
        chosen = places.of_run(values, settings)
    selection = Selection(
        places=chosen,
        volumes=volumes,
        volume_name=volume_name,
        backup_name=values["backup_name"] if options.is_given(conf, "backup_name") else None,
        hostname=values["hostname"] if options.is_given(conf, "hostname") else None,
    )
    if values["action"] in ("backup", "restore") and not volume_name:
        volumes.check()
    if values["action"] in ("admin", "info") and volumes and not selection.volume_id:
        raise errors.BadRequest(
            f"--action {values['action']} takes one volume, by --single-volume-id, or none."
        )
    if values["action"] == "admin" and not (selection.backup_name or volumes or volume_name):
        raise errors.BadRequest("Engine osbrick needs the --backup-name whose backups to remove.")
    values.update(
        engine_name=options.ENGINE_NAME,
        mode=MODE,
        backup_media=MEDIA,
        # Freezer would log in to the other storages and make containers of its own, and writes
        # passwords of FTP into its log. The word is given back when the job begins.
        storage="local",
        compression=_compression(values["compression"], conf),
        cinder_vol_name="",  # with one, Freezer's jobs end in an AttributeError
        osbrick=selection,
    )
    set_volumes(arguments, volumes)


def _check_dates(values: Mapping[str, Any]) -> None:
    from freezer.utils import utils  # here: it imports the module that is being adapted

    for name in ("restore_from_date", "remove_from_date", "remove_before_date"):
        if not values.get(name):
            continue
        try:
            utils.date_to_timestamp(values[name])
        except ValueError as error:
            raise errors.BadRequest(
                f"{_flag(name)} takes a date such as 2026-11-20T10:00:00Z, not {values[name]!r}."
            ) from error


def set_volumes(arguments: Any, volumes: choice.Selection) -> None:
    """What the run is about, under every name that Freezer has for it.

    Freezer's default name of a backup is made of one of them.
    """
    arguments.osbrick.volumes = volumes
    word = ",".join(volumes.volume_ids) or volumes.words if volumes else ""
    vars(arguments).update(
        single_volume_id=word or None, cinderbrick_vol_id=word, cinder_vol_id=word
    )


def _chosen_volumes(values: dict[str, Any]) -> tuple[choice.Selection, str | None]:
    """What was chosen, and the name that was given; at most one of them is there."""
    # Here: a run of another engine has no use for it.
    from freezer_osbrick.operations import choice

    volume_id, volume_name = _chosen_volume(values)
    selection = choice.Selection(
        volume_ids=tuple(options.parse_list(volume_id)) if volume_id else (),
        all_tenant_volumes=bool(values["all_tenant_volumes"]),
        all_tenants=bool(values["all_tenants"]),
        consistency_groups=tuple(options.parse_list(values["consistency_groups"] or "")),
        project_id=values.get("project_id") or None,
        filters=choice.filters(
            name=values["only_name"],
            metadata=options.parse_list(values["only_metadata"] or ""),
            volume_type=values["only_type"],
            availability_zone=values["only_zone"],
            size=values["only_size"],
        ),
    )
    if values["retry_failed"]:
        if volume_name:
            raise errors.BadRequest("Choose volumes or give --retry-failed, not both.")
        selection = choice.again(selection, values["retry_failed"])
    if selection and volume_name:
        raise errors.BadRequest("Choose volumes otherwise or by --cinder-vol-name, not both.")
    if selection:
        selection.check()
    return selection, volume_name


def _chosen_volume(values: dict[str, Any]) -> tuple[str | None, str | None]:
    """The id and the name that were given; at most one of them is there."""
    given = {name: values.get(name) for name in _VOLUME_OPTIONS if values.get(name)}
    if len(set(given.values())) > 1:
        named = " and ".join(f"{_flag(name)} {value}" for name, value in given.items())
        raise errors.BadRequest(f"{named} are different volumes: give one of them.")
    volume_id = next(iter(given.values()), None)
    volume_name = values.get("cinder_vol_name") or None
    if volume_id and volume_name:
        raise errors.BadRequest("Give a volume by its id or by --cinder-vol-name, not by both.")
    return volume_id, volume_name


def _compression(value: str, conf: cfg.ConfigOpts) -> str:
    if value not in options.COMPRESSIONS and options.is_given(conf, "compression"):
        LOG.info("Engine osbrick compresses with zstd, not with %s.", value)
    return "none" if value == "none" else "zstd"


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
