"""XML that people hand over, whole or refused: one place that knows all the ways in which it is no XML."""

from xml.etree import ElementTree

from qaclims_ray.errors import DataError


def parse_xml(content: str | bytes) -> ElementTree.Element:
    """Return the outermost element.

    Args:
        content: of a file; bytes say their encoding themselves.

    Raises:
        DataError: with the reason alone, where it is cut short, no XML, or in an encoding that nobody knows.
    """
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # LookupError: an unknown encoding
        raise DataError(f"no whole XML ({error})") from None
