from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Codec(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CODEC_STORED: _ClassVar[Codec]
    CODEC_ZLIB: _ClassVar[Codec]
    CODEC_PNG: _ClassVar[Codec]
    CODEC_ZSTD: _ClassVar[Codec]

class ColourOrder(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COLOUR_ORDER_UNSPECIFIED: _ClassVar[ColourOrder]
    COLOUR_ORDER_RGB: _ClassVar[ColourOrder]
    COLOUR_ORDER_BGR: _ClassVar[ColourOrder]
    COLOUR_ORDER_GREY: _ClassVar[ColourOrder]

class Layout(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LAYOUT_UNSPECIFIED: _ClassVar[Layout]
    LAYOUT_NCHW: _ClassVar[Layout]
    LAYOUT_NHWC: _ClassVar[Layout]

class FloatType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FLOAT_TYPE_UNSPECIFIED: _ClassVar[FloatType]
    FLOAT_TYPE_F16: _ClassVar[FloatType]
    FLOAT_TYPE_F32: _ClassVar[FloatType]
CODEC_STORED: Codec
CODEC_ZLIB: Codec
CODEC_PNG: Codec
CODEC_ZSTD: Codec
COLOUR_ORDER_UNSPECIFIED: ColourOrder
COLOUR_ORDER_RGB: ColourOrder
COLOUR_ORDER_BGR: ColourOrder
COLOUR_ORDER_GREY: ColourOrder
LAYOUT_UNSPECIFIED: Layout
LAYOUT_NCHW: Layout
LAYOUT_NHWC: Layout
FLOAT_TYPE_UNSPECIFIED: FloatType
FLOAT_TYPE_F16: FloatType
FLOAT_TYPE_F32: FloatType

class Bundle(_message.Message):
    __slots__ = ("magic", "manifest_crc32", "manifest", "padding", "payload")
    MAGIC_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_CRC32_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    magic: int
    manifest_crc32: int
    manifest: Manifest
    padding: _containers.RepeatedScalarFieldContainer[bytes]
    payload: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, magic: _Optional[int] = ..., manifest_crc32: _Optional[int] = ..., manifest: _Optional[_Union[Manifest, _Mapping]] = ..., padding: _Optional[_Iterable[bytes]] = ..., payload: _Optional[_Iterable[bytes]] = ...) -> None: ...

class BundleEnvelope(_message.Message):
    __slots__ = ("magic", "manifest_crc32", "manifest", "padding", "payload")
    MAGIC_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_CRC32_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    magic: int
    manifest_crc32: int
    manifest: bytes
    padding: _containers.RepeatedScalarFieldContainer[bytes]
    payload: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, magic: _Optional[int] = ..., manifest_crc32: _Optional[int] = ..., manifest: _Optional[bytes] = ..., padding: _Optional[_Iterable[bytes]] = ..., payload: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Manifest(_message.Message):
    __slots__ = ("spec_major", "spec_minor", "required_features", "file_size", "producer", "sources", "licence", "description", "scheme", "inputs", "outputs", "preprocessing", "graph", "labels", "report", "tensors", "payloads")
    SPEC_MAJOR_FIELD_NUMBER: _ClassVar[int]
    SPEC_MINOR_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_FEATURES_FIELD_NUMBER: _ClassVar[int]
    FILE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    LICENCE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    SCHEME_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    PREPROCESSING_FIELD_NUMBER: _ClassVar[int]
    GRAPH_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    spec_major: int
    spec_minor: int
    required_features: _containers.RepeatedScalarFieldContainer[str]
    file_size: int
    producer: str
    sources: _containers.RepeatedCompositeFieldContainer[Source]
    licence: str
    description: str
    scheme: str
    inputs: _containers.RepeatedCompositeFieldContainer[ValueInfo]
    outputs: _containers.RepeatedCompositeFieldContainer[ValueInfo]
    preprocessing: _containers.RepeatedCompositeFieldContainer[Preprocessing]
    graph: int
    labels: int
    report: int
    tensors: _containers.RepeatedCompositeFieldContainer[Tensor]
    payloads: _containers.RepeatedCompositeFieldContainer[Payload]
    def __init__(self, spec_major: _Optional[int] = ..., spec_minor: _Optional[int] = ..., required_features: _Optional[_Iterable[str]] = ..., file_size: _Optional[int] = ..., producer: _Optional[str] = ..., sources: _Optional[_Iterable[_Union[Source, _Mapping]]] = ..., licence: _Optional[str] = ..., description: _Optional[str] = ..., scheme: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[ValueInfo, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[ValueInfo, _Mapping]]] = ..., preprocessing: _Optional[_Iterable[_Union[Preprocessing, _Mapping]]] = ..., graph: _Optional[int] = ..., labels: _Optional[int] = ..., report: _Optional[int] = ..., tensors: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., payloads: _Optional[_Iterable[_Union[Payload, _Mapping]]] = ...) -> None: ...

class Payload(_message.Message):
    __slots__ = ("offset", "stored_size", "raw_size", "crc32", "codec")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    STORED_SIZE_FIELD_NUMBER: _ClassVar[int]
    RAW_SIZE_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    offset: int
    stored_size: int
    raw_size: int
    crc32: int
    codec: int
    def __init__(self, offset: _Optional[int] = ..., stored_size: _Optional[int] = ..., raw_size: _Optional[int] = ..., crc32: _Optional[int] = ..., codec: _Optional[int] = ...) -> None: ...

class Source(_message.Message):
    __slots__ = ("format", "file_name", "sha256")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    FILE_NAME_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    format: str
    file_name: str
    sha256: bytes
    def __init__(self, format: _Optional[str] = ..., file_name: _Optional[str] = ..., sha256: _Optional[bytes] = ...) -> None: ...

class ValueInfo(_message.Message):
    __slots__ = ("name", "dtype", "shape")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: int
    shape: Shape
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[int] = ..., shape: _Optional[_Union[Shape, _Mapping]] = ...) -> None: ...

class Shape(_message.Message):
    __slots__ = ("dimensions",)
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    dimensions: _containers.RepeatedCompositeFieldContainer[Dimension]
    def __init__(self, dimensions: _Optional[_Iterable[_Union[Dimension, _Mapping]]] = ...) -> None: ...

class Dimension(_message.Message):
    __slots__ = ("size", "symbol")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    size: int
    symbol: str
    def __init__(self, size: _Optional[int] = ..., symbol: _Optional[str] = ...) -> None: ...

class Preprocessing(_message.Message):
    __slots__ = ("input", "resize", "crop_height", "crop_width", "colour_order", "mean", "mean_picture", "scale", "layout")
    INPUT_FIELD_NUMBER: _ClassVar[int]
    RESIZE_FIELD_NUMBER: _ClassVar[int]
    CROP_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    CROP_WIDTH_FIELD_NUMBER: _ClassVar[int]
    COLOUR_ORDER_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    MEAN_PICTURE_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    input: str
    resize: Resize
    crop_height: int
    crop_width: int
    colour_order: ColourOrder
    mean: _containers.RepeatedScalarFieldContainer[float]
    mean_picture: MeanPicture
    scale: _containers.RepeatedScalarFieldContainer[float]
    layout: Layout
    def __init__(self, input: _Optional[str] = ..., resize: _Optional[_Union[Resize, _Mapping]] = ..., crop_height: _Optional[int] = ..., crop_width: _Optional[int] = ..., colour_order: _Optional[_Union[ColourOrder, str]] = ..., mean: _Optional[_Iterable[float]] = ..., mean_picture: _Optional[_Union[MeanPicture, _Mapping]] = ..., scale: _Optional[_Iterable[float]] = ..., layout: _Optional[_Union[Layout, str]] = ...) -> None: ...

class Resize(_message.Message):
    __slots__ = ("mode", "height", "width", "kernel", "antialias")
    class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        MODE_NONE: _ClassVar[Resize.Mode]
        MODE_WARP: _ClassVar[Resize.Mode]
        MODE_SHORT: _ClassVar[Resize.Mode]
        MODE_FIT: _ClassVar[Resize.Mode]
    MODE_NONE: Resize.Mode
    MODE_WARP: Resize.Mode
    MODE_SHORT: Resize.Mode
    MODE_FIT: Resize.Mode
    class Kernel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KERNEL_NEAREST: _ClassVar[Resize.Kernel]
        KERNEL_BILINEAR_HALF_PIXEL: _ClassVar[Resize.Kernel]
        KERNEL_BILINEAR_CORNERS: _ClassVar[Resize.Kernel]
        KERNEL_AREA: _ClassVar[Resize.Kernel]
        KERNEL_BICUBIC: _ClassVar[Resize.Kernel]
    KERNEL_NEAREST: Resize.Kernel
    KERNEL_BILINEAR_HALF_PIXEL: Resize.Kernel
    KERNEL_BILINEAR_CORNERS: Resize.Kernel
    KERNEL_AREA: Resize.Kernel
    KERNEL_BICUBIC: Resize.Kernel
    MODE_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    ANTIALIAS_FIELD_NUMBER: _ClassVar[int]
    mode: Resize.Mode
    height: int
    width: int
    kernel: Resize.Kernel
    antialias: bool
    def __init__(self, mode: _Optional[_Union[Resize.Mode, str]] = ..., height: _Optional[int] = ..., width: _Optional[int] = ..., kernel: _Optional[_Union[Resize.Kernel, str]] = ..., antialias: bool = ...) -> None: ...

class MeanPicture(_message.Message):
    __slots__ = ("payload", "height", "width")
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    payload: int
    height: int
    width: int
    def __init__(self, payload: _Optional[int] = ..., height: _Optional[int] = ..., width: _Optional[int] = ...) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("name", "dtype", "dims", "required_features", "dense", "palette", "affine", "loss")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    DIMS_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_FEATURES_FIELD_NUMBER: _ClassVar[int]
    DENSE_FIELD_NUMBER: _ClassVar[int]
    PALETTE_FIELD_NUMBER: _ClassVar[int]
    AFFINE_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: int
    dims: _containers.RepeatedScalarFieldContainer[int]
    required_features: _containers.RepeatedScalarFieldContainer[str]
    dense: Dense
    palette: Palette
    affine: Affine
    loss: Loss
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[int] = ..., dims: _Optional[_Iterable[int]] = ..., required_features: _Optional[_Iterable[str]] = ..., dense: _Optional[_Union[Dense, _Mapping]] = ..., palette: _Optional[_Union[Palette, _Mapping]] = ..., affine: _Optional[_Union[Affine, _Mapping]] = ..., loss: _Optional[_Union[Loss, _Mapping]] = ...) -> None: ...

class Loss(_message.Message):
    __slots__ = ("sqnr_millidb", "largest_error")
    SQNR_MILLIDB_FIELD_NUMBER: _ClassVar[int]
    LARGEST_ERROR_FIELD_NUMBER: _ClassVar[int]
    sqnr_millidb: int
    largest_error: int
    def __init__(self, sqnr_millidb: _Optional[int] = ..., largest_error: _Optional[int] = ...) -> None: ...

class Slice(_message.Message):
    __slots__ = ("payload", "offset", "size")
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    payload: int
    offset: int
    size: int
    def __init__(self, payload: _Optional[int] = ..., offset: _Optional[int] = ..., size: _Optional[int] = ...) -> None: ...

class Grouping(_message.Message):
    __slots__ = ("row_group", "col_group")
    ROW_GROUP_FIELD_NUMBER: _ClassVar[int]
    COL_GROUP_FIELD_NUMBER: _ClassVar[int]
    row_group: int
    col_group: int
    def __init__(self, row_group: _Optional[int] = ..., col_group: _Optional[int] = ...) -> None: ...

class Codes(_message.Message):
    __slots__ = ("view", "perm", "row_axes", "depth", "vector", "segment", "rows_per_block", "first_payload", "split", "background")
    VIEW_FIELD_NUMBER: _ClassVar[int]
    PERM_FIELD_NUMBER: _ClassVar[int]
    ROW_AXES_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    ROWS_PER_BLOCK_FIELD_NUMBER: _ClassVar[int]
    FIRST_PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    BACKGROUND_FIELD_NUMBER: _ClassVar[int]
    view: _containers.RepeatedScalarFieldContainer[int]
    perm: _containers.RepeatedScalarFieldContainer[int]
    row_axes: int
    depth: int
    vector: int
    segment: int
    rows_per_block: int
    first_payload: int
    split: bool
    background: int
    def __init__(self, view: _Optional[_Iterable[int]] = ..., perm: _Optional[_Iterable[int]] = ..., row_axes: _Optional[int] = ..., depth: _Optional[int] = ..., vector: _Optional[int] = ..., segment: _Optional[int] = ..., rows_per_block: _Optional[int] = ..., first_payload: _Optional[int] = ..., split: bool = ..., background: _Optional[int] = ...) -> None: ...

class Palette(_message.Message):
    __slots__ = ("codes", "entries", "table_type", "tables", "tables_by", "scales", "scales_by", "scale_type")
    CODES_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    TABLE_TYPE_FIELD_NUMBER: _ClassVar[int]
    TABLES_FIELD_NUMBER: _ClassVar[int]
    TABLES_BY_FIELD_NUMBER: _ClassVar[int]
    SCALES_FIELD_NUMBER: _ClassVar[int]
    SCALES_BY_FIELD_NUMBER: _ClassVar[int]
    SCALE_TYPE_FIELD_NUMBER: _ClassVar[int]
    codes: Codes
    entries: int
    table_type: FloatType
    tables: Slice
    tables_by: Grouping
    scales: Slice
    scales_by: Grouping
    scale_type: FloatType
    def __init__(self, codes: _Optional[_Union[Codes, _Mapping]] = ..., entries: _Optional[int] = ..., table_type: _Optional[_Union[FloatType, str]] = ..., tables: _Optional[_Union[Slice, _Mapping]] = ..., tables_by: _Optional[_Union[Grouping, _Mapping]] = ..., scales: _Optional[_Union[Slice, _Mapping]] = ..., scales_by: _Optional[_Union[Grouping, _Mapping]] = ..., scale_type: _Optional[_Union[FloatType, str]] = ...) -> None: ...

class Affine(_message.Message):
    __slots__ = ("codes", "scales", "zeros", "by")
    CODES_FIELD_NUMBER: _ClassVar[int]
    SCALES_FIELD_NUMBER: _ClassVar[int]
    ZEROS_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    codes: Codes
    scales: Slice
    zeros: Slice
    by: Grouping
    def __init__(self, codes: _Optional[_Union[Codes, _Mapping]] = ..., scales: _Optional[_Union[Slice, _Mapping]] = ..., zeros: _Optional[_Union[Slice, _Mapping]] = ..., by: _Optional[_Union[Grouping, _Mapping]] = ...) -> None: ...

class Dense(_message.Message):
    __slots__ = ("stored_dtype", "chunk_elements", "first_payload", "byte_planes", "small")
    STORED_DTYPE_FIELD_NUMBER: _ClassVar[int]
    CHUNK_ELEMENTS_FIELD_NUMBER: _ClassVar[int]
    FIRST_PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    BYTE_PLANES_FIELD_NUMBER: _ClassVar[int]
    SMALL_FIELD_NUMBER: _ClassVar[int]
    stored_dtype: int
    chunk_elements: int
    first_payload: int
    byte_planes: bool
    small: Slice
    def __init__(self, stored_dtype: _Optional[int] = ..., chunk_elements: _Optional[int] = ..., first_payload: _Optional[int] = ..., byte_planes: bool = ..., small: _Optional[_Union[Slice, _Mapping]] = ...) -> None: ...
