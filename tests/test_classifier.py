"""Any ONNX classifier: layouts, normalisation, centre crop, labels, and files that are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from model.classifier import Classifier, label_of, read_labels
from pipeline.errors import EngineError, InputError

RNG = np.random.default_rng(0)


def classifier(path: Path, shape: list[int | str], kind: int = TensorProto.FLOAT) -> Path:
    """A graph whose scores are the means of the channels."""
    axes = [1, 2] if shape[-1] == 3 else [2, 3]
    node = helper.make_node("ReduceMean", ["picture", "axes"], ["scores"], keepdims=0)
    constant = helper.make_tensor("axes", TensorProto.INT64, [2], axes)
    inputs = [helper.make_tensor_value_info("picture", kind, shape)]
    outputs = [helper.make_tensor_value_info("scores", kind, None)]
    graph = helper.make_graph([node], "means", inputs, outputs, [constant])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


@pytest.mark.parametrize("shape", [[1, 3, 48, 32], ["n", 3, "h", "w"], ["n", 24, 24, 3]])
def test_the_likeliest_class_of_any_layout(tmp_path: Path, shape: list[int | str]) -> None:
    found = Classifier(classifier(tmp_path / "c.onnx", shape))
    assert found.classes == 3
    for channel in range(3):
        picture = np.full((50, 70, 3), 0.4)
        picture[..., channel] = 0.8
        assert found(picture) == channel
    # grey: the mean of ImageNet is highest in red and lowest in blue, so that what is left of grey is bluest
    assert found(np.full((50, 70, 3), 0.4)) == 2


def test_scores_are_those_of_onnxruntime_on_a_normalised_picture(tmp_path: Path) -> None:
    path = classifier(tmp_path / "c.onnx", ["n", 3, "h", "w"])
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    found, session = Classifier(path), onnxruntime.InferenceSession(path)
    for picture in RNG.random((8, 224, 224, 3)) * 0.05 + RNG.random((8, 1, 1, 3)) * 0.1 + 0.4:
        batch = ((picture - mean) / deviation).transpose(2, 0, 1)[None].astype(np.float32)
        assert found(picture) == session.run(None, {"picture": batch})[0].argmax()


def test_what_lies_outside_the_centre_does_not_count(tmp_path: Path) -> None:
    picture = np.zeros((40, 100, 3))
    picture[..., 2] = 1
    picture[:, 30:70] = (1, 0, 0)  # a square about the centre
    assert Classifier(classifier(tmp_path / "c.onnx", [1, 3, 20, 20]))(picture) == 0


def test_labels_are_those_of_the_file_or_else_of_its_folder(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("cats,3\n odd.jpg , 7\n", "utf-8")
    labels = read_labels(file)
    assert labels == {"cats": 3, "odd.jpg": 7}
    assert [label_of(labels, *of) for of in (("a.jpg", "cats"), ("odd.jpg", "cats"), ("a.jpg", "dogs"))] == [3, 7, None]


@pytest.mark.parametrize("line", ["cats", "cats,three", "cats, 1 2", "cats,-1", ""])
def test_a_line_that_is_no_label_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(f"dogs,1\n{line}\n", "utf-8")
    with pytest.raises(InputError, match=r"labels\.csv, line 2: expected a name"):
        read_labels(file)


def test_what_is_no_classifier_of_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        Classifier(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("not a graph")
    with pytest.raises(EngineError, match="not an ONNX graph"):
        Classifier(tmp_path / "text.onnx")
    with pytest.raises(EngineError, match="three channels"):
        Classifier(classifier(tmp_path / "grey.onnx", [1, 1, 32, 32]))
    with pytest.raises(EngineError, match="float32"):
        Classifier(classifier(tmp_path / "codes.onnx", [1, 3, 32, 32], TensorProto.UINT8))
