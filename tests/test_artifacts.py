import hashlib
import json
import struct
import zlib

import pytest
import torch
from safetensors.torch import save_file

from benchmark import artifacts
from benchmark.spec import UsageError


@pytest.fixture
def tensors():
    stream = torch.Generator().manual_seed(0)
    return {
        "images": torch.randint(256, (3, 2, 4, 4), generator=stream, dtype=torch.uint8),
        "targets": torch.randn(3, 5, generator=stream),
        "half": torch.randn(7, generator=stream).half(),
        "scale": torch.tensor(0.5),
    }


@pytest.fixture
def file(tmp_path):
    return tmp_path / "new folder" / "set.safetensors"


def test_what_is_read_is_what_was_written(file, tensors):
    artifacts.write(file, tensors, {"method": "toy", "widths": (1, 2)})
    read, header = artifacts.read(file)
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)
    assert header == {"format": 1, "method": "toy", "widths": [1, 2]}
    assert artifacts.read_header(file) == header


def test_numbers_and_bytes_are_those_of_the_file(file, tensors):
    artifacts.write(file, tensors, {"history": list(range(1000))})
    assert artifacts.count_numbers(tensors) == 3 * 2 * 4 * 4 + 3 * 5 + 7 + 1
    content = file.read_bytes()
    (length,) = struct.unpack(
        "<Q", content[:8]
    )  # safetensors: the header's length, header, numbers
    assert artifacts.count_bytes(tensors) == len(content) - 8 - length
    spans = [
        part["data_offsets"]
        for name, part in json.loads(content[8 : 8 + length]).items()
        if name != "__metadata__"
    ]
    assert sum(end - start for start, end in spans) == artifacts.count_bytes(tensors)


def test_tensors_may_share_memory_be_strided_or_need_gradients(file):
    base = torch.arange(12.0).view(3, 4).requires_grad_()
    artifacts.write(file, {"rows": base[:1], "all": base, "transposed": base.T}, {})
    read, _ = artifacts.read(file)
    assert torch.equal(read["rows"], base[:1])
    assert torch.equal(read["transposed"], base.T)
    assert not read["all"].requires_grad


def test_a_method_may_store_nothing(file):
    artifacts.write(file, {}, {"method": "untrained"})
    tensors, header = artifacts.read(file)
    assert tensors == {}
    assert header["method"] == "untrained"
    assert artifacts.count_numbers(tensors) == artifacts.count_bytes(tensors) == 0


def test_a_fingerprint_is_of_the_tensors_alone(file, tensors):
    artifacts.write(file, tensors, {"seconds": 1.0})
    first = artifacts.fingerprint(file)
    backwards = dict(reversed(tensors.items()))
    artifacts.write(file, backwards, {"seconds": 2.0})
    assert artifacts.fingerprint(file) == first
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    assert first == digest.hexdigest()


@pytest.mark.parametrize(
    "change",
    [
        lambda t: {**t, "scale": t["scale"] + 1e-7},
        lambda t: {**t, "targets": t["targets"].view(5, 3)},
        lambda t: {**t, "half": t["half"].view(torch.bfloat16)},
        lambda t: {("a" if name == "half" else name): value for name, value in t.items()},
        lambda t: {name: value for name, value in t.items() if name != "scale"},
    ],
    ids=["value", "shape", "type", "name", "absence"],
)
def test_any_change_of_a_tensor_changes_the_fingerprint(file, tensors, change):
    artifacts.write(file, tensors, {})
    first = artifacts.fingerprint(file)
    artifacts.write(file, change(tensors), {})
    assert artifacts.fingerprint(file) != first


def test_a_failed_write_leaves_the_old_file(file, tensors):
    artifacts.write(file, tensors, {})
    before = file.read_bytes()
    with pytest.raises(TypeError, match="not JSON serializable"):
        artifacts.write(file, tensors, {"device": torch.device("cpu")})
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def truncated(file):
    file.write_bytes(file.read_bytes()[:-1])


def not_safetensors(file):
    file.write_bytes(b"PK\x03\x04 a pickle, perhaps")


def empty(file):
    file.write_bytes(b"")


def foreign(file):
    save_file({"x": torch.zeros(1)}, file)


def with_header(text):
    return lambda file: save_file({"x": torch.zeros(1)}, file, metadata={"header": text})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.unlink(), "no such file"),
        (truncated, "not a whole safetensors file"),
        (not_safetensors, "not a whole safetensors file"),
        (empty, "not a whole safetensors file"),
        (lambda file: (file.unlink(), file.mkdir()), "not a whole safetensors file"),
        (foreign, "has no header of this benchmark"),
        (with_header("not json"), "has no header of this benchmark"),
        (with_header("[1]"), "has no header of this benchmark"),
        (with_header("{}"), "has no header of this benchmark"),
        (with_header("[" * 100_000), "has no header of this benchmark"),
        (with_header('{"format": 2}'), "format 2, expected 1"),
    ],
)
def test_a_file_of_another_kind_is_refused_in_one_line(file, tensors, damage, message):
    artifacts.write(file, tensors, {})
    damage(file)
    for read in (artifacts.read, artifacts.read_header, artifacts.fingerprint):
        with pytest.raises(UsageError, match=f"^{file}: {message}") as caught:
            read(file)
        assert "\n" not in str(caught.value)


def test_what_is_stored_is_counted_by_component():
    tensors = {
        "images": torch.zeros(2, 3, 4, 4, dtype=torch.uint8),
        "image_bases": torch.zeros(5),
        "target_mean": torch.zeros(7),
        "logits": torch.zeros(2, 10),
        "learning_rate": torch.zeros(1),
    }
    counted = artifacts.count_by_component(tensors)
    assert counted == {"pixels": [96, 96], "bases": [12, 48], "labels": [20, 80], "other": [1, 4]}
    assert sum(numbers for numbers, _ in counted.values()) == artifacts.count_numbers(tensors)
    assert sum(size for _, size in counted.values()) == artifacts.count_bytes(tensors)


def test_compressed_bytes_are_those_of_one_deflate_stream():
    noise = torch.randn(100, generator=torch.Generator().manual_seed(0))
    tensors = {"noise": noise, "zeros": torch.zeros(1000, 4)[:, :2]}
    raw = b"".join(tensor.contiguous().numpy().tobytes() for tensor in tensors.values())
    assert artifacts.compressed_bytes(tensors) == len(zlib.compress(raw, 6)) < 600
    assert artifacts.compressed_bytes({}) == len(zlib.compress(b"", 6))
