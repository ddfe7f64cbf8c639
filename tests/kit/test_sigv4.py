"""Signature Version 4 against what botocore 1.44.6 signs for the same requests at the same moment (`botocore.auth.SigV4Auth`)."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from keygate.kit.clock import to_ns
from keygate.kit.secret import Secret
from keygate.kit.sigv4 import AwsKey, read_authorization, sign, verifies

NOW = to_ns(datetime(2026, 11, 26, 1, 2, 3, tzinfo=UTC))
FORM = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
VECTORS = {
    "query": (
        ("POST", "https://iam.amazonaws.com/", FORM, b"Action=ListUsers&Version=2010-05-08", "us-east-1", "iam", None),
        "33493304d45421e00d816a61270617ee5dc56f94676b959f0773fe9da9ada0d7",
    ),
    "temporary credentials": (
        (
            "POST",
            "https://sts.eu-central-1.amazonaws.com/",
            FORM,
            b"Action=GetCallerIdentity&Version=2011-06-15",
            "eu-central-1",
            "sts",
            "session-token-example",
        ),
        "6b65320dfdce152f8b7df504ca0b80455d219543533904a88aff3dd2df6f6ec7",
    ),
    "encoded path and query": (
        (
            "GET",
            "http://127.0.0.1:8001/model/anthropic.claude-v1%3A0/converse?b=two%20words&a=1&a=%2F&flag",
            {"X-Trimmed": "  one   two  "},
            b"",
            "us-west-2",
            "bedrock",
            None,
        ),
        "2b4313cbd4522b602b2ed5f08c9be0ed6bc1567cf3847ae109797ab254107ff7",
    ),
}


@pytest.mark.parametrize("name", VECTORS)
def test_signatures_are_those_of_the_official_sdk(name: str) -> None:
    (method, url, headers, body, region, service, session), expected = VECTORS[name]
    key = AwsKey("AKIDEXAMPLE", Secret("example-secret-key"), None if session is None else Secret(session))
    sent = sign(key, method, url, headers=headers, body=body, region=region, service=service, now_ns=NOW)
    assert sent["x-amz-date"] == "20261126T010203Z"
    assert sent["authorization"].endswith(f"Signature={expected}")


@pytest.mark.parametrize("changed", ["method", "path", "query", "body", "header", "secret"])
def test_a_request_that_was_changed_does_not_verify(changed: str) -> None:
    key = AwsKey("AKIDEXAMPLE", Secret("example-secret-key"))
    body = b"Action=ListUsers"
    headers = sign(key, "POST", "http://host/a?b=c", headers=FORM, body=body, region="us-east-1", service="iam", now_ns=NOW)
    signed = read_authorization(headers["authorization"])
    assert signed is not None
    parts = {"method": "POST", "path": "/a", "query": "b=c", "headers": headers, "body": body}
    assert verifies(signed, "example-secret-key", **parts)
    different = {
        "method": {"method": "PUT"},
        "path": {"path": "/b"},
        "query": {"query": "b=d"},
        "body": {"body": b"Action=DeleteUser"},
        "header": {"headers": {**headers, "host": "elsewhere"}},
        "secret": {},
    }[changed]
    assert not verifies(signed, "another" if changed == "secret" else "example-secret-key", **{**parts, **different})


@pytest.mark.parametrize("header", ["", "Bearer token", "AWS4-HMAC-SHA256 Credential=a/b", "AWS4-HMAC-SHA256 " + "x" * 10_000])
def test_what_is_no_signature_is_read_as_none(header: str) -> None:
    assert read_authorization(header) is None
