#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# DevStack's plug-in: see README.rst. DevStack sources it with a mode and a phase, after "settings".
# shellcheck source=devstack/settings
# shellcheck disable=SC2154  # the variables of DevStack

function is_freezer_osbrick_dashboard_wanted {
    is_service_enabled horizon && is_service_enabled freezer-web-ui
}

# Into the environment in which the plug-ins of Freezer and Horizon installed theirs.
function install_freezer_osbrick {
    local extras=freezer,s3,swift,ssh
    if is_freezer_osbrick_dashboard_wanted; then
        extras+=,dashboard
    fi
    setup_develop "$FREEZER_OSBRICK_DIR" "$extras"
}

# The engine's settings, and those of a scheduler that runs its jobs.
function configure_freezer_osbrick {
    local folder
    for folder in "$(dirname "$FREEZER_OSBRICK_CONF")" \
        "$(dirname "$FREEZER_OSBRICK_SCHEDULER_CONF")" "$FREEZER_OSBRICK_STATE_PATH"; do
        sudo install -d -m 0755 -o "$STACK_USER" "$folder"
    done
    touch "$FREEZER_OSBRICK_CONF"
    iniset "$FREEZER_OSBRICK_CONF" osbrick state_path "$FREEZER_OSBRICK_STATE_PATH"
    iniset "$FREEZER_OSBRICK_CONF" cloud region_name "$REGION_NAME"
    iniset "$FREEZER_OSBRICK_CONF" device my_ip "$HOST_IP"

    # It holds a password.
    install -m 0600 /dev/null "$FREEZER_OSBRICK_SCHEDULER_CONF"
    iniset "$FREEZER_OSBRICK_SCHEDULER_CONF" scheduler no_daemon True
    iniset "$FREEZER_OSBRICK_SCHEDULER_CONF" scheduler jobs_dir "$FREEZER_OSBRICK_STATE_PATH/jobs"
    local option
    for option in \
        "os_auth_url $KEYSTONE_SERVICE_URI/v3" \
        "os_username $FREEZER_OSBRICK_USER" \
        "os_password $ADMIN_PASSWORD" \
        "os_project_name $FREEZER_OSBRICK_PROJECT" \
        "os_user_domain_name Default" \
        "os_project_domain_name Default"; do
        iniset "$FREEZER_OSBRICK_SCHEDULER_CONF" service_auth "${option%% *}" "${option#* }"
    done
    sudo install -d -m 0700 -o "$STACK_USER" "$FREEZER_OSBRICK_STATE_PATH/jobs"
}

# The file that lets Horizon find the dashboard.
function enable_freezer_osbrick_dashboard {
    cp "$FREEZER_OSBRICK_DIR/freezer_osbrick/dashboard/enabled/_5060_freezer_osbrick.py" \
        "$HORIZON_DIR/openstack_dashboard/local/enabled/"
    DJANGO_SETTINGS_MODULE=openstack_dashboard.settings \
        "$PYTHON" "$HORIZON_DIR/manage.py" collectstatic --noinput
    DJANGO_SETTINGS_MODULE=openstack_dashboard.settings \
        "$PYTHON" "$HORIZON_DIR/manage.py" compress --force
    restart_apache_server
}

# As root: the agent connects volumes to this host.
function start_freezer_osbrick {
    local program
    program=$(command -v freezer-scheduler || echo "$DEVSTACK_VENV/bin/freezer-scheduler")
    run_process freezer-osbrick \
        "$program --config-file $FREEZER_OSBRICK_SCHEDULER_CONF start" "" root
}

function stop_freezer_osbrick {
    stop_process freezer-osbrick
}

# The files only; "freezer-osbrick cleanup" is for what a killed agent left in the cloud.
function cleanup_freezer_osbrick {
    sudo rm -rf "$FREEZER_OSBRICK_STATE_PATH" "$(dirname "$FREEZER_OSBRICK_CONF")" \
        "$FREEZER_OSBRICK_SCHEDULER_CONF"
    rm -f "$HORIZON_DIR/openstack_dashboard/local/enabled/_5060_freezer_osbrick.py"
}

if is_service_enabled freezer-osbrick; then
    case "$1 ${2:-}" in
        "stack install") install_freezer_osbrick ;;
        "stack post-config") configure_freezer_osbrick ;;
        "stack extra")
            if is_freezer_osbrick_dashboard_wanted; then
                enable_freezer_osbrick_dashboard
            fi
            start_freezer_osbrick
            ;;
        "unstack "*) stop_freezer_osbrick ;;
        "clean "*) cleanup_freezer_osbrick ;;
    esac
fi
