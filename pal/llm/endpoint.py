"""Keys and proxies of an endpoint."""

import ipaddress
import os
import socket
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from pal.core.errors import ConfigError
from pal.llm.settings import LlmSettings

OPENAI_HOST, OPENAI_KEY = "api.openai.com", "OPENAI_API_KEY"


def is_this_machine(url: str) -> bool:
    """Return whether an address is on this machine, in any of the ways to write that.

    Example:
        >>> is_this_machine("http://[::1]:8000/v1"), is_this_machine("https://api.openai.com/v1")
        (True, False)
    """
    host = (urlsplit(url).hostname or "").rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:
            address = ipaddress.ip_address(socket.inet_aton(host))  # forms such as 127.1
        except (OSError, ValueError):
            return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_loopback or mapped.is_unspecified


def proxy_of(url: str) -> str | None:
    """Return the name of the environment variable whose proxy is used, if any."""
    address = urlsplit(url)
    if is_this_machine(url) or proxy_bypass(address.hostname or ""):
        return None
    found = getproxies()
    names = [name for name in (address.scheme, "all") if found.get(name)]
    return f"{names[0].upper()}_PROXY" if names else None


def find_key(settings: LlmSettings) -> str | None:
    """Return the key for the endpoint from the environment, or None for no key.

    A key is sent only to the endpoint it belongs to: OPENAI_API_KEY to api.openai.com, any other
    key if ``api_key_env`` names it. It is sent only over https or to this machine, unless
    ``key_over_http`` is set.

    Raises:
        ConfigError: no endpoint is named, its key is not in the environment, or may not be sent.
    """
    if not settings.base_url:
        raise ConfigError(
            "missing settings: give llm.base_url=… (such as http://localhost:8000/v1), the only "
            "place that texts are sent to"
        )
    address = urlsplit(settings.base_url)
    name = settings.api_key_env
    if name is None and address.hostname == OPENAI_HOST:
        name = OPENAI_KEY
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    here = is_this_machine(settings.base_url)
    if not key:
        if here:
            return None
        raise ConfigError(
            f"llm.base_url is not on this machine and the environment has no {name}; export it, or "
            "name another variable by llm.api_key_env"
        )
    if not key.isascii() or not key.isprintable():
        raise ConfigError(f"${name} holds characters that no key has; export the key alone")
    if address.scheme == "http" and not here and not settings.key_over_http:
        raise ConfigError(
            f"the key in ${name} would go to {address.hostname} without encryption; give an https "
            "address, or llm.key_over_http=true if the network is yours"
        )
    return key
