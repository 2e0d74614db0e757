"""The schema, its generated code and stock protobuf tools agree."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet

from mobilemodel.v1 import bundle_pb2 as pb

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = "mobilemodel/v1/bundle.proto"


def protoc(*arguments: str, stdin: bytes = b"") -> bytes:
    """Run protoc, as grpcio-tools brings it."""
    command = [sys.executable, "-W", "ignore", "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}", *arguments, SCHEMA]
    done = subprocess.run(command, input=stdin, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def forget_json_names(message: DescriptorProto) -> None:
    """protoc writes them into descriptor sets but not into Python code."""
    for field in message.field:
        field.ClearField("json_name")
    for nested in message.nested_type:
        forget_json_names(nested)


def test_the_checked_in_code_is_that_of_the_schema(tmp_path: Path) -> None:
    out = tmp_path / "schema.binpb"
    protoc(f"--descriptor_set_out={out}")
    (schema,) = FileDescriptorSet.FromString(out.read_bytes()).file
    generated = FileDescriptorProto.FromString(pb.DESCRIPTOR.serialized_pb)
    for message in schema.message_type:
        forget_json_names(message)
    assert schema == generated


def test_protoc_decodes_a_bundle() -> None:
    """A bundle is one protobuf message: protoc --decode prints it."""
    bundle = (ROOT / "spec/vectors/valid/dense-small.mm").read_bytes()
    text = protoc("--decode=mobilemodel.v1.Bundle", stdin=bundle).decode()
    assert text.startswith(f"magic: {0x31424D4D}\n")
    assert 'tensors {\n    name: "w"' in text
    assert text.count("\npayload: ") == 1
