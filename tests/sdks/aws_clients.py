"""A sandbox's AWS, and boto3 at it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.sdks.bridge import Bridge

from keygate.sandbox import SandboxServer
from keygate.sandbox.admin import Credential

MODEL = "anthropic.claude-haiku-4-5-20251001-v1:0"
PROFILE = f"us.{MODEL}"
FOUNDATION = "arn:aws:bedrock:*::foundation-model/"
KEY_ID = "AKIASANDBOX00000001"
TEXT = "This answer comes from the sandbox of KeyGate: no vendor was asked, nothing was paid."


class Boto:
    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge

    def iam(self, call: str, **options: Any) -> Any:
        return self.bridge.call(client="iam", call=call, options=options)["result"]

    def converse(self, key: str, model: str = MODEL) -> str:
        messages = [{"role": "user", "content": [{"text": "Hi"}]}]
        options = {"modelId": model, "messages": messages}
        found = self.bridge.call(client="bedrock", key=key, call="converse", options=options)["result"]
        return str(found["output"]["message"]["content"][0]["text"])

    def user(self, name: str = "one", **options: Any) -> Any:
        return self.iam("create_user", UserName=name, Path="/keys/", Tags=[{"Key": "team", "Value": "search"}], **options)["User"]

    def allow(self, *resources: str, name: str = "one", **statement: Any) -> None:
        allowed = {"Effect": "Allow", "Action": ["bedrock:InvokeModel", "bedrock:CallWithBearerToken"], "Resource": list(resources)}
        token = {"Effect": "Allow", "Action": "bedrock:CallWithBearerToken", "Resource": "*"}
        document = {"Version": "2012-10-17", "Statement": [token, {**allowed, **statement}]}
        self.iam("put_user_policy", UserName=name, PolicyName="use", PolicyDocument=json.dumps(document))

    def key(self, name: str = "one", **options: Any) -> Any:
        made = self.iam("create_service_specific_credential", UserName=name, ServiceName="bedrock.amazonaws.com", **options)
        return made["ServiceSpecificCredential"]


@contextmanager
def boto3_client(sandbox: SandboxServer, credential: Credential, home: Path, *, secret: str | None = None) -> Iterator[Boto]:
    environment = {
        "AWS_BASE_URL": f"{sandbox.address}/aws",
        "AWS_ACCESS_KEY_ID": credential.name,
        "AWS_SECRET_ACCESS_KEY": secret or credential.value,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with Bridge("aws", "aws_client.py", environment, home=home) as bridge:
        yield Boto(bridge)
