"""TOML files that people write, such as model cards, as values: the form of their documents, and their errors."""

from typing import Any

from ..codec import Format, from_document
from ..errors import CardError, DocumentError

# No checkpoint has 10 TB, and beyond 2**53 a float would not hold a number. "unknown" stands for a number that nobody
# knows.
_FORMAT = Format(unknown="unknown", is_typed=True, longest_text=2000, largest_number=10**13)


def check(holds: bool, message: str) -> None:
    """Complain unless something holds.

    Raises:
        CardError: it does not.
    """
    if not holds:
        raise CardError(message)


def build(kind: Any, document: Any, location: str) -> Any:
    """A value of a type from decoded TOML; ``place`` is the file's name, for messages.

    Raises:
        CardError: a value has another type, or a table lacks a field or has an unknown one.
    """
    try:
        return from_document(kind, document, location, _FORMAT)
    except DocumentError as error:
        raise CardError(str(error)) from error
