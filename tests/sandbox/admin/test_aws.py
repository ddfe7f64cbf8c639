"""AWS's side of the sandbox, driven by boto3: IAM signed with an access key, Bedrock with the API keys that it issues."""

from __future__ import annotations

import base64
import json

import httpx
import pytest
from tests.sdks.aws_clients import FOUNDATION, KEY_ID, MODEL, PROFILE, TEXT, Boto
from tests.sdks.bridge import Bridge, SdkError

from keygate.sandbox import SandboxServer, Vendor
from keygate.sandbox.admin import Account, Credential


@pytest.fixture
def aws(sandbox: SandboxServer) -> Account:
    return sandbox.state.admin[Vendor.BEDROCK]


@pytest.fixture
def boto(sandbox: SandboxServer, aws: Account, aws_bridge: Bridge) -> Boto:
    return Boto(aws_bridge, sandbox, aws.create_credential(name=KEY_ID))


def test_an_issued_key_calls_models_and_its_users_policy_decides_which(boto: Boto) -> None:
    assert boto.user()["Arn"] == "arn:aws:iam::123456789012:user/keys/one"
    made = boto.key()
    assert made["ServiceCredentialSecret"].startswith("ABSK")
    assert base64.b64decode(made["ServiceCredentialSecret"][4:]).decode().startswith(made["ServiceCredentialAlias"] + ":")
    with pytest.raises(SdkError) as error:
        boto.converse(made["ServiceCredentialSecret"])
    assert (error.value.status, error.value.code) == (403, "AccessDeniedException")
    assert "bedrock:CallWithBearerToken" in str(error.value)
    boto.allow(FOUNDATION + MODEL)
    assert boto.converse(made["ServiceCredentialSecret"]) == TEXT
    with pytest.raises(SdkError, match="bedrock:InvokeModel"):
        boto.converse(made["ServiceCredentialSecret"], "anthropic.claude-opus-4-5-20251101-v1:0")


def test_anthropics_own_body_is_served_too(boto: Boto) -> None:
    boto.user()
    boto.allow(FOUNDATION + "anthropic.*")
    body = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}]}
    options = {"modelId": MODEL, "body": json.dumps(body)}
    key = boto.key()["ServiceCredentialSecret"]
    found = boto.call("bedrock", "invoke_model", key=key, options=options)["body"]
    assert found["content"][0]["text"] == TEXT


def test_a_profile_needs_itself_and_its_model(boto: Boto) -> None:
    boto.user()
    key = boto.key()["ServiceCredentialSecret"]
    boto.allow(f"arn:aws:bedrock:*:*:inference-profile/{PROFILE}")
    with pytest.raises(SdkError, match="foundation-model"):
        boto.converse(key, PROFILE)
    boto.allow(f"arn:aws:bedrock:*:*:inference-profile/{PROFILE}", FOUNDATION + MODEL)
    assert boto.converse(key, PROFILE) == TEXT


def test_a_key_is_switched_off_on_reset_and_deleted(boto: Boto) -> None:
    boto.user()
    boto.allow(FOUNDATION + "*")
    made = boto.key()
    key, id_ = made["ServiceCredentialSecret"], made["ServiceSpecificCredentialId"]

    def status() -> list[str]:
        found = boto.iam("list_service_specific_credentials", UserName="one")["ServiceSpecificCredentials"]
        assert all("ServiceCredentialSecret" not in each for each in found)
        return [each["Status"] for each in found]

    boto.iam("update_service_specific_credential", UserName="one", ServiceSpecificCredentialId=id_, Status="Inactive")
    assert status() == ["Inactive"]
    with pytest.raises(SdkError, match="API Key is valid"):
        boto.converse(key)
    boto.iam("update_service_specific_credential", UserName="one", ServiceSpecificCredentialId=id_, Status="Active")
    assert boto.converse(key) == TEXT
    again = boto.iam("reset_service_specific_credential", UserName="one", ServiceSpecificCredentialId=id_)["ServiceSpecificCredential"]
    assert boto.converse(again["ServiceCredentialSecret"]) == TEXT
    with pytest.raises(SdkError, match="API Key is valid"):
        boto.converse(key)
    boto.iam("delete_service_specific_credential", UserName="one", ServiceSpecificCredentialId=id_)
    assert status() == []
    with pytest.raises(SdkError, match="API Key is valid"):
        boto.converse(again["ServiceCredentialSecret"])


def test_a_deleted_key_goes_on_for_as_long_as_the_settings_say(boto: Boto, aws: Account) -> None:
    boto.user()
    boto.allow(FOUNDATION + "*")
    made = boto.key()
    aws.settings = aws.settings.with_changes({"revoked_key_s": 30, "lists_s": 30})
    aws.clock.advance(31)
    boto.iam("delete_service_specific_credential", UserName="one", ServiceSpecificCredentialId=made["ServiceSpecificCredentialId"])
    assert boto.converse(made["ServiceCredentialSecret"]) == TEXT
    assert len(boto.iam("list_service_specific_credentials", UserName="one")["ServiceSpecificCredentials"]) == 1
    aws.clock.advance(31)
    with pytest.raises(SdkError, match="API Key is valid"):
        boto.converse(made["ServiceCredentialSecret"])
    assert boto.iam("list_service_specific_credentials", UserName="one")["ServiceSpecificCredentials"] == []


def test_an_age_and_a_policy_end_a_key(boto: Boto, aws: Account) -> None:
    boto.user()
    boto.allow(FOUNDATION + "*", Condition={"DateLessThan": {"aws:CurrentTime": "2099-01-01T00:00:00Z"}})
    aged = boto.key(CredentialAgeDays=1)
    assert aged["ExpirationDate"] > aged["CreateDate"]
    assert boto.converse(aged["ServiceCredentialSecret"]) == TEXT
    aws.clock.advance(86_401)
    with pytest.raises(SdkError, match="API Key is valid"):
        boto.converse(aged["ServiceCredentialSecret"])
    assert boto.iam("list_service_specific_credentials", UserName="one")["ServiceSpecificCredentials"][0]["Status"] == "Expired"
    other = boto.key()["ServiceCredentialSecret"]
    boto.allow(FOUNDATION + "*", Condition={"DateLessThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}})
    with pytest.raises(SdkError, match="bedrock:InvokeModel"):
        boto.converse(other)


def test_bounds_and_conflicts_are_iams(boto: Boto, aws: Account) -> None:
    boto.user()
    for call, options, code in (
        ("create_user", {"UserName": "one"}, "EntityAlreadyExists"),
        ("get_user", {"UserName": "none"}, "NoSuchEntity"),
        ("put_user_policy", {"UserName": "one", "PolicyName": "p", "PolicyDocument": "{"}, "MalformedPolicyDocument"),
        ("create_service_specific_credential", {"UserName": "one", "ServiceName": "s3.amazonaws.com"}, "NotSupportedService"),
    ):
        with pytest.raises(SdkError) as error:
            boto.iam(call, **options)
        assert error.value.code == code
    boto.key()
    boto.key()
    with pytest.raises(SdkError) as error:
        boto.key()
    assert error.value.code == "LimitExceeded"
    with pytest.raises(SdkError) as error:
        boto.iam("delete_user", UserName="one")
    assert error.value.code == "DeleteConflict"
    aws.settings = aws.settings.with_changes({"ceilings": {"users": 1}})
    with pytest.raises(SdkError) as error:
        boto.user("two")
    assert (error.value.status, error.value.code) == (409, "LimitExceeded")
    assert boto.iam("get_account_summary")["SummaryMap"] == {"Users": 1, "UsersQuota": 1}


def test_lists_are_paged_and_tags_and_policies_are_read_back(boto: Boto) -> None:
    for name in ("one", "two", "three"):
        boto.user(name)
    page = boto.iam("list_users", PathPrefix="/keys/", MaxItems=2)
    assert ([user["UserName"] for user in page["Users"]], page["IsTruncated"]) == (["one", "three"], True)
    assert [user["UserName"] for user in boto.iam("list_users", Marker=page["Marker"])["Users"]] == ["two"]
    boto.iam("tag_user", UserName="one", Tags=[{"Key": "generation", "Value": "1"}])
    boto.iam("untag_user", UserName="one", TagKeys=["team"])
    assert boto.iam("get_user", UserName="one")["User"]["Tags"] == [{"Key": "generation", "Value": "1"}]
    boto.allow(FOUNDATION + MODEL)
    document = boto.iam("get_user_policy", UserName="one", PolicyName="use")["PolicyDocument"]
    assert document["Statement"][1]["Resource"] == [FOUNDATION + MODEL]
    boto.iam("delete_user_policy", UserName="one", PolicyName="use")
    boto.iam("delete_user", UserName="one")
    assert boto.iam("list_users", PathPrefix="/keys/")["Users"][0]["UserName"] == "three"


def test_a_wrong_secret_is_no_signature(sandbox: SandboxServer, aws: Account, aws_bridge: Bridge) -> None:
    aws.create_credential(name=KEY_ID)
    with pytest.raises(SdkError) as error:
        Boto(aws_bridge, sandbox, Credential("another", KEY_ID)).iam("list_users")
    assert (error.value.status, error.value.code) == (403, "SignatureDoesNotMatch")


def test_a_missing_right_is_named_and_can_be_simulated(sandbox: SandboxServer, aws: Account, aws_bridge: Bridge) -> None:
    boto = Boto(aws_bridge, sandbox, aws.create_credential(name=KEY_ID, without=["iam:CreateUser"]))
    with pytest.raises(SdkError) as error:
        boto.user()
    assert (error.value.status, error.value.code) == (403, "AccessDenied")
    assert "not authorized to perform: iam:CreateUser" in str(error.value)
    caller = boto.call("sts", "get_caller_identity")
    actions = ["iam:CreateUser", "iam:GetUser"]
    results = boto.iam("simulate_principal_policy", PolicySourceArn=caller["Arn"], ActionNames=actions)["EvaluationResults"]
    assert [each["EvalDecision"] for each in results] == ["implicitDeny", "allowed"]


async def test_a_request_without_a_signature_is_refused(sandbox: SandboxServer) -> None:
    async with httpx.AsyncClient(timeout=10) as client:
        answer = await client.post(f"{sandbox.address}/aws/iam/", content="Action=ListUsers&Version=2010-05-08")
    assert answer.status_code == 403
    assert "MissingAuthenticationToken" in answer.text
