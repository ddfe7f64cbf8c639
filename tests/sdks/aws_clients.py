"""A sandbox's AWS, and boto3 at it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.sdks.bridge import Bridge

from keygate.sandbox import SandboxServer
from keygate.sandbox.admin import Credential

MODEL = "anthropic.claude-haiku-4-5-20251001-v1:0"
PROFILE = f"us.{MODEL}"
FOUNDATION = "arn:aws:bedrock:*::foundation-model/"
KEY_ID = "AKIASANDBOX00000001"
TEXT = "This answer comes from the sandbox of KeyGate: no vendor was asked, nothing was paid."


class Boto:
    """With one access key."""

    def __init__(self, bridge: Bridge, sandbox: SandboxServer, credential: Credential) -> None:
        self.bridge = bridge
        self._as = [f"{sandbox.address}/aws", credential.name, credential.value]

    def call(self, client: str, call: str, **request: Any) -> Any:
        return self.bridge.call(client=client, call=call, **request, **{"as": self._as})["result"]

    def iam(self, call: str, **options: Any) -> Any:
        return self.call("iam", call, options=options)

    def converse(self, key: str, model: str = MODEL) -> str:
        messages = [{"role": "user", "content": [{"text": "Hi"}]}]
        options = {"modelId": model, "messages": messages}
        found = self.call("bedrock", "converse", key=key, options=options)
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


@pytest.fixture(scope="session")
def aws_bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    with Bridge("aws", "aws_client.py", {"AWS_EC2_METADATA_DISABLED": "true"}, home=tmp_path_factory.mktemp("aws")) as bridge:
        yield bridge
