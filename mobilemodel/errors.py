"""The errors of mobilemodel: one tree, whose statuses and codes are those of spec/errors.md.

MobileModelError
├── MalformedError            the input breaks its own rules                       exit 3
│   ├── NotABundleError, TruncatedError, TrailingDataError, MalformedWireError,
│   │   MalformedManifestError, MisplacedPayloadError, MalformedStreamError, MalformedContentError
│   └── MalformedSourceError  a model to convert, or data, that is broken
├── CorruptError              well framed, but damaged                              exit 1
│   └── ManifestChecksumError, PayloadChecksumError
├── UnsupportedError          well formed, but not for this reader                  exit 4
│   ├── UnsupportedVersionError, UnsupportedFeatureError, UnsupportedCodecError,
│   │   UnsupportedEncodingError, LimitExceededError
│   └── UnsupportedSourceError  a model that no converter, or no bundle, can express
├── CheckFailedError          a comparison said no                                  exit 1
├── OutputError               an output could not be written; nothing was changed   exit 1
└── UsageError                the call is wrong                                     exit 2
    └── TensorNotFoundError, OutputExistsError, PlanError, MissingDependencyError
"""

from __future__ import annotations

from typing import ClassVar


class MobileModelError(Exception):
    """Any failure that mobilemodel foresees; ``status`` and ``code`` are stable (spec/errors.md).

    >>> str(TruncatedError("file ends early", file="a.mm", offset=12, expected="40 bytes", found="12 bytes"))
    'a.mm: offset 0xc: file ends early: expected 40 bytes, found 12 bytes [TRUNCATED]'
    """

    status: ClassVar[str] = "ERROR"
    code: ClassVar[int] = 1
    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        layer: str | None = None,
        tensor: str | None = None,
        offset: int | None = None,
        expected: object = None,
        found: object = None,
        advice: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.file = file
        self.layer = layer
        self.tensor = tensor
        self.offset = offset
        self.expected = expected
        self.found = found
        self.advice = advice

    def within(
        self,
        *,
        file: str | None = None,
        layer: str | None = None,
        tensor: str | None = None,
        offset: int | None = None,
    ) -> MobileModelError:
        """Add the place where the error happened, unless a deeper caller has said it; return the same error."""
        self.file = self.file if self.file is not None else file
        self.layer = self.layer if self.layer is not None else layer
        self.tensor = self.tensor if self.tensor is not None else tensor
        self.offset = self.offset if self.offset is not None else offset
        return self

    def __str__(self) -> str:
        place = [
            escape(self.file) if self.file else "",
            f"layer '{escape(self.layer)}'" if self.layer is not None else "",
            f"tensor '{escape(self.tensor)}'" if self.tensor is not None else "",
            f"offset {self.offset:#x}" if self.offset is not None else "",
        ]
        text = ": ".join([part for part in place if part] + [self.message])
        if self.expected is not None:
            text += f": expected {escape(str(self.expected))}"
        if self.found is not None:
            text += f"{':' if self.expected is None else ','} found {escape(str(self.found))}"
        text += f" [{self.status}]"
        return f"{text}\n  {self.advice}" if self.advice else text


def escape(text: str, limit: int = 200) -> str:
    r"""Make text from a file fit to print: control, format and surrogate characters become escapes, long text is cut.

    >>> escape("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    shown = text if len(text) <= limit else text[:limit] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in shown)


class MalformedError(MobileModelError):
    status, code, exit_code = "MALFORMED", 3, 3


class NotABundleError(MalformedError):
    status, code = "NOT_A_BUNDLE", 10


class TruncatedError(MalformedError):
    status, code = "TRUNCATED", 11


class TrailingDataError(MalformedError):
    status, code = "TRAILING_DATA", 12


class MalformedWireError(MalformedError):
    status, code = "MALFORMED_WIRE", 14


class MalformedManifestError(MalformedError):
    status, code = "MALFORMED_MANIFEST", 15


class MisplacedPayloadError(MalformedError):
    status, code = "MISPLACED_PAYLOAD", 16


class MalformedStreamError(MalformedError):
    status, code = "MALFORMED_STREAM", 18


class MalformedContentError(MalformedError):
    status, code = "MALFORMED_CONTENT", 19


class MalformedSourceError(MalformedError):
    status, code = "MALFORMED_SOURCE", 50


class CorruptError(MobileModelError):
    status, code, exit_code = "CORRUPT", 2, 1


class ManifestChecksumError(CorruptError):
    status, code = "MANIFEST_CHECKSUM", 13


class PayloadChecksumError(CorruptError):
    status, code = "PAYLOAD_CHECKSUM", 17


class UnsupportedError(MobileModelError):
    status, code, exit_code = "UNSUPPORTED", 4, 4


class UnsupportedVersionError(UnsupportedError):
    status, code = "UNSUPPORTED_VERSION", 30


class UnsupportedFeatureError(UnsupportedError):
    status, code = "UNSUPPORTED_FEATURE", 31


class UnsupportedCodecError(UnsupportedError):
    status, code = "UNSUPPORTED_CODEC", 32


class UnsupportedEncodingError(UnsupportedError):
    status, code = "UNSUPPORTED_ENCODING", 33


class LimitExceededError(UnsupportedError):
    status, code = "LIMIT_EXCEEDED", 34


class UnsupportedSourceError(UnsupportedError):
    status, code = "UNSUPPORTED_SOURCE", 51


class CheckFailedError(MobileModelError):
    status, code, exit_code = "CHECK_FAILED", 60, 1


class OutputError(MobileModelError):
    status, code, exit_code = "OUTPUT_FAILED", 61, 1


class UsageError(MobileModelError):
    status, code, exit_code = "USAGE", 70, 2


class TensorNotFoundError(UsageError, KeyError):
    status, code = "TENSOR_NOT_FOUND", 71

    __str__ = MobileModelError.__str__


class OutputExistsError(UsageError):
    status, code = "OUTPUT_EXISTS", 72


class PlanError(UsageError):
    status, code = "PLAN", 73


class MissingDependencyError(UsageError):
    status, code = "MISSING_DEPENDENCY", 74
