# SPDX-License-Identifier: Apache-2.0
"""Objects in a bucket of S3, or of whatever speaks its language."""

from __future__ import annotations

import base64
import contextlib
import email.utils
import hashlib
import logging
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import boto3
import botocore.config
import botocore.exceptions
import urllib3.exceptions

from freezer_osbrick import errors
from freezer_osbrick.store import base, ranges

LOG = logging.getLogger(__name__)

ADDRESSING = ("auto", "path", "virtual")
CONDITIONAL_PUT = ("auto", "yes", "no")

# Its first character keeps it out of listings.
_PROBE = ".conditional-put"
_PROBE_CONTENT = b"freezer-osbrick wrote this twice to learn whether the second time is refused.\n"

# Codes beside the HTTP status, from S3 itself, Ceph, MinIO and Swift.
_FULL = (
    "QuotaExceeded",
    "XMinioStorageFull",
    "StorageFull",
    "EntityTooLarge",
    "ServiceQuotaExceeded",
)
_BUSY = ("SlowDown", "RequestTimeout", "RequestTimeoutException", "Throttling", "TooManyRequests")
_DENIED = ("ExpiredToken", "InvalidToken", "TokenRefreshRequired", "AuthorizationHeaderMalformed")
_DAMAGED_ON_THE_WAY = ("BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch")
_CONFLICT = ("ConditionalRequestConflict", "OperationAborted", "Conflict")
_REPLACE_TRIES = 8

# Headers that only Swift sends. It looks whether an object exists when a put begins and not when it
# ends, so that two puts at the same time may both succeed.
_SWIFT_HEADERS = ("x-trans-id", "x-openstack-request-id")


class S3Store(base.Store):
    """A store in a bucket, below a prefix.

    Whether the endpoint honours conditional puts (``If-None-Match: *``) is found out by the first
    put; where it does not, an object that exists is found by asking before, which two simultaneous
    puts can outrun.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint: str | None = None,
        region: str | None = None,
        access_key: str | None = None,
        secret_key: str | None = None,
        addressing: str = "auto",
        conditional_put: str = "auto",
        ca_file: str | None = None,
        connections: int = 32,
        connect_timeout: float = 10.0,
        read_timeout: float = 60.0,
        create: bool = False,
    ) -> None:
        """
        :param prefix: names begin with it and a slash; may be empty.
        :param endpoint: URL of the service; None for Amazon's, or AWS_ENDPOINT_URL.
        :param access_key: None: the environment (``AWS_*``), the files and the services that every
            program for S3 asks.
        :param addressing: whether the bucket is named in the host or in the path.
        :param conditional_put: whether the endpoint honours ``If-None-Match``, where it is known.
        :param connections: how many are kept open.
        :param create: make the bucket if it is missing.
        :raises errors.ConfigurationError: there are no credentials, or no region.
        :raises errors.StoreError: the bucket does not exist.
        """
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.url = f"s3://{bucket}/{self._prefix}".rstrip("/")
        self._conditional: bool | None = {"yes": True, "no": False}.get(conditional_put)
        self._is_swift = False
        self._probing = threading.Lock()
        _keep_quiet()
        config = botocore.config.Config(
            # Ours rule: a wrapper tries again.
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=connections,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            tcp_keepalive=True,
            s3={"addressing_style": addressing},
            # Checksums in trailers break many a service that is not Amazon's: Content-MD5, which
            # all know, is checked by the server instead.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        with self._translated(""):
            self._client = boto3.session.Session(
                aws_access_key_id=access_key,
                aws_secret_access_key=secret_key,
                region_name=region,
            ).client(
                "s3",
                endpoint_url=endpoint,
                # Services that are not Amazon's rarely have regions, and signing wants a name.
                region_name=region or ("us-east-1" if endpoint else None),
                config=config,
                verify=ca_file,
            )
        self._find_bucket(create, None if endpoint else self._client.meta.region_name)

    @property
    def capabilities(self) -> base.Capabilities:  # type: ignore[override]
        try:
            conditional = self._honours_conditions() and not self._is_swift
        except errors.StoreAccessDenied:
            conditional = False  # these credentials may not put at all
        return base.Capabilities(
            conditional_put=conditional,
            range_read=True,
            atomic_replace=True,
            ordered_listing=True,
        )

    def put(self, name: str, parts: Iterable[base.Buffer], *, replace: bool = False) -> int:
        key = self._key(name)
        data = base.joined(parts)
        conditional = not replace and self._honours_conditions()
        if not replace and not conditional:
            with contextlib.suppress(errors.ObjectMissing):
                self.stat(name)
                raise _exists(name)
        for left in reversed(range(_REPLACE_TRIES)):
            try:
                with self._translated(name):
                    self._put(key, data, conditional=conditional)
                break
            except _Conflict:
                # Somebody else put it at the same moment. What they put may be the older one.
                if left and replace:
                    continue
                raise
        return len(data)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        key = self._key(name)
        if offset < 0 or (length is not None and length <= 0):
            ranges.check(name, self.url, offset, length, self.stat(name).size)
            return b""
        wanted = ranges.header(offset, length)
        arguments = {"Range": wanted} if wanted else {}
        try:
            with self._translated(name):
                answer = self._client.get_object(Bucket=self._bucket, Key=key, **arguments)
                body = answer["Body"].read()
        except _NoSuchRange:
            ranges.check(name, self.url, offset, length, self.stat(name).size)
            return b""
        return ranges.extract(name, self.url, body, offset, length, answer.get("ContentRange"))

    def stat(self, name: str) -> base.ObjectInfo:
        key = self._key(name)
        with self._translated(name):
            answer = self._client.head_object(Bucket=self._bucket, Key=key)
        return base.ObjectInfo(name, answer["ContentLength"], answer["LastModified"].timestamp())

    def list(self, prefix: str) -> Iterator[base.ObjectInfo]:
        return self.list_after(prefix, "")

    def list_after(self, prefix: str, after: str) -> Iterator[base.ObjectInfo]:
        return self._list(base.check_prefix(prefix), after)

    def _list(self, prefix: str, after: str) -> Iterator[base.ObjectInfo]:
        arguments = {"StartAfter": self._prefix + after} if after else {}
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix + prefix, **arguments
        )
        with self._translated(prefix or "all objects"):
            for page in pages:
                for found in page.get("Contents", ()):
                    name = found["Key"][len(self._prefix) :]
                    if base.is_name(name):
                        modified = found["LastModified"].timestamp()
                        yield base.ObjectInfo(name, found["Size"], modified)

    def delete(self, name: str) -> None:
        key = self._key(name)
        with contextlib.suppress(errors.ObjectMissing), self._translated(name):
            self._client.delete_object(Bucket=self._bucket, Key=key)

    def now(self) -> float:
        """The server's clock, in whole seconds."""
        with self._translated("the bucket"):
            answer = self._client.list_objects_v2(
                Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1
            )
        date = answer["ResponseMetadata"]["HTTPHeaders"]["date"]
        return email.utils.parsedate_to_datetime(date).timestamp()

    def close(self) -> None:
        self._client.close()

    def _key(self, name: str) -> str:
        return self._prefix + base.check_name(name)

    def _put(self, key: str, data: base.Buffer, *, conditional: bool) -> None:
        checksum = hashlib.md5(data, usedforsecurity=False).digest()
        arguments = {"IfNoneMatch": "*"} if conditional else {}
        answer = self._client.put_object(
            Bucket=self._bucket,
            Key=key,
            Body=data,
            ContentMD5=base64.b64encode(checksum).decode(),
            **arguments,
        )
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        self._is_swift = self._is_swift or any(name in headers for name in _SWIFT_HEADERS)

    def _honours_conditions(self) -> bool:
        """Whether a conditional put of something that exists is refused: found out by trying.

        What is put over itself is the same each time, and needs no right to overwrite where the
        condition is honoured.
        """
        with self._probing:
            if self._conditional is None:
                self._conditional = self._is_refused_the_second_time()
                if not self._conditional:
                    LOG.info(
                        "%s does not honour conditional puts: objects are looked for before.",
                        self.url,
                    )
            return self._conditional

    def _is_refused_the_second_time(self) -> bool:
        for _ in range(2):
            try:
                with self._translated(_PROBE):
                    self._put(self._prefix + _PROBE, _PROBE_CONTENT, conditional=True)
            except (errors.ObjectExists, _Conflict):
                return True
            except _NotImplemented:
                return False
        return False

    def _find_bucket(self, create: bool, region: str | None) -> None:
        try:
            with self._translated("the bucket"):
                answer = self._client.head_bucket(Bucket=self._bucket)
        except errors.ObjectMissing:
            if not create:
                raise self._no_bucket() from None
        except errors.StoreAccessDenied:
            return  # may be forbidden although its objects are not
        else:
            headers = answer["ResponseMetadata"]["HTTPHeaders"]
            self._is_swift = any(name in headers for name in _SWIFT_HEADERS)
            return
        constraint: dict[str, Any] = {}
        if region and region != "us-east-1":
            constraint = {"CreateBucketConfiguration": {"LocationConstraint": region}}
        try:
            with self._translated("the bucket"):
                self._client.create_bucket(Bucket=self._bucket, **constraint)
        except errors.StoreError:
            with self._translated("the bucket"):  # somebody else may have been a moment faster
                self._client.head_bucket(Bucket=self._bucket)

    def _no_bucket(self) -> errors.StoreError:
        where = self._client.meta.endpoint_url
        return errors.StoreError(f"There is no bucket {self._bucket} at {where}.")

    @contextlib.contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        """Turn what boto and the server say into our own errors."""
        try:
            yield
        except botocore.exceptions.ClientError as error:
            raise self._of_answer(error, name) from error
        except (
            botocore.exceptions.NoCredentialsError,
            botocore.exceptions.PartialCredentialsError,
            botocore.exceptions.CredentialRetrievalError,
        ) as error:
            raise errors.ConfigurationError(
                f"There are no credentials for {self.url}: set access_key and secret_key in the "
                "repository's section of the configuration, or AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY."
            ) from error
        except botocore.exceptions.NoRegionError as error:
            raise errors.ConfigurationError(
                f"The region of {self.url} is not known: set region in the repository's section "
                "of the configuration, or AWS_DEFAULT_REGION."
            ) from error
        except botocore.exceptions.SSLError as error:
            raise errors.StoreError(f"No safe connection to {self.url}: {error}.") from error
        except (
            botocore.exceptions.ConnectionError,
            botocore.exceptions.HTTPClientError,
            botocore.exceptions.IncompleteReadError,
            urllib3.exceptions.HTTPError,
            OSError,
        ) as error:
            raise errors.StoreUnavailable(f"{self.url} cannot be reached: {error}.") from error
        except (botocore.exceptions.BotoCoreError, ValueError) as error:
            raise errors.BadRequest(f"{self.url} cannot be used: {error}") from error

    def _of_answer(self, error: botocore.exceptions.ClientError, name: str) -> errors.StoreError:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code = error.response.get("Error", {}).get("Code", "")
        said = error.response.get("Error", {}).get("Message") or code or f"HTTP {status}"
        what = f"{self.url} refused {name}: {said}"
        if code == "NoSuchBucket":
            return self._no_bucket()
        if code in _FULL or status in (413, 507):
            return errors.StoreFull(f"No room is left to store {name} in {self.url}: {said}")
        if code in _CONFLICT or (status == 409 and not code.startswith("Bucket")):
            return _Conflict(what)
        if status == 412:
            return _exists(name)
        if status == 416 or code == "InvalidRange":
            return _NoSuchRange(what)
        if status == 501 or code == "NotImplemented":
            return _NotImplemented(what)
        if status >= 500 or status == 429 or code in _BUSY + _DAMAGED_ON_THE_WAY:
            return errors.StoreUnavailable(f"{self.url} is not available: {said}")
        if status in (401, 403) or code in _DENIED:
            return errors.StoreAccessDenied(f"{self.url} denies access to {name}: {said}")
        if status == 404:
            return errors.ObjectMissing(f"{name} does not exist.")
        return errors.StoreError(what)


class _Conflict(errors.StoreUnavailable):
    """Somebody else changed the object at the same moment: what remains is seen by another try."""


class _NoSuchRange(errors.StoreError):
    """The object ends before the range begins."""


class _NotImplemented(errors.StoreError):
    """The endpoint does not know what it was asked for."""


def _exists(name: str) -> errors.ObjectExists:
    return errors.ObjectExists(f"{name} exists already.")


def _keep_quiet() -> None:
    """What boto says in its debug messages contains session tokens and signatures."""
    for name in ("boto3", "botocore", "urllib3.connectionpool"):
        logger = logging.getLogger(name)
        if logger.getEffectiveLevel() < logging.INFO:
            logger.setLevel(logging.INFO)
