import pytest

from keygate.vendors import VENDORS, ErrorStyle, Match, Refused, owner_of, resolve, split_model


@pytest.mark.parametrize(
    ("method", "path", "vendor", "upstream"),
    [
        (b"POST", b"/openai/v1/chat/completions", "openai", b"/chat/completions"),
        (b"POST", b"/openai/chat/completions", "openai", b"/chat/completions"),
        (b"POST", b"/openai/v1/v1/chat/completions", "openai", b"/chat/completions"),
        (b"POST", b"/v1/openai/v1/chat/completions", "openai", b"/chat/completions"),
        (b"POST", b"/v1/openai/chat/completions", "openai", b"/chat/completions"),
        (b"POST", b"/openai/v1/responses/input_tokens", "openai", b"/responses/input_tokens"),
        (b"POST", b"/anthropic/v1/messages", "anthropic", b"/v1/messages"),
        (b"POST", b"/v1/anthropic/v1/messages", "anthropic", b"/v1/messages"),
        (b"POST", b"/anthropic/v1/chat/completions", "anthropic", b"/v1/chat/completions"),
        (b"POST", b"/v1/chat/completions", None, b"/chat/completions"),
        (b"POST", b"/v1/v1/embeddings", None, b"/embeddings"),
        (b"GET", b"/v1/models", None, b"/models"),
    ],
)
def test_every_spelling_of_a_mount_finds_the_endpoint(method: bytes, path: bytes, vendor: str | None, upstream: bytes) -> None:
    match = resolve(method, path)
    assert isinstance(match, Match)
    assert (match.vendor.name if match.vendor else None) == vendor
    assert match.upstream_path == upstream


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        (b"/openai/v1/models/gpt-4.1", "gpt-4.1"),
        (b"/v1/models/anthropic/claude-opus-4-8", "anthropic/claude-opus-4-8"),
        (b"/v1/models/anthropic%2Fclaude-opus-4-8", "anthropic/claude-opus-4-8"),
        (b"/anthropic/v1/models/claude-opus-4-8", "claude-opus-4-8"),
    ],
)
def test_an_id_in_the_path_is_decoded(path: bytes, parameter: str) -> None:
    match = resolve(b"GET", path)
    assert isinstance(match, Match)
    assert match.parameter == parameter


@pytest.mark.parametrize("parameter", [b"%00", b"a%0d%0ab", b"x" * 300, b"%e2%80%ae"])
def test_an_id_with_control_characters_or_of_absurd_length_is_no_match(parameter: bytes) -> None:
    assert isinstance(resolve(b"GET", b"/openai/v1/models/" + parameter), Refused)


@pytest.mark.parametrize("vendor", VENDORS.values(), ids=lambda vendor: vendor.name)
def test_known_but_unserved_paths_are_refused_by_name(vendor) -> None:
    for path, what in vendor.refused:
        for spelling in (path, path.rstrip("/") + "/abc_123", path.rstrip("/") + "/abc/content"):
            refused = resolve(b"GET", f"/{vendor.name}{spelling}".encode())
            if spelling.endswith("/"):
                continue
            assert isinstance(refused, Refused), spelling
            assert (refused.status, refused.code, refused.style) == (403, "endpoint_not_served", vendor.error_style), spelling
            assert what in refused.message


def test_unknown_paths_of_a_mount_are_refused_and_other_paths_are_not_ours() -> None:
    for path in (
        b"/openai/v1/something/new",
        b"/v1/whatever",
        b"/anthropic",
        b"/openai/v1/chat/completions%2f",
        b"/openai/v1/./models",
        b"/v1",
    ):
        refused = resolve(b"POST", path)
        assert isinstance(refused, Refused), path
        assert refused.status == 404
    for path in (b"/api/v1/teams", b"/", b"/health", b"/openaix/v1/models", b"/v10/models", b"", b"*"):
        assert resolve(b"GET", path) is None


def test_a_served_path_under_another_method_says_which_method() -> None:
    refused = resolve(b"GET", b"/openai/v1/chat/completions")
    assert isinstance(refused, Refused)
    assert (refused.status, refused.allow) == (405, b"POST")


def test_under_the_shared_mount_the_vendor_is_chosen_later_and_keeps_the_openai_style() -> None:
    match = resolve(b"POST", b"/v1/chat/completions")
    assert isinstance(match, Match)
    chosen = match.for_vendor(VENDORS["anthropic"])
    assert chosen is not None
    assert (chosen.upstream_path, chosen.style) == (b"/v1/chat/completions", ErrorStyle.OPENAI)
    embeddings = resolve(b"POST", b"/v1/embeddings")
    assert isinstance(embeddings, Match)
    assert embeddings.for_vendor(VENDORS["anthropic"]) is None


def test_a_model_name_leads_to_its_vendor() -> None:
    assert split_model("anthropic/claude-opus-4-8") == (VENDORS["anthropic"], "claude-opus-4-8")
    assert split_model("gpt-4.1-mini") == (VENDORS["openai"], "gpt-4.1-mini")
    assert split_model("o3") == (VENDORS["openai"], "o3")
    assert split_model("unknown/model") == (None, "unknown/model")
    assert owner_of("mistral-large") is None


def test_no_bare_name_belongs_to_two_vendors() -> None:
    prefixes = [(vendor.name, prefix) for vendor in VENDORS.values() for prefix in vendor.model_prefixes]
    for name, prefix in prefixes:
        assert {other for other, its in prefixes if its.startswith(prefix) or prefix.startswith(its)} == {name}


def test_every_vendor_states_its_sources() -> None:
    for vendor in VENDORS.values():
        assert vendor.facts
        assert vendor.sdk_base_url.endswith(vendor.root_path)
        assert all(endpoint.path.startswith("/v1/") for endpoint in vendor.endpoints)
