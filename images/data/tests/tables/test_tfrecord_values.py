"""Values of features are those that Google's protobuf writes for `tf.train.Example`, whatever they are."""

from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given, settings
from hypothesis import strategies as st
from lary_data.tfrecords import feature_entries, make_bytes_entry, make_entry, make_example, read_values
from lary_schema.base import ContractError

KINDS = {1: ("bytes_list", "TYPE_BYTES"), 2: ("float_list", "TYPE_FLOAT"), 3: ("int64_list", "TYPE_INT64")}


def _example(packed: bool) -> Any:
    """The message class of tensorflow/core/example/example.proto, with its lists packed or not."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"example_{packed}.proto", package=f"p{packed}".lower(), syntax="proto3"
    )
    field = descriptor_pb2.FieldDescriptorProto
    feature = file.message_type.add(name="Feature")
    for number, (name, kind) in KINDS.items():
        inner = file.message_type.add(name=name.title().replace("_", ""))
        value = inner.field.add(name="value", number=1, label=field.LABEL_REPEATED, type=getattr(field, kind))
        if kind != "TYPE_BYTES":
            value.options.packed = packed
        full = f".{file.package}.{inner.name}"
        feature.field.add(name=name, number=number, label=1, type=field.TYPE_MESSAGE, type_name=full)
    entry = file.message_type.add(name="Features").nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=1, type=field.TYPE_STRING)
    entry.field.add(name="value", number=2, label=1, type=field.TYPE_MESSAGE, type_name=f".{file.package}.Feature")
    of = f".{file.package}.Features"
    file.message_type[-1].field.add(
        name="feature", number=1, label=3, type=field.TYPE_MESSAGE, type_name=f"{of}.FeatureEntry"
    )
    file.message_type.add(name="Example").field.add(
        name="features", number=1, label=1, type=field.TYPE_MESSAGE, type_name=of
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.Example"))


CLASSES = {packed: _example(packed) for packed in (True, False)}
VALUES = st.one_of(
    st.tuples(st.just("bytes_list"), st.lists(st.binary(max_size=40), min_size=1, max_size=5)),
    st.tuples(st.just("float_list"), st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=5)),
    st.tuples(st.just("int64_list"), st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5)),
)


@given(st.dictionaries(st.text(min_size=1, max_size=9), VALUES, max_size=4), st.booleans())
@settings(max_examples=25, deadline=None)
def test_values_are_those_that_protobuf_writes(features: dict[str, tuple[str, list[Any]]], packed: bool) -> None:
    message = CLASSES[packed]()
    for name, (kind, values) in features.items():
        getattr(message.features.feature[name], kind).value.extend(values)
    entries = feature_entries(message.SerializeToString(), "here")
    assert set(entries) == set(features)
    for name, (kind, values) in features.items():
        found = read_values(entries[name], "here")
        assert list(found) == (values if kind != "float_list" else np.float32(values).tolist())


@given(st.dictionaries(st.text(min_size=1, max_size=9), VALUES, max_size=4))
@settings(max_examples=25, deadline=None)
def test_protobuf_reads_what_is_written(features: dict[str, tuple[str, list[Any]]]) -> None:
    made = {}
    for name, (kind, values) in features.items():
        kinds = {"float_list": np.float32, "int64_list": np.int64}
        made[name] = (
            make_bytes_entry(name, values) if kind == "bytes_list" else make_entry(name, np.array(values, kinds[kind]))
        )
    message = CLASSES[True].FromString(make_example(made))
    for name, (kind, values) in features.items():
        read = list(getattr(message.features.feature[name], kind).value)
        assert read == (np.float32(values).tolist() if kind == "float_list" else values)


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_cut_feature_is_refused(cut: int) -> None:
    with pytest.raises(ContractError, match=r"here: no tf\.train\.Example"):
        read_values(make_entry("a", np.arange(300, 304))[:-cut], "here")
