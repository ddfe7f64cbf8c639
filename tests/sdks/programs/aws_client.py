"""boto3 at IAM with an access key, and at Bedrock with an API key: one JSON request a line, one JSON answer a line.

{"client": "iam" | "sts" | "ce", "call": "create_user", "options": {…}}                  → {"result": …}
{"client": "bedrock", "key", "call": "converse" | "invoke_model", "options"}      → {"result": …}
"""

import functools
import json
import os
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

QUICK = Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=10)
PATHS = {"iam": "/iam", "sts": "/iam/sts", "ce": "/iam/ce"}


@functools.lru_cache(maxsize=16)
def signed(service, base, key_id, secret):
    keys = {"aws_access_key_id": key_id, "aws_secret_access_key": secret}
    return boto3.client(service, region_name="us-east-1", endpoint_url=base + PATHS[service], config=QUICK, **keys)


def plainly(request, **_):
    """boto3 shows an API key over TLS only. The request that it made goes to the sandbox, which has none, as it is."""
    request.url = request.url.replace("https:", "http:", 1)


def called(request):
    if request["client"] == "bedrock":  # as a developer has it: nothing but the variable, which is read when the call is made
        os.environ["AWS_BEARER_TOKEN_BEDROCK"] = request["key"]
        secure = request["as"][0].replace("http:", "https:", 1)
        client = boto3.client("bedrock-runtime", region_name="us-east-1", endpoint_url=f"{secure}/bedrock-runtime", config=QUICK)
        client.meta.events.register("before-send.bedrock-runtime", plainly)
    else:
        client = signed(request["client"], *request["as"])
    found = getattr(client, request["call"])(**request.get("options", {}))
    if request["call"] == "invoke_model":
        found["body"] = json.loads(found["body"].read())
    return {name: value for name, value in found.items() if name != "ResponseMetadata"}


def answered(request):
    try:
        return {"result": called(request)}
    except ClientError as error:
        told, status = error.response["Error"], error.response["ResponseMetadata"]["HTTPStatusCode"]
        return {"error": {"code": told.get("Code"), "message": told.get("Message"), "status": status}}
    finally:
        os.environ.pop("AWS_BEARER_TOKEN_BEDROCK", None)


for line in sys.stdin:
    print(json.dumps(answered(json.loads(line)), default=str), flush=True)
