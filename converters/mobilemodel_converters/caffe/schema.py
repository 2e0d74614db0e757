"""The part of Caffe's schema that inference needs, in a descriptor pool of its own.

A pool of its own: in the default one the messages would collide with those of an installed Caffe, and forks of Caffe
use the same numbers for other fields. Field names and numbers are facts of the format; text files need the names.
"""

from __future__ import annotations

from functools import cache
from typing import Any

_SYNTAX = "proto2"
_PACKAGE = "mobilemodel.caffe"
# Forks write ceil_mode where Caffe has round_mode, under the same number: in text alone they can be told apart, so it
# has a number here that no file has.
# message -> fields: name, number, type (a message, an enum or a scalar), "*" repeated, "=" default.
_MESSAGES = {
    "BlobShape": "dim 1 int64*",
    "BlobProto": """num 1 int32, channels 2 int32, height 3 int32, width 4 int32, data 5 float*, shape 7 BlobShape,
        double_data 8 double*""",
    "NetParameter": """name 1 string, layers 2 V1LayerParameter*, input 3 string*, input_dim 4 int32*, state 6 NetState,
        input_shape 8 BlobShape*, layer 100 LayerParameter*""",
    "NetState": "phase 1 Phase=TEST, level 2 int32=0, stage 3 string*",
    "NetStateRule": "phase 1 Phase, min_level 2 int32, max_level 3 int32, stage 4 string*, not_stage 5 string*",
    "ParamSpec": "name 1 string",
    "FillerParameter": "type 1 string=constant, value 2 float=0",
    "LayerParameter": """name 1 string, type 2 string, bottom 3 string*, top 4 string*, param 6 ParamSpec*,
        blobs 7 BlobProto*, include 8 NetStateRule*, exclude 9 NetStateRule*, phase 10 Phase,
        transform_param 100 TransformationParameter, argmax_param 103 ArgMaxParameter, concat_param 104 ConcatParameter,
        convolution_param 106 ConvolutionParameter, data_param 107 DataParameter,
        dummy_data_param 109 DummyDataParameter, eltwise_param 110 EltwiseParameter, exp_param 111 ExpParameter,
        image_data_param 115 DataParameter, inner_product_param 117 InnerProductParameter, lrn_param 118 LRNParameter,
        memory_data_param 119 MemoryDataParameter, mvn_param 120 MVNParameter, pooling_param 121 PoolingParameter,
        power_param 122 PowerParameter, relu_param 123 ReLUParameter, softmax_param 125 SoftmaxParameter,
        slice_param 126 SliceParameter, threshold_param 128 ThresholdParameter,
        window_data_param 129 DataParameter, prelu_param 131 PReLUParameter,
        spp_param 132 SPPParameter, reshape_param 133 ReshapeParameter, log_param 134 ExpParameter,
        flatten_param 135 FlattenParameter, reduction_param 136 ReductionParameter, embed_param 137 EmbedParameter,
        tile_param 138 TileParameter, batch_norm_param 139 BatchNormParameter, elu_param 140 ELUParameter,
        bias_param 141 BiasParameter, scale_param 142 ScaleParameter, input_param 143 InputParameter,
        crop_param 144 CropParameter, parameter_param 145 ParameterParameter, swish_param 147 SwishParameter,
        clip_param 148 ClipParameter, permute_param 202 PermuteParameter, prior_box_param 203 PriorBoxParameter,
        detection_output_param 204 DetectionOutputParameter, norm_param 206 NormalizeParameter,
        shuffle_channel_param 164 ShuffleChannelParameter, interp_param 205 InterpParameter""",
    "V1LayerParameter": """layer 1 V0LayerParameter, bottom 2 string*, top 3 string*, name 4 string, type 5 LayerType,
        blobs 6 BlobProto*, concat_param 9 ConcatParameter, convolution_param 10 ConvolutionParameter,
        data_param 11 DataParameter, image_data_param 15 DataParameter, inner_product_param 17 InnerProductParameter,
        lrn_param 18 LRNParameter, pooling_param 19 PoolingParameter,
        window_data_param 20 DataParameter, power_param 21 PowerParameter,
        memory_data_param 22 MemoryDataParameter, argmax_param 23 ArgMaxParameter, eltwise_param 24 EltwiseParameter,
        threshold_param 25 ThresholdParameter, dummy_data_param 26 DummyDataParameter, relu_param 30 ReLUParameter,
        slice_param 31 SliceParameter, include 32 NetStateRule*, exclude 33 NetStateRule*, mvn_param 34 MVNParameter,
        transform_param 36 TransformationParameter, softmax_param 39 SoftmaxParameter, exp_param 41 ExpParameter,
        param 1001 string*""",
    "V0LayerParameter": "name 1 string, type 2 string",
    "TransformationParameter": """scale 1 float=1, mirror 2 bool=false, crop_size 3 uint32=0, mean_file 4 string,
        mean_value 5 float*, force_color 6 bool=false, force_gray 7 bool=false""",
    "DataParameter": """scale 2 float=1, mean_file 3 string, batch_size 4 uint32, crop_size 5 uint32=0,
        new_height 9 uint32=0, new_width 10 uint32=0""",
    "MemoryDataParameter": "batch_size 1 uint32, channels 2 uint32, height 3 uint32, width 4 uint32",
    "DummyDataParameter": """num 2 uint32*, channels 3 uint32*, height 4 uint32*, width 5 uint32*,
        shape 6 BlobShape*""",
    "ConvolutionParameter": """num_output 1 uint32, bias_term 2 bool=true, pad 3 uint32*, kernel_size 4 uint32*,
        group 5 uint32=1, stride 6 uint32*, weight_filler 7 FillerParameter, bias_filler 8 FillerParameter,
        pad_h 9 uint32=0, pad_w 10 uint32=0, kernel_h 11 uint32, kernel_w 12 uint32, stride_h 13 uint32,
        stride_w 14 uint32, axis 16 int32=1, dilation 18 uint32*""",
    "PoolingParameter": """pool 1 PoolMethod=MAX, kernel_size 2 uint32, stride 3 uint32=1, pad 4 uint32=0,
        kernel_h 5 uint32, kernel_w 6 uint32, stride_h 7 uint32, stride_w 8 uint32, pad_h 9 uint32=0,
        pad_w 10 uint32=0, global_pooling 12 bool=false, round_mode 13 RoundMode=CEIL, ceil_mode 10013 bool=true""",
    "InnerProductParameter": """num_output 1 uint32, bias_term 2 bool=true, axis 5 int32=1, transpose 6 bool=false""",
    "LRNParameter": """local_size 1 uint32=5, alpha 2 float=1, beta 3 float=0.75,
        norm_region 4 NormRegion=ACROSS_CHANNELS, k 5 float=1""",
    "BatchNormParameter": "use_global_stats 1 bool, moving_average_fraction 2 float=0.999, eps 3 float=1e-05",
    "ScaleParameter": """axis 1 int32=1, num_axes 2 int32=1, filler 3 FillerParameter, bias_term 4 bool=false,
        bias_filler 5 FillerParameter""",
    "BiasParameter": "axis 1 int32=1, num_axes 2 int32=1, filler 3 FillerParameter",
    "ConcatParameter": "concat_dim 1 uint32=1, axis 2 int32=1",
    "SliceParameter": "slice_dim 1 uint32=1, slice_point 2 uint32*, axis 3 int32=1",
    "EltwiseParameter": "operation 1 EltwiseOp=SUM, coeff 2 float*",
    "ReLUParameter": "negative_slope 1 float=0",
    "PReLUParameter": "filler 1 FillerParameter, channel_shared 2 bool=false",
    "ELUParameter": "alpha 1 float=1",
    "SwishParameter": "beta 1 float=1",
    "ClipParameter": "min 1 float, max 2 float",
    "ThresholdParameter": "threshold 1 float=0",
    "PowerParameter": "power 1 float=1, scale 2 float=1, shift 3 float=0",
    "ExpParameter": "base 1 float=-1, scale 2 float=1, shift 3 float=0",
    "SoftmaxParameter": "axis 2 int32=1",
    "ArgMaxParameter": "out_max_val 1 bool=false, top_k 2 uint32=1, axis 3 int32",
    "MVNParameter": "normalize_variance 1 bool=true, across_channels 2 bool=false, eps 3 float=1e-09",
    "ReshapeParameter": "shape 1 BlobShape, axis 2 int32=0, num_axes 3 int32=-1",
    "FlattenParameter": "axis 1 int32=1, end_axis 2 int32=-1",
    "ReductionParameter": "operation 1 ReductionOp=SUM, axis 2 int32=0, coeff 3 float=1",
    "EmbedParameter": "num_output 1 uint32, input_dim 2 uint32, bias_term 3 bool=true",
    "TileParameter": "axis 1 int32=1, tiles 2 int32",
    "CropParameter": "axis 1 int32=2, offset 2 uint32*",
    "SPPParameter": "pyramid_height 1 uint32, pool 2 PoolMethod=MAX",
    "InputParameter": "shape 1 BlobShape*",
    "ParameterParameter": "shape 1 BlobShape",
    "PermuteParameter": "order 1 uint32*",
    "ShuffleChannelParameter": "group 1 uint32=1",
    "InterpParameter": """height 1 int32, width 2 int32, zoom_factor 3 int32=1, shrink_factor 4 int32=1,
        pad_beg 5 int32=0, pad_end 6 int32=0""",
    "NormalizeParameter": """across_spatial 1 bool=true, scale_filler 2 FillerParameter, channel_shared 3 bool=true,
        eps 4 float=1e-10""",
    "PriorBoxParameter": """min_size 1 float*, max_size 2 float*, aspect_ratio 3 float*, flip 4 bool=true,
        clip 5 bool=false, variance 6 float*, img_size 7 uint32, img_h 8 uint32, img_w 9 uint32, step 10 float,
        step_h 11 float, step_w 12 float, offset 13 float=0.5""",
    "NonMaximumSuppressionParameter": "nms_threshold 1 float=0.3, top_k 2 int32, eta 3 float=1",
    "DetectionOutputParameter": """num_classes 1 uint32, share_location 2 bool=true, background_label_id 3 int32=0,
        nms_param 4 NonMaximumSuppressionParameter, code_type 6 CodeType=CORNER,
        variance_encoded_in_target 8 bool=false, keep_top_k 7 int32=-1, confidence_threshold 9 float""",
}
_V1_TYPES = """NONE ACCURACY BNLL CONCAT CONVOLUTION DATA DROPOUT EUCLIDEAN_LOSS FLATTEN HDF5_DATA HDF5_OUTPUT IM2COL
    IMAGE_DATA INFOGAIN_LOSS INNER_PRODUCT LRN MULTINOMIAL_LOGISTIC_LOSS POOLING RELU SIGMOID SOFTMAX SOFTMAX_LOSS SPLIT
    TANH WINDOW_DATA ELTWISE POWER SIGMOID_CROSS_ENTROPY_LOSS HINGE_LOSS MEMORY_DATA ARGMAX THRESHOLD DUMMY_DATA SLICE
    MVN ABSVAL SILENCE CONTRASTIVE_LOSS EXP DECONVOLUTION"""
# Each enum stands in a message of its own: the values' names share the scope of what is around them.
_ENUMS = {
    "Phase": {"TRAIN": 0, "TEST": 1},
    "PoolMethod": {"MAX": 0, "AVE": 1, "STOCHASTIC": 2},
    "RoundMode": {"CEIL": 0, "FLOOR": 1},
    "NormRegion": {"ACROSS_CHANNELS": 0, "WITHIN_CHANNEL": 1},
    "EltwiseOp": {"PROD": 0, "SUM": 1, "MAX": 2},
    "ReductionOp": {"SUM": 1, "ASUM": 2, "SUMSQ": 3, "MEAN": 4},
    "CodeType": {"CORNER": 1, "CENTER_SIZE": 2, "CORNER_SIZE": 3},
    "LayerType": {name: number for number, name in enumerate(_V1_TYPES.split())},
}


@cache
def message_class(name: str) -> Any:
    """The class of a message: ``message_class("NetParameter")``.

    >>> message_class("PoolingParameter")().stride
    1
    """
    from google.protobuf import message_factory

    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"{_PACKAGE}.{name}"))


def enum_name(message: Any, field: str) -> str:
    """The name of an enum field's value.

    >>> enum_name(message_class("PoolingParameter")(), "pool")
    'MAX'
    """
    values = message.DESCRIPTOR.fields_by_name[field].enum_type.values_by_number
    return str(values[getattr(message, field)].name)


@cache
def _pool() -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool

    file = descriptor_pb2.FileDescriptorProto(name="mobilemodel/caffe.proto", package=_PACKAGE, syntax=_SYNTAX)
    for name, values in _ENUMS.items():
        enum = file.message_type.add(name=f"{name}Values").enum_type.add(name=name)
        for value, number in values.items():
            enum.value.add(name=value, number=number)
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field in fields.split(","):
            _add_field(message, field.strip())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


def _add_field(message: Any, text: str) -> None:
    from google.protobuf import descriptor_pb2

    kinds = descriptor_pb2.FieldDescriptorProto
    name, number, kind = text.split()
    kind, _, default = kind.partition("=")
    repeated, kind = kind.endswith("*"), kind.rstrip("*")
    field = message.field.add(name=name, number=int(number))
    field.label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
    if default:
        field.default_value = default
    if kind in _ENUMS:
        field.type, field.type_name = kinds.TYPE_ENUM, f".{_PACKAGE}.{kind}Values.{kind}"
    elif kind in _MESSAGES:
        field.type, field.type_name = kinds.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
    else:
        field.type = kinds.Type.Value(f"TYPE_{kind.upper()}")
