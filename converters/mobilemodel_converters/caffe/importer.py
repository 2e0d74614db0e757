"""Caffe files -> Model: what they say is read, cut down to inference, joined with its weights, and translated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from mobilemodel.errors import MalformedSourceError, MobileModelError, UsageError, escape
from mobilemodel.model import Model, SourceOptions
from mobilemodel.v1 import bundle_pb2 as pb
from mobilemodel_converters.caffe import inputs, transform, weights
from mobilemodel_converters.caffe.binary import read_binary
from mobilemodel_converters.caffe.net import Net, StoredNet
from mobilemodel_converters.caffe.phases import by_phase
from mobilemodel_converters.caffe.prune import prune
from mobilemodel_converters.caffe.sniff import is_text
from mobilemodel_converters.caffe.text import TEXT_LIMIT, read_text
from mobilemodel_converters.caffe.translate import translate
from mobilemodel_converters.sources import OpenedFile


def read_topology(path: Path, options: SourceOptions) -> Net:
    """The network of a prototxt for inference, its layers without blobs: whoever calls fills those in.

    Raises MalformedSourceError, UnsupportedSourceError, LimitExceededError and UsageError, all naming the file.
    """
    with _naming(path), OpenedFile(path) as file:
        return inputs.resolve(for_inference(read_stored(file)), options)


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
    topology, trained = stored[described], stored[weighted]
    with _naming(files[described].path):
        net = for_inference(topology)
    names = (*weights.repeated_note(net.layers), *weights.unused_note(topology.layers, trained.layers))
    with _naming(files[weighted].path):
        net = weights.attach(net, trained.layers)
    with _naming(*(file.path for file in files)):
        net = inputs.resolve(net, options)
        steps, said = _preprocessing(net, trained)
        return translate(net, sources=[file.record("caffe") for file in files], preprocessing=steps,
                         notes=(*names, *trained.notes, *said), close=close)  # fmt: skip


def read_stored(file: OpenedFile) -> StoredNet:
    """What a prototxt or caffemodel says, whichever it is."""
    if not file.size:
        raise MalformedSourceError("the file is empty")
    if is_text(file):
        return read_text(file.read(0, min(file.size, TEXT_LIMIT + 1)))
    return read_binary(file)


def for_inference(stored: StoredNet) -> Net:
    """The network as it is used; what the file does not say of its inputs and layers' values is still missing.

    Raises MalformedSourceError for rules or shapes that contradict each other, UnsupportedSourceError where nothing
    is left.
    """
    there, _ = by_phase(stored)
    layers = tuple(layer for layer in there if not inputs.is_feed(layer))
    net = prune(Net(stored.parameter.name, tuple(inputs.feeds(stored).values()), layers))
    notes = (
        f"the input '{escape(item.name)}' takes the place of the data layer '{escape(item.layer.name)}'"
        for item in net.inputs
        if item.layer is not None and item.layer.type in inputs.DATA_LAYERS
    )
    return replace(net, notes=(*net.notes, *notes))


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


def _preprocessing(net: Net, trained: StoredNet) -> tuple[tuple[pb.Preprocessing, ...], tuple[str, ...]]:
    """What is said of the one input's pictures: by its own data layer, else by one beside the weights, and notes."""
    if len(net.inputs) != 1:
        return (), ()
    feeds = (*net.inputs, *inputs.feeds(trained).values())
    said = [item.transformation for item in feeds if item.transformation is not None]
    return (transform.preprocessing(net.inputs[0], said[0]), transform.notes(said[0])) if said else ((), ())


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
