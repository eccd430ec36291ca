"""The part of Caffe's NetParameter message that holds weights, declared here so that no Caffe is needed.

Field numbers are those of the public caffe.proto; every other field of a file is skipped by protobuf itself.
"""

from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from jaxtyping import Float

_Field = descriptor_pb2.FieldDescriptorProto
_OPTIONAL, _REPEATED = _Field.LABEL_OPTIONAL, _Field.LABEL_REPEATED

# message: (field, number, label, type, message type, packed)
_MESSAGES: dict[str, list[tuple[str, int, Any, Any, str | None, bool]]] = {
    "BlobShape": [("dim", 1, _REPEATED, _Field.TYPE_INT64, None, True)],
    "BlobProto": [
        ("num", 1, _OPTIONAL, _Field.TYPE_INT32, None, False),
        ("channels", 2, _OPTIONAL, _Field.TYPE_INT32, None, False),
        ("height", 3, _OPTIONAL, _Field.TYPE_INT32, None, False),
        ("width", 4, _OPTIONAL, _Field.TYPE_INT32, None, False),
        ("data", 5, _REPEATED, _Field.TYPE_FLOAT, None, True),
        ("shape", 7, _OPTIONAL, _Field.TYPE_MESSAGE, "BlobShape", False),
    ],
    "LayerParameter": [
        ("name", 1, _OPTIONAL, _Field.TYPE_STRING, None, False),
        ("blobs", 7, _REPEATED, _Field.TYPE_MESSAGE, "BlobProto", False),
    ],
    "V1LayerParameter": [
        ("name", 4, _OPTIONAL, _Field.TYPE_STRING, None, False),
        ("blobs", 6, _REPEATED, _Field.TYPE_MESSAGE, "BlobProto", False),
    ],
    "NetParameter": [
        ("layers", 2, _REPEATED, _Field.TYPE_MESSAGE, "V1LayerParameter", False),
        ("layer", 100, _REPEATED, _Field.TYPE_MESSAGE, "LayerParameter", False),
    ],
}
_PACKAGE = "th_jax_caffe"


def net_parameter() -> Any:
    """An empty NetParameter message."""
    file = descriptor_pb2.FileDescriptorProto(name="th_jax_caffe.proto", package=_PACKAGE, syntax="proto2")
    for message, fields in _MESSAGES.items():
        declared = file.message_type.add(name=message)
        for name, number, label, kind, message_type, packed in fields:
            field = declared.field.add(name=name, number=number, label=label, type=kind)
            if message_type is not None:
                field.type_name = f".{_PACKAGE}.{message_type}"
            field.options.packed = packed
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.NetParameter"))()


def read_blobs(content: bytes) -> dict[str, list[Float[np.ndarray, "..."]]]:
    """Arrays of every layer that has some, by the layer's name, in the file's own axis order (kernels are OIHW).

    Raises:
        google.protobuf.message.DecodeError: if the content is no protobuf message.
        ValueError: if a blob's size does not fit its shape.
    """
    net = net_parameter()
    net.ParseFromString(content)
    return {layer.name: [_array(blob) for blob in layer.blobs] for layer in (*net.layer, *net.layers) if layer.blobs}


def _array(blob: Any) -> Float[np.ndarray, "..."]:
    if blob.HasField("shape"):
        shape = tuple(blob.shape.dim)
    else:  # the older form: always four axes, leading ones of size 1
        shape = (blob.num, blob.channels, blob.height, blob.width)
        shape = shape[-1:] if shape[:3] == (1, 1, 1) else shape
    return np.asarray(blob.data, np.float32).reshape(shape)
