# SPDX-License-Identifier: Apache-2.0
"""The one error this tool raises on purpose."""


class CloudError(Exception):
    """A failure told in one sentence; the command prints it and exits with status 1."""


class ApiError(CloudError):
    """A service of the cloud refused a request.

    ``status`` is the HTTP status code.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
