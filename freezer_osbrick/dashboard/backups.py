# SPDX-License-Identifier: Apache-2.0
"""The page of a backup of ours, and the one that restores it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from django.utils.text import format_lazy
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from freezer_ui.api import api
from freezer_ui.utils import timestamp_to_string
from horizon import exceptions, forms, workflows

from freezer_osbrick.dashboard import chart, fields, settings

_MOST_RECORDS = 500  # looked at for the chart
# What the engine says of a volume, for people.
_STATES = {
    "success": _("Success"),
    "partial": _("Partial"),
    "error": _("Error"),
    "excluded": _("Left out"),
    "interrupted": _("Interrupted"),
    "waiting": _("Not begun"),
}


def patch(views: Any) -> None:
    """Let our backups have pages of their own."""
    stock_context = views.DetailView.get_context_data
    stock_workflow = views.RestoreView.get_workflow

    @functools.wraps(stock_context)
    def get_context_data(self: Any, **kwargs: Any) -> dict[str, Any]:
        context: dict[str, Any] = stock_context(self, **kwargs)
        record = context["backup"]
        if settings.is_ours(record.get("backup_metadata") or {}):
            self.template_name = "freezer_osbrick/backup.html"
            context.update(page(record, _records_beside(self.request, record)))
        return context

    @functools.wraps(stock_workflow)
    def get_workflow(self: Any, *args: Any, **kwargs: Any) -> Any:
        record = api.Backup(self.request).get(self.kwargs["backup_id"], json=True)
        if settings.is_ours(record.get("backup_metadata") or {}):
            self.workflow_class = RestoreVolumes
        return stock_workflow(self, *args, **kwargs)

    views.DetailView.get_context_data = get_context_data
    views.RestoreView.get_workflow = get_workflow


def page(record: Mapping[str, Any], records: list[dict[str, Any]]) -> dict[str, Any]:
    """What the page of a backup shows beyond the record itself.

    :param records: of all backups of its name and host.
    """
    metadata = record["backup_metadata"]
    volumes = [_row(volume) for volume in settings.volumes_of(metadata)]
    bars = [
        {**dataclasses.asdict(bar), "date": timestamp_to_string(bar.time_stamp)}
        for bar in chart.bars(records, record["backup_id"])
    ]
    return {
        "volumes": volumes,
        "bars": bars,
        "most": max((bar["stored"] for bar in bars), default=0),
        "chart_width": chart.WIDTH,
        "chart_height": chart.HEIGHT,
        "total": {
            key: sum(volume[key] for volume in volumes) for key in ("size", "stored", "saved")
        },
    }


def _row(volume: Mapping[str, Any]) -> dict[str, Any]:
    size = (volume.get("size_gib") or 0) << 30
    stored = volume.get("bytes_stored") or 0
    return {
        **volume,
        "content": _content(volume),
        "state": _STATES.get(volume["state"], volume["state"]),
        "size": size,
        "stored": stored,
        "saved": max(size - stored, 0) if volume.get("backup_id") else 0,
    }


def _content(volume: Mapping[str, Any]) -> Any:
    if volume.get("content") != "files":
        return _("Blocks")
    found = ", ".join(volume.get("file_systems") or ())
    return format_lazy(_("Files: {file_systems}"), file_systems=found) if found else _("Files")


def _records_beside(request: Any, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    same = ("backup_name", "hostname", "container", "storage")
    shown = record["backup_metadata"]
    listed = api.Backup(request).list(json=True, limit=_MOST_RECORDS)
    return [
        other
        for other in listed
        if settings.is_ours(other["backup_metadata"])
        and all(other["backup_metadata"].get(key) == shown.get(key) for key in same)
    ]


class ChooseVolumes(fields.RestoreFields, workflows.Action):
    """What of a backup is restored, where to, and by which client."""

    backup_id = forms.CharField(widget=forms.HiddenInput())
    osbrick_volumes = fields.Several(label=_("Volumes"))
    client = forms.ChoiceField(
        label=_("Client"),
        help_text=_("The host that restores. It must reach the place where the backup is stored."),
    )
    osbrick_encrypt_pass_file = fields.KeyFile(
        help_text=_("Path, on the client, of the file with the secret of this sealed backup.")
    )

    field_order = ("osbrick_volumes", "client", "osbrick_encrypt_pass_file")

    class Meta:
        name = _("Restore Volumes")
        slug = "volumes"
        help_text = _("Restores volumes of this backup; every block is checked.")

    def __init__(self, request: Any, context: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(request, context, *args, **kwargs)
        self.offer_targets(request)
        metadata = api.Backup(request).get(context["backup_id"], json=True)["backup_metadata"]
        volumes = settings.restorable(metadata)
        self.fields["osbrick_volumes"].choices = [
            (volume["volume_id"], f"{_title(volume)} ({volume.get('size_gib')} GiB)")
            for volume in volumes
        ]
        self.fields["osbrick_volumes"].initial = [volume["volume_id"] for volume in volumes]
        if metadata.get("encrypted"):
            known = metadata.get("encrypt_pass_file")
            self.fields["osbrick_encrypt_pass_file"].initial = known
        else:
            del self.fields["osbrick_encrypt_pass_file"]
        clients = api.Client(request).list()
        self.fields["client"].choices = [(one.client_id, one.hostname) for one in clients] or [
            ("", _("None: start freezer-scheduler on a host"))
        ]
        self.fields["client"].initial = _usual_client(request, metadata, clients)

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        if not cleaned.get("osbrick_volumes"):
            self.add_error("osbrick_volumes", _("Choose at least one."))
        if len(cleaned.get("osbrick_volumes", ())) > 1 and cleaned.get("osbrick_new_name"):
            self.add_error("osbrick_new_name", _("A name is for one volume only."))
        self.check_consent(cleaned)
        return cleaned


def _title(volume: Mapping[str, Any]) -> str:
    return str(volume.get("volume_name") or volume["volume_id"])


def _usual_client(request: Any, metadata: Mapping[str, Any], clients: list[Any]) -> str | None:
    """The client that made the backup: of its job, or else of the host's name."""
    known = {client.client_id for client in clients}
    job_id = metadata.get("job_id")
    job = api.client(request).jobs.get(job_id) if job_id else None
    if job and job.get("client_id") in known:
        return str(job["client_id"])
    for client in clients:
        if client.hostname == metadata.get("hostname"):
            return str(client.client_id)
    return None


class RestoreStep(workflows.Step):
    action_class = ChooseVolumes
    template_name = "freezer_osbrick/restore.html"
    contributes = ("backup_id", "client", "restore")

    def contribute(self, data: dict[str, Any], context: Any) -> Any:
        if data:
            context.update({key: data.get(key) for key in ("backup_id", "client")})
            context["restore"] = dict(data)
        return context


class RestoreVolumes(workflows.Workflow):
    """Makes a job that restores, and starts it."""

    slug = "restore_volumes"
    name = _("Restore Volumes")
    finalize_button_name = _("Restore")
    success_message = _("The restore was started; see the jobs for its progress.")
    failure_message = _("The restore could not be started.")
    success_url = "horizon:project:freezer-jobs:index"
    default_steps = (RestoreStep,)

    def handle(self, request: Any, data: dict[str, Any]) -> bool:
        try:
            metadata = api.Backup(request).get(data["backup_id"], json=True)["backup_metadata"]
            action = settings.of_restore(metadata, data["restore"])
            taken = timestamp_to_string(metadata["time_stamp"])
            job = {
                "client_id": data["client"],
                "description": gettext("Restore %(name)s of %(date)s")
                % {"name": metadata["backup_name"], "date": taken},
                "job_schedule": {},
                "job_actions": [
                    {"freezer_action": action, "max_retries": 0, "max_retries_interval": 1}
                ],
            }
            jobs = api.Job(request)
            jobs.start(api.client(request).jobs.create(job))
        except Exception:
            exceptions.handle(request, self.failure_message)
            return False
        return True
