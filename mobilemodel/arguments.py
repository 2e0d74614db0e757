"""The command line's arguments: what each command takes, and its help."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mobilemodel.model import SourceOptions

Command = Callable[[argparse.Namespace], int]
"""runs a command with its arguments; returns the exit code"""
Commands = argparse._SubParsersAction  # argparse has no public name for it
EXIT_CODES = """\
exit codes: 0 done; 1 a check said no, or an output could not be written; 2 wrong usage; 3 malformed input;
4 well formed but not supported; 130 interrupted.  Data go to stdout, everything else to stderr."""
EXAMPLES = """\
examples:
  mobilemodel convert alexnet.onnx out.mm --scheme mixed-4-8
  mobilemodel inspect out.mm
  mobilemodel verify out.mm --against alexnet.onnx
  mobilemodel eval alexnet.onnx out.mm --data pictures/
  mobilemodel export out.mm again.onnx
"""
PREPROCESSING = """\
preprocessing is resize, crop, channel order, then (x - mean) * scale on pixels of 0 to 255. It is kept in the bundle
for the applications that read it; the network is not changed."""

EVALUATION = """\
pictures are prepared as the options say, else as each bundle says; a model that says nothing takes what the first
bundle says. docs/eval.md explains every number."""

DRAWING = """\
give these to convert as --calibration. Take the size that the network's pictures have once they are resized.
docs/calibration.md tells what to expect."""

EXPORT = """\
a .sqlite3 is a ccv convnet. It takes networks of convolutions with ReLU, pools and LRN, then FC layers, the last one
without ReLU (Softmax is implied); another graph is refused, and the first node that does not fit is named."""


def command_line(runs: Mapping[str, Command]) -> argparse.ArgumentParser:
    """The whole command line; ``runs`` holds what runs each command."""
    from mobilemodel import FORMAT_VERSION, __version__

    top = argparse.ArgumentParser(
        "mobilemodel", description="Small bundles of trained networks for phones.", epilog=f"{EXAMPLES}\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    version = f"mobilemodel {__version__}, format {FORMAT_VERSION}, codecs stored zlib png zstd"
    top.add_argument("--version", "-V", action="version", version=version)
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_convert(commands)
    _add_inspect(commands)
    _add_verify(commands)
    _add_eval(commands)
    _add_draw(commands)
    _add_export(commands)
    _add_converters(commands)
    for name, parser in commands.choices.items():
        parser.set_defaults(run=runs[name])
    return top


def _command(
    commands: Commands[argparse.ArgumentParser], name: str, what: str, more: str = ""
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name, help=what, description=f"{what[0].upper()}{what[1:]}.", epilog=f"{more}\n\n{EXIT_CODES}".lstrip(),
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip


def _add_converters(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "converters", "list the source formats")
    parser.add_argument("--json", action="store_true", help="as JSON (docs/json.md)")


def _add_convert(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "convert", "convert a trained network to a bundle", PREPROCESSING)
    add = parser.add_argument
    add("sources", nargs="+", metavar="SRC", help="the model's file or files")
    add("out", metavar="OUT", help="the bundle to write, such as out.mm")
    add("--scheme", default="auto", metavar="NAME|FILE.toml",
        help="auto (default), qcnn, lossless, fp16, int8, kmeans-8|4|2|1, mixed-4-8, palette-8|6|4, "
        "or a plan")  # fmt: skip
    add("--codec", choices=("auto", "zstd", "png"), default="auto", help="what packs the codes")
    add("--profile", choices=("full", "baseline"), default="full", help="baseline: readers need no zstd")
    _add_source_options(parser)
    add("--dry-run", action="store_true", help="report, and write nothing")
    add("--json", action="store_true", help="the report as JSON (docs/json.md)")
    add("--force", action="store_true", help="replace an existing output")
    add("--labels", metavar="F", help="class names, one on each line")
    _add_preprocessing(parser)
    _add_fitting(parser)
    _add_transforms(parser)
    add("--licence", default="", metavar="SPDX", help="licence of the model, such as Apache-2.0")
    add("--description", default="", metavar="TEXT", help="kept in the bundle")


def _add_fitting(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("calibration and search (docs/calibration.md, docs/search.md)").add_argument
    add("--calibration", metavar="DATA", help="pictures as eval's --data; layers are fitted to the network's responses")
    add("--held-out", type=_count, metavar="N",
        help="samples that only judge (default with a goal: a quarter; a sixteenth for a size)")  # fmt: skip
    add("--no-mirror", action="store_true", help="do not use pictures mirrored, too")
    add("--seed", type=_count, default=1, metavar="N", help="of what is drawn by chance (default 1)")
    add("--threads", type=_count, default=1, metavar="N", help="of ONNX Runtime; the bytes do not depend on them")
    add("--target-size", type=_size, metavar="SIZE", help="4MiB, 1.5MB or bytes: the best file of at most this size")
    add("--max-drop", type=_tolerance, metavar="POINTS", help="the smallest file that loses at most so much top-1")
    add("--max-divergence", type=_tolerance, metavar="NATS", help="the same for the outputs' divergence: no labels")
    add("--search", choices=("fast", "thorough"), default="fast", help="thorough: a price factor for each tensor")
    add("--executor", default="serial", metavar="SPEC", help="serial, threads:N, processes:N or dask://HOST:PORT")
    add("--width", type=_count, default=1, metavar="N", help="candidates evaluated side by side (default 1)")
    add("--save-plan", metavar="FILE.toml", help="where the plan that was found goes (default: OUT.toml)")


def _add_transforms(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("transforms of the graph (docs/transforms.md)").add_argument
    add("--fold", action="store_true", help="BatchNormalization and scales into the weights before them")
    add("--remove-duplicates", action="store_true", help="equal tensors and equal nodes become one")
    add("--remove-dead", action="store_true", help="nodes, weights and units that no output needs")
    add("--order-units", action="store_true", help="hidden units by their norm: the codes take less, and no unit cares")
    add("--low-rank", action="append", default=[], metavar="PATTERN=RANK|SHARE", help="split layers in two")
    add("--sparsity", action="append", default=[], metavar="PATTERN=SHARE", help="set this share of weights to zero")


def _size(text: str) -> int:
    from mobilemodel.converting import size_of

    return size_of(text)


def _add_preprocessing(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--mean", metavar="F|V,V,V", help="subtracted: one value, one a channel, or a picture: .npy, .binaryproto")
    add("--scale", metavar="S|S,S,S", help="multiplies what is left")
    add("--channels", choices=("rgb", "bgr", "grey"),
        help="what the input takes (default rgb; bgr beside a .binaryproto)")  # fmt: skip
    add("--resize", metavar="MODE", help="short:256, fit:320x240 or 256x256 (height x width), "
        "then :nearest, :bilinear (default), :corners, :area or :bicubic")  # fmt: skip
    add("--crop", metavar="SIZE", help="227, or height x width as 224x192, from the centre")


def _add_eval(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "eval", "measure models on data, and compare each with the first", EVALUATION)
    add = parser.add_argument
    add("models", nargs="+", metavar="MODEL", help="a bundle or an .onnx file; its content tells which")
    add("--data", required=True, metavar="DATA", help="a .npz file (x, y), a folder with labels.tsv, a folder of a "
        "folder for each class, or a folder of pictures")  # fmt: skip
    add("--limit", type=_count, metavar="N", help="look at N samples, evenly spread over the data")
    add("--views", type=int, choices=(1, 10), default=1,
        help="10: the probabilities of corners and centre, also mirrored, are averaged")  # fmt: skip
    add("--threads", type=_count, default=1, metavar="N", help="threads of ONNX Runtime (default 1)")
    add("--json", action="store_true", help="as JSON (docs/json.md)")
    _add_preprocessing(parser)


def _add_draw(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "draw", "draw pictures by chance, to calibrate with where there are no others", DRAWING)
    add = parser.add_argument
    add("out", metavar="FILE.npz", help="the data to write")
    add("--size", required=True, type=_picture_size, metavar="SIZE", help="height x width, such as 32x32")
    add("--count", type=_count, default=4096, metavar="N", help="how many (default 4096)")
    add("--seed", type=_count, default=1, metavar="N", help="another seed draws others (default 1)")
    add("--force", action="store_true", help="replace an existing output")


def _picture_size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,6})x([0-9]{1,6})", text, re.ASCII)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected height x width, such as 32x32, found {text!r}")
    return int(found[1]), int(found[2])


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= len(text) < 10 and int(text)):
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, found {text!r}")
    return int(text)


def _add_inspect(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "inspect", "list a bundle, or one of its tensors, without decoding it")
    parser.add_argument("bundle", metavar="OUT", help="the bundle")
    parser.add_argument("tensor", nargs="?", metavar="TENSOR", help="the name of a tensor: all that is known of it")
    parser.add_argument("--json", action="store_true", help="as JSON (docs/json.md)")


def _add_verify(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "verify", "read every byte of a bundle, and compare it with its source")
    parser.add_argument("bundle", metavar="OUT", help="the bundle")
    parser.add_argument("--against", nargs="+", default=[], metavar="SRC", help="the model that it was made from")
    _add_source_options(parser)
    parser.add_argument("--tolerance", type=_tolerance, metavar="X",
                        help="largest difference of an output relative to its largest value, such as 0.05")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="as JSON (docs/json.md)")


def _add_source_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--from", dest="converter", metavar="FORMAT", help="the source's format, where its content does not tell")
    add("--topology", default="", metavar="NAME", help="Q-CNN: alexnet, caffenet, vgg-cnn-s or vgg16")
    add("--png", action="append", default=[], type=_layer_picture, metavar="LAYER=FILE",
        help="ccv: the picture that holds the codes of a layer, where it is not beside the database")  # fmt: skip
    add("--input-shape", default=(), type=_input_shape, metavar="SIZES",
        help="Caffe: sizes of the input, N x C x H x W, ? for any: 1x3x227x227, 1x3x?x?")  # fmt: skip


def source_options(options: argparse.Namespace) -> SourceOptions:
    """What the arguments say of the source beside its files. Raises UsageError for two pictures of one layer."""
    from mobilemodel.errors import UsageError
    from mobilemodel.model import SourceOptions

    pictures = dict(options.png)
    if len(pictures) < len(options.png):
        raise UsageError("--png names a layer twice", found=", ".join(layer for layer, _ in options.png))
    return SourceOptions(options.topology, pictures, options.input_shape)


def _layer_picture(text: str) -> tuple[str, str]:
    layer, equals, file = text.partition("=")
    if not (layer and equals and file):
        raise argparse.ArgumentTypeError(f"expected LAYER=FILE, found {text!r}")
    return layer, file


def _input_shape(text: str) -> tuple[int | None, ...]:
    parts = text.split("x")
    sizes = [part == "?" or (part.isascii() and part.isdigit() and len(part) < 9) for part in parts]
    if not all(sizes) or len(parts) > 8:
        raise argparse.ArgumentTypeError(f"expected sizes with x between, ? for any: 1x3x227x227, found {text!r}")
    return tuple(None if part == "?" else int(part) for part in parts)


def _tolerance(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number from 0 on, found {text!r}")
    return value


def _add_export(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "export", "write a bundle's content as a plain file", EXPORT)
    parser.add_argument("bundle", metavar="OUT", help="the bundle")
    parser.add_argument("file", metavar="FILE", help="ends in .onnx, .npz, .safetensors or .sqlite3 (ccv)")
    parser.add_argument("--klaus", action="store_true",
                        help=".sqlite3: quantized FC layers as pictures beside it, such as layer-11.png")  # fmt: skip
    parser.add_argument("--force", action="store_true", help="replace existing files")
