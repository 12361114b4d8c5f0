# SPDX-License-Identifier: Apache-2.0
# To be copied, or linked, into openstack_dashboard/local/enabled, behind those of freezer-web-ui.

FEATURE = "freezer-osbrick"
ADD_INSTALLED_APPS = ["freezer_osbrick.dashboard"]
EXTRA_STEPS = {
    "freezer_ui.actions.workflows.action.ActionWorkflow": (
        "freezer_osbrick.dashboard.steps.OsbrickStep",
    ),
}
ADD_JS_FILES = ["freezer_osbrick/js/freezer_osbrick.js"]
