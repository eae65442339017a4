"""Addresses without what opens them: names and passwords that stand before the @ are for the library alone."""

import re

from qaclims_ray.errors import ConfigError

_CREDENTIALS = re.compile(
    r"(?<=://)(?:[^/:@\s]*:(?!\d+(?:[/?#\s]|$))[^@\s]*|[^/\s?#]*)@"  # a password may hold / ? and #; a port is none
    r"|(?<=[?&]password=)[^&\s]+",
)


def without_credentials(text: str) -> str:
    """Return an address, or a text that holds some, without user names and passwords: for messages, logs and pages."""
    return _CREDENTIALS.sub("", text)


def refuse_credentials(uri: str, what: str) -> None:
    """Refuse a place whose address holds a name or a password: places stand in logs, pages and files of a run.

    Args:
        uri: a path or URI.
        what: the setting or option that it was given as.

    Raises:
        ConfigError: when it does.
    """
    if _CREDENTIALS.search(uri):
        raise ConfigError(
            f"{what} holds a name or password before the @ of {without_credentials(uri)}; it would stand in logs, "
            "pages and the run's files. Take it out, and give it to the store's own library (for s3:// "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws/credentials)"
        )
