"""The ways to a vendor: TLS with the system's trust, proxies from the environment, addresses that are never spoken to."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.gateway.rig import chat, running
from tests.gateway.upstream import CHAT, Upstream

from keygate.gateway.proxies import ProxySettings
from keygate.kit.addresses import is_forbidden
from keygate.ledger import Outcome


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Key and certificate for localhost and vendor.test, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.DNSName("vendor.test"), x509.IPAddress(ip_address("127.0.0.1"))])
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "vendor.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + built.public_bytes(serialization.Encoding.PEM)
    )
    return path


class Proxy:
    """Forwards whatever it is asked for to one port, and remembers the heads."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.heads: list[bytes] = []
        self.refuse = False

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        if self.refuse:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target)
        if head.startswith(b"CONNECT "):
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            up_writer.write(head)
        await asyncio.gather(self._pipe(reader, up_writer), self._pipe(up_reader, writer))

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
        except ConnectionError:
            pass
        finally:
            writer.close()

    def stop(self) -> None:
        self._server.close()


@asynccontextmanager
async def tls_upstream(certificate: Path) -> AsyncIterator[Upstream]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    upstream = Upstream()
    await upstream.start(context)
    try:
        yield upstream
    finally:
        await upstream.stop()


async def test_vendors_are_reached_over_tls_with_the_trust_of_the_environment(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with tls_upstream(certificate) as vendor, running() as rig:
        token, _ = rig.key()
        rig.credentials.all[0].base_url = f"https://localhost:{vendor.port}/v1"
        await rig.gateway.credentials_changed()
        assert (await rig.call(token, chat(max_tokens=1))).body == CHAT
        assert (await rig.call(token, chat(max_tokens=1, stream=True))).status == 200
        assert vendor.connections == 1
        rig.nothing_leaks()


async def test_certificate_that_nobody_trusts_is_never_spoken_to(certificate: Path) -> None:
    async with tls_upstream(certificate) as vendor, running() as rig:
        token, _ = rig.key()
        rig.credentials.all[0].base_url = f"https://localhost:{vendor.port}/v1"
        await rig.gateway.credentials_changed()
        reply = await rig.call(token, chat(max_tokens=1))
        assert reply.status == 503
        assert b"TLS" in reply.body
        assert not vendor.seen
        assert rig.accounts.last.outcome is Outcome.NOT_SENT


async def test_https_goes_through_a_tunnel_of_the_proxy(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with tls_upstream(certificate) as vendor:
        proxy = Proxy(vendor.port)
        await proxy.start()
        settings = ProxySettings.read({"HTTPS_PROXY": f"http://user:p%40ss@127.0.0.1:{proxy.port}"})
        async with running(proxies=settings) as rig:
            token, _ = rig.key()
            rig.credentials.all[0].base_url = "https://vendor.test/v1"
            await rig.gateway.credentials_changed()
            assert (await rig.call(token, chat(max_tokens=1))).body == CHAT
            assert (await rig.call(token, chat(max_tokens=1))).body == CHAT
            assert len(proxy.heads) == 1
            assert proxy.heads[0].startswith(b"CONNECT vendor.test:443 HTTP/1.1\r\n")
            assert b"Proxy-Authorization: Basic dXNlcjpwQHNz" in proxy.heads[0]
            assert vendor.seen[0].header("proxy-authorization") is None
            proxy.refuse = True
            rig.credentials.all[0].base_url = "https://vendor.test:8443/v1"
            await rig.gateway.credentials_changed()
            reply = await rig.call(token, chat(max_tokens=1))
            assert reply.status == 503
            assert b"407" in reply.body
            rig.nothing_leaks()
        proxy.stop()


async def test_http_goes_through_the_proxy_in_absolute_form() -> None:
    vendor = Upstream()
    await vendor.start()
    proxy = Proxy(vendor.port)
    await proxy.start()
    async with running(proxies=ProxySettings.read({"http_proxy": f"127.0.0.1:{proxy.port}"})) as rig:
        token, _ = rig.key()
        rig.credentials.all[0].base_url = "http://vendor.test/v1"
        await rig.gateway.credentials_changed()
        assert (await rig.call(token, chat(max_tokens=1))).body == CHAT
        assert proxy.heads[0].startswith(b"POST http://vendor.test/v1/chat/completions HTTP/1.1\r\n")
    proxy.stop()
    await vendor.stop()


def test_proxies_are_chosen_as_curl_does() -> None:
    settings = ProxySettings.read({"HTTP_PROXY": "http://p:1", "https_proxy": "https://q", "NO_PROXY": "a.test,.b.test,c.test:81,10.0.0.1"})
    assert settings.choose("x.test", 80, tls=False) == settings.http
    assert settings.choose("x.test", 443, tls=True) == settings.https
    for host in ("a.test", "sub.a.test", "sub.b.test", "b.test", "localhost", "127.0.0.1", "10.0.0.1"):
        assert settings.choose(host, 443, tls=True) is None
    assert settings.choose("c.test", 81, tls=False) is None
    assert settings.choose("c.test", 80, tls=False) is not None
    assert settings.choose("nota.test", 80, tls=False) is not None
    assert ProxySettings.read({"no_proxy": "*", "http_proxy": "http://p"}).choose("x.test", 80, tls=False) is None
    with pytest.raises(ValueError, match="proxy"):
        ProxySettings.read({"http_proxy": "socks5://p:1"})


@pytest.mark.parametrize(
    ("address", "forbidden"),
    [("169.254.169.254", True), ("fe80::1%eth0", True), ("::ffff:169.254.1.1", True), ("0.0.0.0", True), ("224.0.0.1", True),
     ("fd00:ec2::254", True), ("100.100.100.200", True), ("nonsense", True), ("127.0.0.1", False), ("10.1.2.3", False), ("::1", False),
     ("93.184.216.34", False), ("2606:2800:220:1::1", False)],
)  # fmt: skip
def test_link_local_addresses_are_never_spoken_to(address: str, forbidden: bool) -> None:
    assert is_forbidden(address) is forbidden
