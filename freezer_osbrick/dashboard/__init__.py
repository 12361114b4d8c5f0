# SPDX-License-Identifier: Apache-2.0
"""A plug-in of Horizon that completes freezer-web-ui for the engine osbrick.

It runs in Horizon's process, beside Freezer's web interface, and talks to Cinder and to freezer-api
only. Nothing of the other rooms is imported: neither os-brick nor a store is needed there.
"""
