"""Checkpoints of many shapes: what is converted is equal to what was saved, and nothing is lost without a word."""

import argparse
import collections
import io
import pickle
import types
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lary_schema.base import WeightsError
from lary_worker.checkpoints import load_strict, read_state
from lary_worker.convert import Conversion, convert
from torch import nn

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    *(torch.uint16, torch.uint32, torch.uint64),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu),
]
ZIPPED = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 3)
        self.norm = nn.BatchNorm1d(3)
        self.blocks = nn.ModuleList([nn.Linear(3, 3, bias=False), nn.Identity()])
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("passing", torch.ones(2), persistent=False)
        self.register_buffer("nothing", None)
        self.loose = torch.ones(5)


class Hyper(dict):
    """A trainer's own dictionary, as Lightning's AttributeDict."""


@dataclass
class Config:
    lr: float = 1e-4
    tensors: list = field(default_factory=list)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Net()


@pytest.fixture(scope="module")
def trained(net):
    """The state of an optimiser that made a step: more tensors than the network has."""
    copy = Net()
    optimizer = torch.optim.AdamW(copy.parameters())
    copy.first(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


def save(content, path: Path, zipped: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def converted(content, folder: Path, entry: str | None = None, *, zipped: bool = True):
    """What became of `content`: the account and the tensors by name."""
    target = folder / "out.safetensors"
    target.unlink(missing_ok=True)
    done = convert(save(content, folder / "in.pt", zipped), target, entry, trusted=True)
    return done, read_state(target)


def same(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert found[name].shape == tensor.shape, name
        left, right = (t.detach().resolve_conj().contiguous().flatten() for t in (found[name], tensor))
        assert torch.equal(left.view(torch.uint8), right.view(torch.uint8)), name


def flat(net):
    return {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}


STRUCTURES = {
    "flat": (lambda s: s, None),
    "entry": (lambda s: {"state_dict": s, "hyper": Config()}, "state_dict"),
    "deep": (lambda s: {"ckpt": {"model": s, "step": 3}, "hp": Config()}, "ckpt.model"),
    "deeper": (lambda s: {"a": [{"b": {"c": s}}]}, "a.0.b.c"),
    "epoch on top": (lambda s: {"epoch": torch.tensor(3), "model": s}, "model"),
    "loss on top": (lambda s: {"model": s, "loss": torch.tensor(0.5), "rng": torch.ones(5056).byte()}, "model"),
    "losses on top": (lambda s: {"losses": torch.ones(1), "model": s}, "model"),
    "array on top": (lambda s: {"numpy_rng": np.arange(624, dtype=np.uint32), "model": s}, "model"),
    "decay of an average": (lambda s: {"ema": {"decay": torch.tensor(0.9)}, "model": s}, "model"),
    "ordered": (lambda s: {"m": collections.OrderedDict(s)}, "m"),
    "defaultdict": (lambda s: collections.defaultdict(list, {"m": collections.defaultdict(int, s)}), "m"),
    "own dictionary": (lambda s: Hyper(m=Hyper(s)), "m"),
    "namespace": (lambda s: argparse.Namespace(m=types.SimpleNamespace(**s)), "m"),
    "dataclass": (lambda s: Config(tensors=[s]), "tensors.0"),
    "parameters": (lambda s: {"m": {k: nn.Parameter(t, t.is_floating_point()) for k, t in s.items()}}, "m"),
    "buffers": (lambda s: {"m": {k: nn.Buffer(t) for k, t in s.items()}}, "m"),
    "a tuple": (lambda s: ({"m": s}, Config()), "0.m"),
}


@ZIPPED
@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_network_is_found_wherever_it_stands(net, trained, tmp_path, structure, zipped):
    build, entry = STRUCTURES[structure]
    content = build(flat(net))
    if isinstance(content, dict) and entry:
        content = {"optimizer": trained, **content}
    done, found = converted(content, tmp_path, zipped=zipped)
    assert done.entry == entry
    same(found, flat(net))
    fresh = Net()
    load_strict(fresh, found, "out")
    same(fresh.state_dict(), net.state_dict())


@ZIPPED
@pytest.mark.parametrize("wrap", [lambda n: n, lambda n: {"epoch": 1, "net": n}], ids=["itself", "in an entry"])
def test_a_network_that_was_pickled_whole_gives_its_state(net, tmp_path, zipped, wrap):
    done, found = converted(wrap(net), tmp_path, zipped=zipped)
    same(found, net.state_dict())
    inside = f"{done.entry}." if done.entry else ""
    assert {f"{inside}passing", f"{inside}loose"} <= done.dropped.keys()
    assert done.dropped_tensors[f"{inside}loose"] == 1


@ZIPPED
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", ["plain", "turned", "every second", "shared", "expanded", "empty", "parameter"])
def test_every_type_and_layout_keeps_its_bits(tmp_path, dtype, layout, zipped):
    raw = torch.arange(1, 97, dtype=torch.uint8)
    base = (raw % 2).bool() if dtype == torch.bool else raw[: 12 * dtype.itemsize].view(dtype)
    base = base[:12].reshape(3, 4)
    state = {
        "plain": {"a": base},
        "turned": {"a": base.t(), "b": base},
        "every second": {"a": base.flatten()[1::2], "b": base[:, 1:3]},
        "shared": {"a": base, "b": base, "c": base[1]},
        "expanded": {"a": base[:, :1].expand(3, 5)},
        "empty": {"a": base[:0], "b": base, "c": torch.empty(0, 3, dtype=dtype)},
        "parameter": {"a": nn.Parameter(base, requires_grad=False)},
    }[layout]
    _, found = converted({"state_dict": state}, tmp_path, zipped=zipped)
    same(found, state)


@pytest.mark.parametrize("bit", ["conjugate", "negative"])
def test_lazy_bits_of_complex_tensors_are_applied(tmp_path, bit):
    base = torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex64)
    lazy = base.conj() if bit == "conjugate" else base.conj().imag
    assert lazy.is_conj() or lazy.is_neg()
    _, found = converted({"a": lazy}, tmp_path)
    assert torch.equal(found["a"], lazy.resolve_conj().resolve_neg())


@pytest.mark.parametrize("code", ["f2", "f4", "f8", ">f4", "i1", "i8", ">i2", "u1", "u2", "u4", "u8", "?", "c8"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_arrays_are_tensors(tmp_path, code, order, protocol):
    array = np.asarray(np.arange(6).reshape(2, 3), dtype=code, order=order)
    torch.save({"m": {"a": torch.ones(2), "np": array}}, tmp_path / "in.pt", pickle_protocol=protocol)
    convert(tmp_path / "in.pt", tmp_path / "out", trusted=True)
    found = read_state(tmp_path / "out")["np"]
    same({"a": found}, {"a": torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))})


def test_whole_numbers_are_names(tmp_path):
    _, found = converted({"state_dict": {0: torch.ones(2), 1: torch.zeros(2), "a": torch.ones(1)}}, tmp_path)
    assert found.keys() == {"0", "1", "a"}


def test_what_hangs_on_a_tensor_is_listed(tmp_path):
    parameter = nn.Parameter(torch.ones(2))
    parameter.tensor_model_parallel = True
    tensor = torch.zeros(3)
    tensor.tag = "x"
    done, found = converted({"m": {"b": parameter, "c": tensor}}, tmp_path)
    same(found, {"b": torch.ones(2), "c": torch.zeros(3)})
    assert done.dropped.keys() == {"m.b, attribute tensor_model_parallel", "m.c, attribute tag"}


def test_dictionaries_within_the_entry_are_joined_by_dots(tmp_path):
    content = {"m": {"x": torch.ones(1), "enc": {"w": torch.ones(2)}, "list": [torch.zeros(1)], "version": 2}}
    done, found = converted(content, tmp_path, "m")
    same(found, {"x": torch.ones(1), "enc.w": torch.ones(2), "list.0": torch.zeros(1)})
    assert done.dropped == {"m.version": "int"}


def two(a: int, b: int):
    return lambda: {"a": {f"{i}": torch.ones(4) for i in range(a)}, "b": {f"{i}": torch.ones(4) for i in range(b)}}


QUESTIONS = {
    "an average": (lambda: {"model": {"w": torch.ones(4)}, "ema": {"w": torch.ones(4)}}, ["model", "ema"]),
    "parts": (lambda: {"encoder": {"w": torch.ones(4)}, "predictor": {"w": torch.ones(2)}}, ["encoder", "predictor"]),
    "top and entry": (lambda: {"w": torch.ones(4), "ema": {"w": torch.ones(4)}}, ["ema", "."]),
    "part next to a tensor": (lambda: {"sd": {"m": {"w": torch.ones(999)}, "x": torch.ones(1)}}, ["sd", "sd.m"]),
    "part named head": (
        lambda: {"sd": {"m": {"w": torch.ones(999)}, "head": {"b": torch.ones(1)}}},
        ["sd.m", "sd.head"],
    ),
    "more and smaller": (lambda: {"a": {"w": torch.ones(999)}, "b": {str(i): torch.ones(1) for i in range(3)}}, ["a"]),
    "two networks": (lambda: {"gen": nn.Linear(2, 2), "dis": nn.Linear(2, 2)}, ["gen", "dis"]),
    "half": (two(10, 5), ["a", "b"]),
    "only counters": (lambda: {"a": {"n": torch.tensor(1)}, "b": {"n": torch.tensor(1)}}, ["a", "b"]),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_several_candidates_are_a_question(tmp_path, question):
    build, names = QUESTIONS[question]
    content = build()
    for ordered in (content, dict(reversed(content.items()))):
        with pytest.raises(WeightsError, match="--entry NAME") as error:
            converted(ordered, tmp_path)
        assert all(f"{name} (" in str(error.value) for name in names)
        assert not (tmp_path / "out.safetensors").exists()
    done, _ = converted(content, tmp_path, names[0])
    assert done.entry == names[0]


def test_the_top_is_an_entry_too(tmp_path):
    content = {"w": torch.ones(4), "ema": {"w": torch.zeros(4)}, "optimizer": {"state": {}, "param_groups": []}}
    done, found = converted(content, tmp_path, ".")
    same(found, {"w": torch.ones(4), "ema.w": torch.zeros(4)})
    assert done.dropped == {"optimizer": "dict of 2"}


@pytest.mark.parametrize("entry", ["nope", "m.nope", "hyper", "optimizer", ""])
def test_an_entry_that_is_not_there_is_a_question_too(tmp_path, trained, entry):
    with pytest.raises(WeightsError, match=r"m \(1 tensors, 2 floating values\)"):
        converted({"m": {"w": torch.ones(2)}, "hyper": 3, "optimizer": trained}, tmp_path, entry)


class Odd(torch.Tensor):
    """A tensor whose class may give its bytes another meaning."""


def rebuild(data):
    return data


class Opaque:
    """Made from tensors by a function of its own."""

    def __reduce__(self):
        return rebuild, (torch.ones(2),)


def quantised():
    with pytest.warns(UserWarning, match="quantize"):
        return torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8)


def nested():
    return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])


UNWRITABLE = {
    "quantised": (quantised, "quantised"),
    "sparse": (lambda: torch.eye(3).to_sparse(), "sparse"),
    "csr": (lambda: torch.eye(3).to_sparse_csr(), "sparse"),
    "nested": (nested, "nested"),
    "meta": (lambda: torch.ones(2, device="meta"), "without values"),
    "lazy": (nn.UninitializedParameter, "special kind"),
    "subclass": (lambda: torch.ones(2).as_subclass(Odd), r"test_convert_family\.Odd"),
    "complex128": (lambda: torch.ones(2, dtype=torch.complex128), "complex128"),
    "object array": (lambda: np.array([1, "a"], dtype=object), "NumPy array"),
    "record array": (lambda: np.zeros(2, dtype=[("a", "f4")]), "NumPy array"),
    "date array": (lambda: np.zeros(2, dtype="M8[s]"), "NumPy array"),
    "masked array": (lambda: np.ma.masked_array([1.0, 2.0]), "special kind"),
    "storage": (lambda: torch.ones(2).untyped_storage(), "bare storage"),
    "made by a function": (Opaque, "made from tensors"),
}


@pytest.mark.parametrize("what", UNWRITABLE)
@pytest.mark.filterwarnings("ignore:.*(beta|prototype|Sparse).*:UserWarning")
def test_a_tensor_that_cannot_be_written_is_named(tmp_path, what):
    build, why = UNWRITABLE[what]
    bad = build()
    with pytest.raises(WeightsError, match=why) as error:
        converted({"m": {"good": torch.ones(8, 8), "sub": {"bad.one": bad}}, "hp": Config()}, tmp_path, "m")
    assert "sub.bad.one" in str(error.value)
    assert not (tmp_path / "out.safetensors").exists()
    # Outside of the entry it is listed like all else.
    done, _ = converted({"m": {"good": torch.ones(8, 8)}, "other": [bad]}, tmp_path)
    assert "other" in done.dropped


@pytest.mark.parametrize("key", [None, 1.5, ("a", 1), True, b"w", "__metadata__", "a\nb", "\ud800"])
def test_a_key_that_is_no_name_is_refused(tmp_path, key):
    with pytest.raises(WeightsError, match=r"no name"):
        converted({"m": {"w": torch.ones(4), key: torch.ones(2)}}, tmp_path)


@pytest.mark.parametrize("state", [{0: 1, "0": 1}, {"a.b": 1, "a": {"b": 1}}, {"a": [1], "a.0": 1}])
def test_two_tensors_of_one_name_are_refused(tmp_path, state):
    def tensors(value):
        if isinstance(value, dict):
            return {k: tensors(v) for k, v in value.items()}
        return [torch.ones(2)] if isinstance(value, list) else torch.ones(2)

    with pytest.raises(WeightsError, match="two tensors have this name"):
        converted({"m": tensors(state)}, tmp_path, "m")


# --- nothing is lost --------------------------------------------------------------------------

leaves = st.one_of(
    st.integers(0, 3).map(lambda n: torch.arange(float(n))),
    st.integers(1, 3).map(lambda n: torch.ones(n, 2, dtype=torch.bfloat16)),
    st.just(torch.tensor(1.0)),
    st.just(np.ones(2, np.float32)),
    st.integers(),
    st.text(max_size=3),
    st.none(),
)
keys = st.sampled_from(["a", "b", "model", "state_dict", "w", "state", "param_groups", 0, 1])
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.dictionaries(keys, inner, max_size=4),
        st.lists(inner, max_size=3),
        st.dictionaries(keys, inner, max_size=3).map(collections.OrderedDict),
        st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2).map(lambda d: types.SimpleNamespace(**d)),
    ),
    max_leaves=20,
)


def count(value) -> int:
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return 1
    if isinstance(value, types.SimpleNamespace):
        value = vars(value)
    children = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return sum(map(count, children))


def account(done: Conversion) -> int:
    return done.tensors + sum(done.dropped_tensors.values())


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=trees, zipped=st.booleans())
def test_no_tensor_is_lost_without_a_word(tmp_path, tree, zipped):
    # Copied, so that equal leaves are not one object: pickle keeps one of those, and it is counted once.
    tree = pickle.loads(pickle.dumps(tree))  # noqa: S301 - our own bytes
    try:
        done, found = converted(tree, tmp_path, zipped=zipped)
    except WeightsError:
        return
    assert done.tensors == len(found) > 0
    assert account(done) == count(tree)


def test_the_bytes_of_a_plain_pickle_are_named_for_what_they_are(tmp_path):
    buffer = io.BytesIO()
    pickle.dump({"w": np.ones(2)}, buffer)
    (tmp_path / "in.pkl").write_bytes(buffer.getvalue())
    with pytest.raises(WeightsError, match="plain pickle"):
        convert(tmp_path / "in.pkl", tmp_path / "out", trusted=True)
