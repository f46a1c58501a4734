"""The programs of g4f's documentation, with other imports: ``examples/``, run as they are, through a proxy with a
password, before a server that fails at first."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme
from driving import Transports
from programs import EMBEDDINGS, EXAMPLES, EXAMPLES_FOLDER, KEY, OTHERS, Example, environment_of, launch, run_program

from deltawire.testing import Answer, ChatServer, ProxyServer, SocksServer

# For programs whose way to their server matters.
on_both = pytest.mark.usefixtures("transports")

PASSWORD = "pa ss:w@rd"
WRONG = "not:the@one"

NAMED = {each.name: each for each in EXAMPLES}
# One of each kind: sync, asyncio, trio, and a site.
SOME = [NAMED[name] for name in ("retry_through_proxy.py", "async_stream.py", "trio_stream.py", "opchatgpts.py")]


def name_of(example: Example) -> str:
    return example.name.removesuffix(".py")


every = pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
some = pytest.mark.parametrize("example", SOME, ids=name_of)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(tokens=["Hel", "lo"], api_key=KEY) as running:
        yield running


@pytest.fixture
def tls_server(server_context: ssl.SSLContext) -> Iterator[ChatServer]:
    with ChatServer(tokens=["Hel", "lo"], api_key=KEY, ssl_context=server_context) as running:
        yield running


def test_these_are_all() -> None:
    """The others are run by test_embedding.py."""
    files = EXAMPLES_FOLDER.glob("*.py")
    assert sorted(path.name for path in files) == sorted([*NAMED, *EMBEDDINGS, *OTHERS])


@on_both
@every
def test_through_a_proxy(example: Example, server: ChatServer, proxy: ProxyServer) -> None:
    server.plan(*example.failures)
    printed = run_program(example.source, **environment_of(server, proxy.url))
    example.check(printed, server)
    assert len(proxy.requests) == len(server.requests)
    assert all(each.authorized and each.target.startswith(f"{server.site_url}/") for each in proxy.requests)
    assert all(each.header("via") for each in server.requests)
    assert all(each.header("proxy-authorization") is None for each in server.requests)


@on_both
@pytest.mark.parametrize("name", ["async_stream.py", "template.py", "own_provider.py", "opchatgpts.py"])
def test_on_trio(name: str, server: ChatServer, proxy: ProxyServer) -> None:
    example = NAMED[name]
    server.plan(*example.failures)
    printed = run_program(example.on_trio, **environment_of(server, proxy.url))
    example.check(printed, server)
    assert len(proxy.requests) == len(server.requests)


@on_both
@some
@pytest.mark.parametrize("kind", ["tunnel", "socks"])
def test_through_a_tunnel(
    example: Example,
    kind: str,
    tls_server: ChatServer,
    proxy: ProxyServer,
    socks: SocksServer,
    authority: trustme.CA,
    tmp_path: Path,
) -> None:
    trusted = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(trusted))
    tls_server.plan(*example.failures)
    url = proxy.url if kind == "tunnel" else socks.remote_url
    printed = run_program(example.source, **environment_of(tls_server, url), SSL_CERT_FILE=str(trusted))
    example.check(printed, tls_server)
    tunnels = proxy.requests if kind == "tunnel" else socks.requests
    assert {each.target for each in tunnels} == {tls_server.site_url.removeprefix("https://")}
    assert all(each.method == "CONNECT" and each.authorized for each in tunnels)
    # As many as there were connections: none came another way.
    assert len(tunnels) == len({each.connection for each in tls_server.requests})


def test_the_proxy_of_the_environment(server: ChatServer, proxy: ProxyServer) -> None:
    """What says nothing of a proxy takes the environment's; so does g4f's ``proxy=None``."""
    source = """
    import asyncio
    from deltawire import Client, OpenaiTemplate

    async def main():
        async for data in OpenaiTemplate().create_async_generator("m", "Hi", proxy=None):
            print(data, end="")

    asyncio.run(main())
    print(OpenaiTemplate().get_models(), Client().chat.completions.create("Hi").choices[0].message.content)
    """
    environment = {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": KEY}
    for variable in ("HTTP_PROXY", "ALL_PROXY", "G4F_PROXY"):
        before = len(proxy.requests)
        assert run_program(source, **environment, **{variable: proxy.url}) == "Hello['local-model'] Hello\n"
        assert len(proxy.requests) == before + 3
    assert len(server.requests) == len(proxy.requests)


# --- Secrets ----------------------------------------------------------------------------------------


def shows_no_secret(text: str) -> None:
    basic = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    for secret in (PASSWORD, WRONG, KEY, basic):
        for shape in (secret, quote(secret, safe=""), repr(secret)[1:-1]):
            assert shape not in text


@some
@pytest.mark.parametrize("kind", ["http", "socks"])
def test_a_log_of_everything(
    example: Example, kind: str, server: ChatServer, proxy: ProxyServer, socks: SocksServer, transports: Transports
) -> None:
    """Also of what httpcore and asyncio have to say. (The wire logs nothing.)"""
    logging = "logging.basicConfig(level=1); logging.getLogger('asyncio').setLevel(1)"
    url = proxy.url if kind == "http" else socks.url
    done = launch(f"{logging}\n{example.source}", **environment_of(server, url))
    assert done.returncode == 0
    assert ("DEBUG:httpcore" in done.stderr) is (transports.name == "httpcore")
    shows_no_secret(done.stdout + done.stderr)


# --- When all fails ---------------------------------------------------------------------------------


def fails(example: Example, server: ChatServer, proxy: str, error: str) -> None:
    """The program dies of that error, which shows no secret."""
    done = launch(example.source, **environment_of(server, proxy))
    assert done.returncode == 1
    assert "Hello" not in done.stdout
    assert error in done.stderr
    shows_no_secret(done.stdout + done.stderr)
    # Each of them raises what it should, and leaves nothing open.
    assert "ResourceWarning" not in done.stderr
    assert "Exception ignored" not in done.stderr


@on_both
@every
def test_a_wrong_password(example: Example, server: ChatServer, proxy: ProxyServer) -> None:
    url = proxy.url.replace(quote(PASSWORD, safe=""), quote(WRONG, safe=""))
    fails(example, server, url, "ProxyError: ")
    assert server.requests == []
    # Nobody asks again with a password that was refused; those that ask several times at once, or another provider,
    # have each been refused.
    at_once = {"gather.py": 3, "trio_stream.py": 2, "fail_over.py": 2}
    assert 1 <= len(proxy.requests) <= at_once.get(example.name, 1)
    assert not any(each.authorized for each in proxy.requests)


# (Five attempts would wait for seconds.)
@on_both
@pytest.mark.parametrize("example", [NAMED["models.py"], NAMED["async_stream.py"]], ids=name_of)
def test_a_proxy_that_is_gone(example: Example, server: ChatServer) -> None:
    with ProxyServer(username="me", password=PASSWORD) as proxy:
        url = proxy.url
    fails(example, server, url, "ProxyError: ")
    assert server.requests == []


# How many requests those who ask once would make: the first call is the last. (trio cancels the other one.)
ATTEMPTS = {"retry_through_proxy.py": [5], "trio_stream.py": [3, 4, 5, 6], "opchatgpts.py": [4], "async_stream.py": [3]}


@on_both
@some
def test_a_server_that_fails_for_ever(example: Example, server: ChatServer, proxy: ProxyServer) -> None:
    # It repeats the key, if it has been told one.
    said = "No answer." if example.name == "opchatgpts.py" else f"No answer for {KEY}."
    server.plan(*[Answer.error(503, said, retry_after=0.01) for _ in range(20)])
    fails(example, server, proxy.url, "InternalServerError: ")
    assert len(server.requests) in ATTEMPTS[example.name]


@pytest.mark.parametrize("example", [each for each in EXAMPLES if each.name != "opchatgpts.py"], ids=name_of)
def test_a_key_that_is_refused(example: Example, proxy: ProxyServer) -> None:
    with ChatServer(tokens=["Hel", "lo"], api_key="another") as server:
        if example.name == "fail_over.py":
            server.plan(Answer.error(500, to="/chats/submit"))
        fails(example, server, proxy.url, "AuthenticationError: ")


# --- Left early -------------------------------------------------------------------------------------

LEAVING = """
async def main():
    site = Opchatgpts(url=os.environ["SITE"])
    for provider in (OpenaiTemplate, site, RetryProvider([OpenaiTemplate])):
        async for data in provider.create_async_generator("m", [{"role": "user", "content": "Hi"}], stream=True):
            print(data)
            break
        opened = await provider.create_async_generator("m", [{"role": "user", "content": "Hi"}], stream=True)
        provider.create_async_generator("m", [{"role": "user", "content": "Never sent"}])

"""
LEAVING_SYNC = """
site = Opchatgpts(url=os.environ["SITE"])
for provider in (OpenaiTemplate, site, RetryProvider([OpenaiTemplate])):
    for data in provider.create_generator("m", [{"role": "user", "content": "Hi"}], stream=True):
        print(data)
        break
    opened = provider.create_generator("m", [{"role": "user", "content": "Hi"}], stream=True)
"""


@on_both
@pytest.mark.parametrize(
    "source",
    [LEAVING_SYNC, LEAVING + "import asyncio; asyncio.run(main())", LEAVING + "import trio; trio.run(main)"],
    ids=["sync", "asyncio", "trio"],
)
def test_answers_may_be_left_in_the_midst(source: str, proxy: ProxyServer) -> None:
    source = f"import os\nfrom deltawire import OpenaiTemplate, Opchatgpts, RetryProvider\n{source}"
    # The second token comes long after the first.
    with ChatServer(tokens=["Hel", "lo"], pace=30, api_key=KEY) as server:
        assert run_program(source, **environment_of(server, ""), HTTP_PROXY=proxy.url) == "Hel\n" * 3
        asked = [each for each in server.requests if not each.path.endswith("/start_session")]
        assert len(asked) == 6
        for index, each in enumerate(server.requests):
            assert server.wait_outcome(index) == ("client-closed" if each in asked else "complete")
