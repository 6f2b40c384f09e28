"""The exported ONNX model computes what the fake-quantized network computes (checked with onnxruntime)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from accelsim.problems import AccelsimError
from quant.calibrate import Calibration
from quant.calibrated import Divisor
from quant.checkpoint import Model
from quant.fake import log2_divisor
from quant.functional import Affine, fake_quantize
from quant.functions import FUNCTIONS
from quant.methods import method_class
from quant.network import Network, Node, Operand, forward
from quant.quantize import quantize
from quant.views import Batch, View, rearrange
from tests.support.networks import images_of, tiny_hybrid, tiny_vit

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from quant.onnx_export import _pair, _spelled_out, export_onnx, log2_divisor_ops  # noqa: E402
from quant.onnx_functions import EMITTERS  # noqa: E402
from quant.onnx_graph import INTEGERS, Graph, view_ops  # noqa: E402

METHODS = {
    "u8": ("uniform", {"weight_bits": 8}),
    "u4": ("uniform", {"weight_bits": 4}),
    "u6a6": ("uniform", {"weight_bits": 6, "activation_bits": 6}),
    "u3a4": ("uniform", {"weight_bits": 3, "activation_bits": 4}),
    "pot": ("power_of_two", {"terms": 1}),
    "apot": ("power_of_two", {"terms": 2}),
    "m2q": ("m2q", {"ratio": 0.5}),
}
NETWORKS = {"hybrid": tiny_hybrid, "vit": tiny_vit}


def session(path, optimized=False):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if optimized:
        # Everything but the fusion of quantizers into onnxruntime's own integer kernels, which round otherwise.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    else:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def quantized(network, method):
    name, options = METHODS[method]
    calibration = [images_of(network, 32, 1)]
    return quantize(network, calibration, method_class(name)(**options), Calibration("minmax", 2.0))[1]


def outputs(path, images, optimized=False):
    return session(path, optimized).run(["logits"], {"images": images.numpy()})[0]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_equal_the_fake_quantized_model(tmp_path, name, method):
    network = NETWORKS[name]()
    checkpoint = quantized(network, method)
    path = tmp_path / "model.onnx"
    export_onnx(checkpoint, path)
    images = images_of(network, 64, 2)
    expected = Model(checkpoint)(images).numpy()
    found = outputs(path, images)
    # Sums in another order may push a value over a rounding edge: some codes more or less, in a few images.
    step = float(checkpoint.stored[network.workload.output].scale)
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 63 / 64
    assert (np.abs(found - expected) < 1e-5).mean() > 0.95
    assert np.abs(found - expected).max() < 8 * step
    assert (np.abs(forward(network, images).numpy() - expected) > 1e-5).mean() > 0.9  # the float network is another one


def test_any_number_of_images_and_any_optimization(tmp_path):
    network = tiny_hybrid()
    path = tmp_path / "model.onnx"
    export_onnx(quantized(network, "u8"), path)
    images = images_of(network, 7, 3)
    whole = outputs(path, images)
    one = np.concatenate([outputs(path, images[k : k + 1]) for k in range(7)])
    np.testing.assert_allclose(one, whole, atol=1e-5)
    np.testing.assert_allclose(outputs(path, images, optimized=True), whole, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "kind", "container"),
    [("u8", "INT8", None), ("u4", "INT4", None), ("u6a6", "INT8", "int8"), ("pot", "INT8", "int8"),
     ("apot", "INT16", "int16")],
)  # fmt: skip
def test_filters_are_stored_as_integers_with_a_scale_per_channel(tmp_path, method, kind, container):
    network = tiny_vit()
    path = tmp_path / "model.onnx"
    checkpoint = quantized(network, method)
    exported = export_onnx(checkpoint, path)
    found = onnx.load(str(path))
    weights = {one.name: one for one in found.graph.initializer}
    node = next(node for node in found.graph.node if node.op_type == "DequantizeLinear" and "b0.fc1/" in node.output[0])
    assert weights[node.input[0]].data_type == getattr(onnx.TensorProto, kind)
    integers = onnx.numpy_helper.to_array(weights[node.input[0]]).astype(np.int64)
    assert (integers == checkpoint.filters["b0.fc1"].integers.numpy().T).all()
    assert list(weights[node.input[1]].dims) == [24]
    assert exported.containers.get("b0.fc1") == container


def test_mixed_filters_are_int16_and_divisors_are_named(tmp_path):
    exported = export_onnx(quantized(tiny_hybrid(), "m2q"), tmp_path / "model.onnx")
    assert exported.containers["s1.b0.mb.expand"] == "int16"
    assert "s1.b0.mb.dw" not in exported.containers  # 4 bits
    assert exported.divisors == ["s1.b0.QKV"]


def test_the_file_is_standard_and_says_what_it_is(tmp_path):
    checkpoint = quantized(tiny_vit(), "u8")
    export_onnx(checkpoint, tmp_path / "model.onnx")
    model = onnx.load(str(tmp_path / "model.onnx"))
    onnx.checker.check_model(model, full_check=True)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 21)]
    assert {one.key: one.value for one in model.metadata_props}["plan"] == checkpoint.plan.fingerprint()
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_every_function_has_an_onnx_form():
    # Ranked networks are refused as a whole.
    assert set(EMITTERS) == set(FUNCTIONS) - {"rank", "gather"}


def test_all_refused_parts_are_listed(tmp_path):
    network = tiny_vit()
    checkpoint = quantized(network, "u8")
    changed = {"b0.softmax": "hardmax", "b1.softmax": "sinkhorn"}
    nodes = tuple(replace(node, function=changed.get(node.name, node.function)) for node in network.nodes)
    broken = replace(checkpoint, network=Network(network.workload, nodes, network.image_shape))
    for name in changed.values():
        FUNCTIONS[name] = FUNCTIONS["softmax"]
    try:
        with pytest.raises(AccelsimError) as error:
            export_onnx(broken, tmp_path / "model.onnx")
    finally:
        for name in changed.values():
            del FUNCTIONS[name]
    assert [problem.what for problem in error.value.problems] == [
        "'hardmax' has no ONNX form", "'sinkhorn' has no ONNX form"
    ]  # fmt: skip
    assert not (tmp_path / "model.onnx").exists()


def computed(graph, result, value, tmp_path, rank=None):
    """Run a piece of a graph that reads "images"."""
    graph.op("Identity", [result], "logits")
    shape = list(value.shape[1:])
    model = graph.model("piece", shape, 1, {})
    kind = model.graph.output[0].type.tensor_type
    kind.elem_type = onnx.TensorProto.FLOAT
    kind.ClearField("shape")
    onnx.save(model, str(tmp_path / "piece.onnx"))
    return outputs(tmp_path / "piece.onnx", value)


@pytest.mark.parametrize(
    ("views", "shape"),
    [
        ((View("reshape", ((Batch(), 3, 4, -1),)), View("permute", ((2, 0, 3, -3),))), (3, 8, 2)),
        ((View("reshape", ((Batch(3), 16),)),), (3, 8, 2)),
        ((View("slice", (1, 2, 7, 2)), View("unsqueeze", (-1,)), View("squeeze", (3,))), (8, 3)),
        ((View("select", (2, -1)),), (3, 4)),
        ((View("unsqueeze", (1,)), View("expand", ((Batch(), 5, 3, -1),))), (3, 4)),
        ((View("roll", ((-1, 2), (1, 2))),), (5, 4, 2)),
        ((View("ones_row", (3,)),), (2, 3, 4)),
        ((View("slice", (-1, 0, 9223372036854775807, 1)),), (2, 3)),
    ],
)
@pytest.mark.parametrize("images", [1, 3])
def test_view_steps(tmp_path, views, shape, images):
    value = torch.randn(images, *shape)
    graph = Graph()
    found = computed(graph, view_ops(graph, "images", views, (2, *shape)), value, tmp_path)
    np.testing.assert_array_equal(found, rearrange(value, views, images).numpy())


@pytest.mark.parametrize("kind", INTEGERS)
@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("axis", [None, -2])
def test_quantizers_equal_ours_exactly(tmp_path, kind, narrow, axis):
    low, high = {"int4": (-8, 7), "int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767),
                 "uint16": (0, 65535)}[kind]  # fmt: skip
    low, high = (low + 1, high - 2) if narrow else (low, high)
    scale = torch.tensor(0.0371) if axis is None else torch.tensor([0.0371, 1.7, 0.11])[:, None]
    zero = torch.full_like(scale, (low + high) // 2)
    affine = Affine(scale, zero, low, high)
    # Values, half steps (ties) and far outside.
    value = torch.randn(200, 3, 5) * (high - low) * 0.02
    value[:100] = torch.randint(low - 3, high + 4, (100, 3, 5)) * scale + scale / 2
    graph = Graph()
    found = computed(graph, _pair(graph, "images", affine, kind, axis), value, tmp_path)
    np.testing.assert_array_equal(found, fake_quantize(value, affine).numpy())


def test_a_quantizer_with_scales_along_two_axes_is_spelled_out(tmp_path):
    affine = Affine(torch.rand(1, 3, 1, 5) + 0.1, torch.tensor(-300.0), -128, 127)
    value = torch.randn(50, 3, 4, 5) * 40
    graph = Graph()
    found = computed(graph, _spelled_out(graph, "images", affine), value, tmp_path)
    np.testing.assert_array_equal(found, fake_quantize(value, affine).numpy())


def test_log2_divisors_are_exact(tmp_path):
    unit = torch.tensor([0.25, 1.0, 3.0])[None, :, None]
    divisor = Divisor(torch.ones(1, 1, 1, dtype=torch.bool), unit, torch.tensor([0.0, 5.0, 2.0])[None, :, None], 4)
    steps = torch.cat([torch.arange(-3, 400), torch.tensor([(1 << k) + (1 << (k - 1)) + d for k in range(2, 24)
                                                            for d in (-1, 0, 1)])])  # fmt: skip
    value = steps[None, None, :].expand(1, 3, -1) * unit
    graph = Graph()
    found = computed(graph, log2_divisor_ops(graph, "images", divisor), value.contiguous(), tmp_path)
    np.testing.assert_array_equal(found, log2_divisor(value, divisor).numpy())
    assert len(np.unique(found[0, 0])) == 17  # zero and sixteen powers


@pytest.mark.parametrize("activation", ["relu", "hardswish", "gelu", "gelu_tanh", "silu", "sigmoid"])
def test_activations(tmp_path, activation):
    from quant.models.blocks import activate
    from quant.onnx_functions import activate as activate_ops

    value = torch.linspace(-6, 6, 500).reshape(5, 100)
    graph = Graph()
    found = computed(graph, activate_ops(graph, "images", activation), value, tmp_path)
    np.testing.assert_allclose(found, activate(value, activation).numpy(), atol=2e-6)


def test_functions_that_the_tiny_networks_lack(tmp_path):
    """Gate, pooling mixer, normalization, bias and layer scale against their torch functions."""
    from quant.network import Numerics
    from quant.onnx_functions import Context

    op = tiny_vit().nodes[-1].op
    weight = torch.rand(3, 1, 1)
    cases = [
        (Node(op, "gate", (Operand("a"), Operand("b")), settings={"activation": "sigmoid"}), 2),
        (Node(op, "pool_mixer", (Operand("a"),), weight), 1),
        (Node(op, "normalize", (Operand("a"),), settings={"dim": -1, "eps": 1e-6}), 1),
        (Node(op, "bias_add", (Operand("a"),), weight), 1),
        (Node(op, "add", (Operand("a"), Operand("b")), weight, settings={"scale": 0.5}), 2),
        (Node(op, "mean", (Operand("a"),), settings={"dims": (2, 3), "keep": True}), 1),
    ]
    value = torch.rand(4, 3, 6, 6)
    for node, operands in cases:
        graph = Graph()
        context = Context(graph, None, None, lambda node: node.weight, lambda node, name: name)
        result = EMITTERS[node.function](context, node, ["images"] * operands)
        expected = FUNCTIONS[node.function](node, [value] * operands, Numerics())
        np.testing.assert_allclose(computed(graph, result, value, tmp_path), expected.numpy(), atol=1e-6)
