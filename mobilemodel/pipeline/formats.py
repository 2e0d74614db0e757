"""The source formats that this installation can read."""

from __future__ import annotations

from dataclasses import dataclass

from mobilemodel.errors import UsageError


@dataclass(frozen=True)
class SourceFormat:
    """A format that ``convert`` reads."""

    name: str
    """as ``--from`` takes it"""
    suffixes: tuple[str, ...]
    """file name endings for people; content decides"""
    provider: str
    """the installed package that reads it"""
    description: str
    status: str
    """``ready``, or why the package cannot be used"""


def source_formats() -> list[SourceFormat]:
    """All known formats, the built-in ones first; what a package's error hides is said in its ``status``."""
    from mobilemodel_converters import registrations

    found = []
    for registration in registrations():
        try:
            converter = registration.load()
        except UsageError as error:
            status = f"cannot be loaded: {error.found}"
            found.append(SourceFormat(registration.name, (), registration.provider, "", status))
        else:
            found.append(SourceFormat(registration.name, tuple(converter.suffixes), registration.provider,
                                      converter.description, "ready"))  # fmt: skip
    return found
