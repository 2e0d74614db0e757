"""Caffe files -> Model: what they say is read, cut down to inference, joined with its weights, and translated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from mobilemodel.errors import MalformedSourceError, MobileModelError, UsageError, escape
from mobilemodel.model import Model, SourceOptions
from mobilemodel.v1 import bundle_pb2 as pb
from mobilemodel_converters.caffe import inputs, transform, weights
from mobilemodel_converters.caffe.file import read_binary
from mobilemodel_converters.caffe.inputs import DATA_LAYERS, Feed
from mobilemodel_converters.caffe.net import Input, Layer, Net
from mobilemodel_converters.caffe.prune import prune
from mobilemodel_converters.caffe.select import for_inference
from mobilemodel_converters.caffe.sniff import is_text
from mobilemodel_converters.caffe.stored import StoredNet
from mobilemodel_converters.caffe.text import TEXT_LIMIT, read_text
from mobilemodel_converters.caffe.translate import translate
from mobilemodel_converters.sources import OpenedFile

_HEAD = 4096


@dataclass(frozen=True)
class Topology:
    """What a file says of a network for inference."""

    name: str
    layers: tuple[Layer, ...]
    feeds: tuple[Feed, ...]
    """what the layers take from outside, in the order of the file"""
    outputs: tuple[str, ...]
    notes: tuple[str, ...]


def read_topology(path: Path, options: SourceOptions) -> Net:
    """The network of a prototxt for inference, its layers without blobs: whoever calls fills those in.

    Raises MalformedSourceError, UnsupportedSourceError, LimitExceededError and UsageError, all naming the file.
    """
    with _naming(path), OpenedFile(path) as file:
        topology = topology_of(read_stored(file))
        found = inputs.resolve(topology.feeds, topology.layers, options)
        return Net(topology.name, found, topology.layers, topology.outputs, topology.notes)


def load_model(paths: Sequence[Path], options: SourceOptions) -> Model:
    """Read one or two Caffe files (see ``CaffeConverter.load``)."""
    files = ExitStack()
    try:
        return _load([files.enter_context(OpenedFile(path)) for path in paths], options, files.close)
    except BaseException:
        files.close()
        raise


def _load(files: Sequence[OpenedFile], options: SourceOptions, close: Callable[[], None]) -> Model:
    stored = []
    for file in files:
        with _naming(file.path):
            stored.append(read_stored(file))
    described, weighted = _parts(files, stored)
    with _naming(files[described].path):
        topology = topology_of(stored[described])
    with _naming(files[weighted].path):
        layers = weights.attach(topology.layers, stored[weighted].layers)
    with _naming(*(file.path for file in files)):
        found = inputs.resolve(topology.feeds, layers, options)
        steps, said = _preprocessing(topology, found, stored[weighted])
        names = (*weights.repeated_note(topology.layers),
                 *weights.unused_note(stored[described].layers, stored[weighted].layers))  # fmt: skip
        return translate(
            Net(topology.name, found, layers, topology.outputs), sources=[file.record("caffe") for file in files],
            preprocessing=steps, notes=(*topology.notes, *names, *stored[weighted].notes, *said), close=close,
        )  # fmt: skip


def read_stored(file: OpenedFile) -> StoredNet:
    """What a prototxt or caffemodel says, whichever it is."""
    if not file.size:
        raise MalformedSourceError("the file is empty")
    if is_text(file.read(0, min(file.size, _HEAD))):
        return read_text(file.read(0, min(file.size, TEXT_LIMIT + 1)))
    return read_binary(file)


def topology_of(stored: StoredNet) -> Topology:
    """The network as it is used.

    Raises MalformedSourceError for rules or shapes that contradict each other, UnsupportedSourceError where nothing
    is left.
    """
    there, absent = for_inference(stored.layers, stored.parameter.state)
    pruned = prune([layer for layer in there if not inputs.is_feed(layer)])
    # A snapshot of training has data layers of phase TRAIN alone: they still name what comes in.
    known = inputs.feeds(stored.parameter, (*there, *absent))
    free = frozenset(pruned.free)
    feeds = tuple(feed for name, feed in known.items() if name in free)
    notes = tuple(
        f"the input '{escape(feed.name)}' takes the place of the data layer '{escape(feed.layer.name)}'"
        for feed in feeds
        if feed.layer is not None and feed.layer.type in DATA_LAYERS
    )
    return Topology(stored.parameter.name, pruned.layers, feeds, pruned.outputs, (*pruned.notes, *notes))


def _parts(opened: Sequence[OpenedFile], stored: Sequence[StoredNet]) -> tuple[int, int]:
    """Which file describes the network, and which one has its weights; one file may do both."""
    with_blobs = [index for index, net in enumerate(stored) if net.has_blobs]
    if not with_blobs:
        raise UsageError("the files hold no weights", file=str(opened[0].path),
                         advice="Name the caffemodel too: convert deploy.prototxt net.caffemodel out.mm")  # fmt: skip
    if len(with_blobs) > 1:
        raise UsageError("both files hold weights", file=str(opened[0].path),
                         advice="Name the prototxt and one caffemodel, or one caffemodel alone.")  # fmt: skip
    return (1 - with_blobs[0] if len(stored) > 1 else 0), with_blobs[0]


def _preprocessing(
    topology: Topology, found: Sequence[Input], weighted: StoredNet
) -> tuple[tuple[pb.Preprocessing, ...], tuple[str, ...]]:
    """What is said of the one input's pictures: by its own data layer, else by one beside the weights, and notes."""
    if len(found) != 1:
        return (), ()
    there, absent = for_inference(weighted.layers, weighted.parameter.state)
    saved = inputs.feeds(weighted.parameter, (*there, *absent)).values()
    said = [feed.transformation for feed in (*topology.feeds, *saved) if feed.transformation is not None]
    return (transform.preprocessing(found[0], said[0]), transform.notes(said[0])) if said else ((), ())


@contextmanager
def _naming(*paths: Path) -> Iterator[None]:
    """Name the files in the errors that are raised inside."""
    try:
        yield
    except MobileModelError as error:
        raise error.within(file=" with ".join(map(str, paths))) from None
    except UnicodeDecodeError:
        raise MalformedSourceError("a name is not UTF-8", file=str(paths[0])) from None
    except RecursionError:
        raise MalformedSourceError("messages are nested too deep", file=str(paths[0])) from None
