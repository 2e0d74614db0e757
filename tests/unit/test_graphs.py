"""Walking ONNX graphs: what a node reads, however deep the graphs within it lie."""

from __future__ import annotations

import pytest
from onnx import NodeProto, TensorProto, helper

from mobilemodel import graphs
from tests.models import model, value

TENSOR = helper.make_tensor("t", TensorProto.FLOAT, [1], [0.5])
SPARSE = helper.make_sparse_tensor(
    helper.make_tensor("s", TensorProto.FLOAT, [1], [0.5]), helper.make_tensor("", TensorProto.INT64, [1], [0]), [4]
)


def body(*nodes: NodeProto, output: str = "o") -> NodeProto:
    """An If whose branch holds the nodes, an input ``i``, and the initializers ``t`` and, sparse, ``s``."""
    graph = helper.make_graph(list(nodes), "body", [value("i")], [value(output)], [TENSOR])
    graph.sparse_initializer.append(SPARSE)
    return helper.make_node("If", ["condition"], ["y"], name="if", then_branch=graph, else_branch=graph)


@pytest.mark.parametrize(
    ("node", "read"),
    [
        (helper.make_node("Clip", ["x", "", "high"], ["y"]), {"x", "high"}),
        (body(helper.make_node("Add", ["x", "i"], ["o"])), {"condition", "x"}),
        (body(helper.make_node("Sum", ["t", "s", "i"], ["o"])), {"condition"}),
        (body(helper.make_node("Neg", ["i"], ["unused"]), output="x"), {"condition", "x"}),
        (body(helper.make_node("Neg", ["a"], ["o"]), helper.make_node("Neg", ["x"], ["a"])), {"condition", "x"}),
        (body(body(helper.make_node("Add", ["t", "deep"], ["o"])), output="y"), {"condition", "deep"}),
    ],
    ids=["left-out", "outer", "initializers", "output", "any-order", "nested"],
)
def test_a_node_reads_what_graphs_within_it_take_from_outside(node: NodeProto, read: set[str]) -> None:
    assert graphs.reads(node) == read
    assert graphs.captured(node) | {name for name in node.input if name} == read


def test_a_walk_visits_every_graph_and_node_in_order() -> None:
    outer = model([helper.make_node("Neg", ["x"], ["n"]), body(body(helper.make_node("Abs", ["x"], ["o"])))], [], [])
    assert [graph.name for graph in graphs.all_graphs(outer.graph)] == [
        "g",
        "body",
        "body",
        "body",
        "body",
        "body",
        "body",
    ]
    operators = [node.op_type for node in graphs.all_nodes(outer.graph)]
    assert operators == ["Neg", "If", "If", "Abs", "Abs", "If", "Abs", "Abs"]


def test_attributes_have_defaults() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=3, pads=[1, 2], auto_pad="VALID", alpha=0.5)
    assert (graphs.integer(node, "group", 1), graphs.integer(node, "other", 7)) == (3, 7)
    assert (graphs.integers(node, "pads"), graphs.integers(node, "strides")) == ((1, 2), ())
    assert (graphs.real(node, "alpha", 1.0), graphs.real(node, "beta", 1.0)) == (0.5, 1.0)
    assert (graphs.text(node, "auto_pad", b"NOTSET"), graphs.text(node, "mode", b"x")) == (b"VALID", b"x")


@pytest.mark.parametrize(("domain", "standard"), [("", True), ("ai.onnx", True), ("com.microsoft", False)])
def test_the_standard_operators_have_two_names(domain: str, standard: bool) -> None:
    node = helper.make_node("Constant", [], ["c"], domain=domain, value=TENSOR)
    assert graphs.is_standard(node) is standard
    assert (graphs.constant_value(node) is not None) is standard
    made = model([], [], [])
    made.opset_import[0].domain = domain
    assert graphs.standard_opset(made) == (17 if standard else 0)


def test_a_title_is_the_name_or_the_first_output() -> None:
    assert graphs.title(helper.make_node("Neg", ["x"], ["y"], name="negate")) == "negate"
    assert graphs.title(helper.make_node("Split", ["x"], ["", "b"])) == "b"
    assert graphs.title(helper.make_node("Print", ["x"], [])) == "Print"
