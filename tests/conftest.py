"""No test reaches a network: not the Hub, not any address outside this machine."""

import errno
import ipaddress
import os
import socket

import pytest

# Read once, when huggingface_hub is first imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

# RFC 5737 and RFC 2606 reserve these for examples: what a test of an unreachable address may ask for.
NOWHERE = [ipaddress.ip_network(network) for network in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")]
NOWHERE_NAMES = (".invalid", ".example", ".test", "example.com", "example.org")


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("localhost", "", socket.gethostname())


def _is_nowhere(host: str) -> bool:
    try:
        return any(ipaddress.ip_address(host) in network for network in NOWHERE)
    except ValueError:
        return host.endswith(NOWHERE_NAMES)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch):
    """Connections and look-ups that leave the machine fail as without a network, and then so does the test."""
    asked = []
    connect, getaddrinfo = socket.socket.connect, socket.getaddrinfo

    def refuse(host: str) -> None:
        if not _is_nowhere(host):
            asked.append(host)

    def guarded_connect(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_local(str(address[0])):
            refuse(str(address[0]))
            raise OSError(errno.ENETUNREACH, "Network is unreachable")
        return connect(self, address)

    def guarded_getaddrinfo(host, *arguments, **kwargs):
        name = host.decode() if isinstance(host, bytes) else str(host or "")
        if not _is_local(name):
            refuse(name)
            if not name[:1].isdigit():
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return getaddrinfo(host, *arguments, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_getaddrinfo)
    yield
    assert not asked, f"the test asked for {', '.join(asked)}: tests need no network"
