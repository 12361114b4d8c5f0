# SPDX-License-Identifier: Apache-2.0
"""An S3 that honours conditional puts and knows identities with policies (moto).

Takes the policy of the backup identity on its command line, and lets the identity ``admin`` do
everything. Says its port and the credentials on its standard output and ends with its standard
input.
"""

import json
import os
import sys
import threading

os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = "inf"  # until the identities are made

import boto3  # noqa: E402
import requests  # noqa: E402
from moto.server import DomainDispatcherApplication, create_backend_app  # noqa: E402
from werkzeug.serving import make_server  # noqa: E402

ALL = {"Effect": "Allow", "Action": ["*"], "Resource": ["*"]}
EVERYTHING = {"Version": "2012-10-17", "Statement": [ALL]}


def new_identity(iam, name, policy):
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="policy", PolicyDocument=policy)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return {"access_key": key["AccessKeyId"], "secret_key": key["SecretAccessKey"]}


def main():
    application = DomainDispatcherApplication(create_backend_app)
    # One request after the other: moto fails where several replace one object at once.
    server = make_server("127.0.0.1", 0, application, threaded=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    nobody = {"aws_access_key_id": "nobody", "aws_secret_access_key": "nothing"}
    iam = boto3.client("iam", endpoint_url=url, region_name="us-east-1", **nobody)
    identities = {
        "admin": new_identity(iam, "admin", json.dumps(EVERYTHING)),
        "agent": new_identity(iam, "agent", sys.argv[1]),
    }
    requests.post(f"{url}/moto-api/reset-auth", data=b"0", timeout=60).raise_for_status()
    print(json.dumps({"url": url, "identities": identities}), flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
