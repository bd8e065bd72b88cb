"""Bytes of anyone's distilled sets."""

import collections
import io
import json
import pickle
import zipfile

import numpy as np
import pytest
import safetensors.numpy

import gsdd_jax
from gsdd_jax.core.errors import UsageError, UsageWarning
from gsdd_jax.formats import counting
from gsdd_jax.formats.counting import count

IMAGES = np.zeros((20, 3, 8, 8), np.float32)


class _Global:
    """Pickles as the name of something in PyTorch, which is not installed."""

    def __init__(self, module, name, *arguments):
        self.of = module, name, arguments


class _Pickler(pickle._Pickler):
    """Writes a file's structure as `torch.save` does, by protocol 2."""

    def persistent_id(self, value):
        return value[1:] if isinstance(value, tuple) and value[:1] == ("persistent",) else None

    def save(self, value, save_persistent_id=True):
        if not isinstance(value, _Global):
            return super().save(value, save_persistent_id)
        module, name, arguments = value.of
        self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())
        if arguments:
            super().save(arguments)
            self.write(pickle.REDUCE)


def torch_file(path, value, storages, change=lambda members: members):
    """Writes a .pt file of a value and its storages [key] -> array."""
    content = io.BytesIO()
    _Pickler(content, protocol=2).dump(value)
    members = {"archive/data.pkl": content.getvalue()}
    members |= {f"archive/data/{key}": array.tobytes() for key, array in storages.items()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in change(members).items():
            archive.writestr(name, data)
    return path


def tensor(storages, array, storage_type, key=None, offset=0):
    """Returns a tensor of a .pt file, and stores its numbers unless they are there as `key`."""
    steps = [step // array.itemsize for step in array.strides]
    if key is None:
        key = str(len(storages))
        storages[key] = array
    storage = (
        "persistent", "storage", _Global("torch", storage_type), key, "cpu", storages[key].size
    )  # fmt: skip
    arguments = storage, offset, array.shape, tuple(steps), False, collections.OrderedDict()
    return _Global("torch._utils", "_rebuild_tensor_v2", *arguments)


def bytes_of(said):
    return {part["name"].rpartition("/")[2]: part["bytes"] for part in said["parts"]}


def test_counts_what_each_array_takes(tmp_path):
    """Checks images, labels and a decoder of four kinds of files against their sizes."""
    storages = {}
    labels = np.repeat(np.arange(10), 2)
    value = {"images": tensor(storages, IMAGES, "FloatStorage"), "lr": 0.1, "steps": [1, None]}
    value["labels"] = tensor(storages, labels, "LongStorage")
    torch_file(tmp_path / "set.pt", value, storages)
    safetensors.numpy.save_file({"w": np.zeros((3, 5), np.float16)}, tmp_path / "g.safetensors")
    said = count([tmp_path / "set.pt"], [tmp_path / "g.safetensors"])
    assert bytes_of(said) == {
        "set.pt: images": IMAGES.nbytes, "set.pt: labels": 0, "g.safetensors: w": 30
    }  # fmt: skip
    assert said["num_bytes"] == IMAGES.nbytes + 30 and said["num_classes"] == 10
    assert said["bytes_per_class"] == said["num_bytes"] / 10
    assert said["float32_images"] == pytest.approx(said["num_bytes"] / 10 / (4 * 3 * 64))
    assert json.loads(json.dumps(said)) == said

    np.savez(tmp_path / "set.npz", images=IMAGES.astype(np.uint8), syn_lr=np.float32(0.1))
    np.save(tmp_path / "soft_labels.npy", np.zeros((20, 7), np.float32))
    said = count([tmp_path / "set.npz", tmp_path / "soft_labels.npy"])
    labels = 20 * 7 * 4
    assert bytes_of(said) == {
        "set.npz: images": IMAGES.size, "set.npz: syn_lr": 4, "soft_labels.npy": labels
    }  # fmt: skip
    assert said["num_classes"] == 7
    assert "560" in counting.text(said)


def test_counts_each_stored_number_once(tmp_path):
    """Checks views of one storage, compression, and labels of unequal classes."""
    storages = {}
    whole = np.arange(60, dtype=np.float32)
    first = tensor(storages, whole.reshape(20, 3), "FloatStorage")
    again = tensor(storages, whole[:30].reshape(10, 3), "FloatStorage", key="0", offset=30)
    torch_file(tmp_path / "views.pt", [first, again, first], storages)
    assert count([tmp_path / "views.pt"], num_classes=5)["num_bytes"] == whole.nbytes
    np.savez_compressed(tmp_path / "packed.npz", images=IMAGES, labels=np.arange(20) % 3)
    said = count([tmp_path / "packed.npz"])
    with zipfile.ZipFile(tmp_path / "packed.npz") as archive:
        packed = archive.getinfo("images.npy").compress_size
    assert packed < IMAGES.nbytes and said["num_bytes"] == packed + 3 * 4


def test_counts_files_of_pictures_and_own_sets(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(3):
            (tmp_path / "set" / name / f"{i}.jpg").write_bytes(bytes(100 + i))
    (tmp_path / "set" / "soft_labels.csv").write_text("0.5,0.5\n")
    (tmp_path / "set" / "export.json").write_text("{}")  # of our own export
    said = count([tmp_path / "set"])
    assert bytes_of(said) == {"cat": 303, "dog": 303, "soft_labels.csv": 8}
    assert said["num_classes"] == 2 and said["float32_images"] is None
    ours = gsdd_jax.load("cifar10-12kB")
    said = count(["cifar10-12kB"])
    assert said["num_bytes"] == ours.num_bytes and said["num_classes"] == 10
    assert any("whitening" in what for what in said["not_counted"])


def test_warns_of_labels_that_are_not_one_per_image(tmp_path):
    save = lambda name, array: np.save(tmp_path / name, array)
    save("images.npy", IMAGES)
    save("latents.npy", np.zeros((9, 4, 8, 8), np.float32))
    save("labels.npy", np.arange(20) % 5)
    save("few_labels.npy", np.arange(7) % 5)
    save("soft_labels.npy", np.zeros((3, 5), np.float32))
    of = lambda *names: [tmp_path / f"{name}.npy" for name in names]
    with pytest.warns(UsageWarning, match="hard labels: .* one per image, got 7 labels for 20"):
        assert count(of("images", "few_labels"))["num_bytes"] == IMAGES.nbytes + 5 * 4
    with pytest.warns(UsageWarning, match="soft labels: .* got 3 labels for 20 images"):
        count(of("images", "labels", "soft_labels"))
    # Warnings are errors: one or two labels per image, and codes.
    for names in (["images", "labels"], ["images", "labels", "labels"], ["latents", "few_labels"]):
        count(of(*names), num_classes=5)


def _loop():
    value = []
    for _ in range(60):
        value = [value, value]
    value.append(value)
    return value


HOSTILE = {
    "a list of numbers": (lambda s: {"pixels": list(range(100))}, "plain values"),
    "beyond its storage": (lambda s: tensor(s, IMAGES, "FloatStorage", offset=1), "its storage"),
    "names os.system": (lambda s: _Global("os", "system", "true"), "os.system"),
    "a module": (lambda s: {"m": _Global("torch.nn", "Linear", 2)}, "torch.nn.Linear"),
    "strange keys": (lambda s: {(1, 2): 3}, "names as keys"),
    "huge": (lambda s: tensor(s, IMAGES, "FloatStorage", offset=-1), "dense tensor"),
    "a loop": (lambda s: _loop(), "their number"),
    "not a storage": (
        lambda s: _Global("torch._utils", "_rebuild_tensor_v2", 1, 0, (2,), (1,)), "dense tensor",
    ),
}  # fmt: skip


@pytest.mark.parametrize("value, told", HOSTILE.values(), ids=HOSTILE)
def test_refuses_hostile_pickles(tmp_path, value, told):
    storages = {}
    path = torch_file(tmp_path / "x.pt", value(storages), storages)
    with pytest.raises(UsageError, match=told):
        count([path])


def test_refuses_what_it_cannot_count(tmp_path):
    storages = {}
    short = {"archive/data/0": bytes(8)}
    value = [tensor(storages, IMAGES, "FloatStorage")]
    torch_file(tmp_path / "short.pt", value, storages, lambda members: members | short)
    (tmp_path / "old.pt").write_bytes(b"\x80\x02")
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    np.save(tmp_path / "images.npy", IMAGES)
    np.save(tmp_path / "labels.npy", np.arange(20) % 4)
    np.save(tmp_path / "float_labels.npy", np.zeros(20))
    np.save(tmp_path / "many_labels.npy", np.zeros((1 << 24) + 1, np.uint8))
    np.savez(tmp_path / "empty.npz", images=IMAGES[:0], labels=np.zeros(0, np.int32))
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (-30000,), }"
    raw = b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header + b"\n"
    (tmp_path / "minus.npy").write_bytes(raw)
    (tmp_path / "text.txt").write_text("")
    for names, classes, told in (
        (["short.pt"], None, "expected 15360 bytes"),
        (["old.pt"], None, "PyTorch 1.6"),
        (["objects.npy"], None, "array of numbers"),
        (["text.txt"], None, "folder of pictures"),
        (["missing.npy"], None, "missing.npy"),
        (["https://localhost/x.pt"], None, "got a URL"),
        (["float_labels.npy"], None, "labels as integers"),
        (["many_labels.npy"], None, "at most 16,777,216 labels"),
        (["empty.npz"], None, "at least 1"),
        (["minus.npy"], 4, "array of numbers"),
        ([], 3, "one or more"),
        (["images.npy"], None, "their number"),
        (["images.npy"], 0, "at least 1"),
        (["images.npy", "labels.npy"], 3, "one number, got 4"),
    ):
        with pytest.raises(UsageError, match=told):
            count([name if ":" in name else tmp_path / name for name in names], (), classes)


def test_a_name_is_one_line(tmp_path):
    np.savez(tmp_path / "x.npz", **{"im\n5 bytes, 10 classes: 0.5 bytes per class": IMAGES})
    lines = counting.text(count([tmp_path / "x.npz"], num_classes=2)).splitlines()
    assert len(lines) == 2 and lines[0].endswith("15,360")
    for paths, classes in ((str(tmp_path / "x.npz"), 2), ([3], 2), ([tmp_path / "x.npz"], 2.5)):
        with pytest.raises(UsageError, match="count: "):
            count(paths, num_classes=classes)
