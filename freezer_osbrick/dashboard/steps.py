# SPDX-License-Identifier: Apache-2.0
"""The tab "OS-Brick" of Freezer's form for actions."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext_lazy as _
from freezer_ui.actions.workflows import action as stock
from horizon import forms, workflows

from freezer_osbrick.dashboard import choices, fields, settings


class OsbrickAction(fields.RestoreFields, workflows.Action):
    """Fields of backups, then those of restores; the page shows what the action needs."""

    osbrick_scope = forms.ChoiceField(
        label=_("Volumes"),
        required=False,
        choices=[
            (settings.CHOSEN, _("Chosen volumes")),
            (settings.PROJECT, _("All volumes of this project")),
            (settings.GROUPS, _("All volumes of groups")),
        ],
    )
    osbrick_volumes = fields.Several(label=_("Chosen Volumes"))
    osbrick_volume_ids = forms.CharField(
        label=_("More Volume IDs"),
        required=False,
        help_text=_("Separated by commas; for volumes that no longer exist, for example."),
    )
    osbrick_groups = fields.Several(
        label=_("Groups"),
        help_text=_(
            "The volumes of a group whose type allows consistent snapshots are backed up as they "
            "were at one instant."
        ),
    )
    osbrick_content = forms.ChoiceField(
        label=_("Content"),
        required=False,
        choices=[("blocks", _("Blocks")), ("files", _("Files"))],
        help_text=_(
            "Files are read from the file systems of a volume, and can be left out by the patterns "
            "under Advanced. The client's kernel mounts them."
        ),
    )
    osbrick_fallback_to_blocks = forms.BooleanField(
        label=_("Blocks Where There Is No File System"), required=False
    )
    osbrick_cold = forms.BooleanField(
        label=_("Detach From the Server"),
        required=False,
        help_text=_(
            "The volume is detached while it is backed up, and attached again at the same device."
        ),
    )
    osbrick_incremental = forms.BooleanField(
        label=_("Incremental"),
        required=False,
        initial=True,
        help_text=_("Store only what has changed since. Every backup restores by itself."),
    )
    osbrick_max_level = forms.IntegerField(
        label=_("Full Backup After"),
        required=False,
        min_value=1,
        help_text=_("So many incremental backups are followed by a full one. Empty: never."),
    )
    osbrick_compression = forms.ChoiceField(
        label=_("Compression"),
        required=False,
        choices=[("zstd", _("zstd")), ("none", _("None"))],
    )
    osbrick_remove_older_than = forms.FloatField(
        label=_("Remove Backups Older Than (Days)"),
        required=False,
        min_value=0,
        help_text=_(
            "After each backup older ones of this name are removed; a volume's newest one always "
            "stays. Empty: keep all."
        ),
    )
    osbrick_parallel = forms.IntegerField(
        label=_("Volumes at a Time"),
        required=False,
        min_value=1,
        help_text=_("Empty: as the client is configured, which is 10 as it is installed."),
    )
    osbrick_encrypt_pass_file = fields.KeyFile(
        help_text=_(
            "Path, on the client, of the file whose secret seals the repository. The first backup "
            "decides whether a repository is sealed."
        ),
    )
    osbrick_endpoint = forms.CharField(
        label=_("S3 Endpoint"),
        required=False,
        help_text=_(
            "URL of the S3 service. The secret key is not kept with the action: the client takes "
            "it from the variable SECRET_KEY of its environment."
        ),
    )
    osbrick_access_key = forms.CharField(label=_("S3 Access Key"), required=False)

    field_order = ("osbrick_scope", "osbrick_volumes", "osbrick_volume_ids", "osbrick_groups")

    class Meta:
        name = _("OS-Brick")
        slug = "osbrick"
        help_text = _("What the engine osbrick backs up or restores, and how.")

    def __init__(self, request: Any, context: Any, *args: Any, **kwargs: Any) -> None:
        context = {**context, **settings.to_form(context)}
        super().__init__(request, context, *args, **kwargs)
        self.offer_targets(request)
        if request.user.is_superuser:
            self.fields["osbrick_scope"].choices += [
                (settings.EVERYTHING, _("All volumes of all projects"))
            ]
        self.fields["osbrick_volumes"].choices = choices.with_chosen(
            choices.volumes(request), context["osbrick_volumes"]
        )
        self.fields["osbrick_groups"].choices = choices.with_chosen(
            choices.groups(request), context["osbrick_groups"]
        )

    @property
    def verb(self) -> str:
        """What the action is, said on another tab."""
        return str(self.request.POST.get("action") or "backup")

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        if not settings.is_ours(self.request.POST):
            return cleaned
        if self.verb in ("backup", "restore"):
            self._check_choice(cleaned)
        if self.verb == "restore":
            self.check_consent(cleaned)
        return cleaned

    def _check_choice(self, cleaned: dict[str, Any]) -> None:
        scope = cleaned.get("osbrick_scope") or settings.CHOSEN
        if settings.of_form(cleaned, self.verb).get(scope):
            return
        field = "osbrick_groups" if scope == settings.GROUPS else "osbrick_volumes"
        self.add_error(field, _("Choose at least one."))


class OsbrickStep(workflows.Step):
    action_class = OsbrickAction
    template_name = "freezer_osbrick/step.html"
    before = stock.SnapshotConfiguration
    contributes = settings.KEYS

    def contribute(self, data: dict[str, Any], context: Any) -> Any:
        # Other tabs contribute after this one, and would write over it: stock.py takes it in last.
        context["osbrick"] = settings.of_form(data or {}, context.get("action") or "backup")
        return context
