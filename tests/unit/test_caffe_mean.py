"""mean.binaryproto: Caffe's mean pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from mobilemodel.errors import MalformedSourceError
from mobilemodel_converters.caffe.mean import looks_like_mean, read_mean
from mobilemodel_converters.caffe.schema import message_class
from tests import caffe_files as files
from tests.caffe_files import blob, field


@pytest.mark.parametrize("legacy", [False, True])
def test_a_mean_picture(legacy: bool) -> None:
    """1 x C x H x W, or without the 1, becomes H x W x C."""
    planes = files.values(3, 4, 5)
    content = blob(planes if not legacy else planes[None], legacy=legacy).SerializeToString()
    assert looks_like_mean(content)
    assert (read_mean(content) == planes.transpose(1, 2, 0)).all()


def test_the_zoo_s_mean_picture(zoo: Path) -> None:
    """docs/formats/caffe.md §5: BGR means 78.4, 87.8, 114.9."""
    content = (zoo / "caffe/mean.binaryproto").read_bytes()
    assert looks_like_mean(content)
    picture = read_mean(content)
    assert picture.shape == (256, 256, 3)
    assert picture.mean((0, 1)) == pytest.approx([78.4, 87.8, 114.9], abs=0.05)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x2a\x7f", field(7, field(1, bytes([2, 3]))) + field(5, bytes(24)), b"\xff" * 20,
     message_class("BlobProto")(num=2, channels=1, height=1, width=1, data=[1, 2]).SerializeToString()],
)  # fmt: skip
def test_what_is_no_mean_picture(content: bytes) -> None:
    with pytest.raises(MalformedSourceError, match=r"the mean picture|values of shape"):
        read_mean(content)
