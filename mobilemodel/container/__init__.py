"""Bytes <-> manifest and payloads (spec/container.md); nothing here decodes a payload."""

from mobilemodel.container.reader import Container, open_bytes, open_file, parse_message
from mobilemodel.container.writer import Spool, write_container

__all__ = ["Container", "Spool", "open_bytes", "open_file", "parse_message", "write_container"]
