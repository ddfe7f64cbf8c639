"""A base URL may lead to loopback and private addresses, never to link-local ones or metadata services, however they are spelled."""

from __future__ import annotations

import pytest

from keygate.errors import InvalidInput
from keygate.vault import checked_base_url, refuse_link_local


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "169.254.0.1",
        "169.254.169.254.",
        "2852039166",
        "0xA9FEA9FE",
        "0xa9.0xfe.0xa9.0xfe",
        "0251.0376.0251.0376",
        "169.254.43518",
        "169.16689662",
        "fe80::1",
        "FE80::1",
        "febf::1",
        "::ffff:169.254.169.254",
        "::ffff:a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "64:ff9b::169.254.169.254",
        "::169.254.169.254",
        "fd00:ec2::254",
        "fd20:ce::254",
        "metadata",
        "metadata.google.internal",
        "METADATA.google.internal.",
        "metadata.goog",
        "instance-data",
        "instance-data.ec2.internal",
        "100.100.100.200",
        "0.0.0.0",
        "0",
        "::",
        "224.0.0.1",
        "ff02::1",
        "256.256.256.256",
    ],
)
def test_link_local_and_metadata_addresses_are_refused(host: str) -> None:
    with pytest.raises(InvalidInput):
        refuse_link_local(host)
    with pytest.raises(InvalidInput):
        checked_base_url(f"http://{f'[{host}]' if ':' in host else host}/v1")


@pytest.mark.parametrize(
    "url",
    [
        "https://api.openai.com/v1",
        "https://api.anthropic.com",
        "http://127.0.0.1:9000/openai/v1",
        "http://localhost:8000",
        "http://[::1]:8000/v1",
        "http://10.1.2.3/v1",
        "http://192.168.1.20:11434/v1",
        "https://my-llm.internal.example/a/b_c-d",
        "http://llm:8080",
        "http://[fd12:3456::1]/v1",
        "https://xn--bcher-kva.example/v1",
    ],
)
def test_public_private_and_loopback_addresses_are_allowed(url: str) -> None:
    assert checked_base_url(url) == url
    assert checked_base_url(url + "/") == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.openai.com",
        "ftp://api.openai.com",
        "file:///etc/passwd",
        "https://",
        "https:///v1",
        "https://user:canary@host/v1",
        "https://canary@host/v1",
        "https://host/v1?key=canary",
        "https://host/v1?",
        "https://host/v1#canary",
        "https://host/v1#",
        "https://host\r\nx: canary/v1",
        "https://host/v1\n",
        " https://host/v1",
        "https://ho st/v1",
        "https://host\0/v1",
        "https://host:99999/v1",
        "https://host:0/v1",
        "https://host:x/v1",
        "https://[fe80::1%25eth0]/v1",
        "https://[::1/v1",
        "https://%31%36%39.254.169.254/v1",
        "https://\uff11\uff16\uff19.254.169.254/v1",
        "https://bücher.example/v1",
        "https://-host/v1",
        "https://host\\@other/v1",
        "https://host/" + "a" * 600,
    ],
)
def test_what_is_no_plain_address_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        checked_base_url(url)
    assert refused.value.field == "base_url"
    assert "canary" not in refused.value.detail
