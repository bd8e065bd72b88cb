"""Compares distilled sets without JAX with the compiled renderer and the training's transform."""

import dataclasses
import importlib
import json
import os
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gsdd_jax
from gsdd_jax import data, formats, parameterizations
from gsdd_jax.core import kinds, memory
from gsdd_jax.data import transforms as training
from gsdd_jax.formats import base, dct, entropy, labels, raster, transforms
from tests.commands import ROOT
from tests.dense import dense, random_gaussians
from tests.more_kinds import in_package

pytestmark = pytest.mark.usefixtures("quickly_compiled")

NORMALIZE = {"transform": {"name": "normalize", "mean": [0.5] * 3, "std": [0.2, 0.25, 0.5]}}


def saved(path, name, provenance=None):
    """Returns a file of two classes by the parameterization's own start; Gaussians with soft
    labels."""
    kind = parameterizations.build(name, (8, 12, 3), ipc=4, images_per_class=3, num_classes=2)
    images = np.random.default_rng(0).random((2 * kind.images_per_class, 8, 12, 3), np.float32)
    params = jax.jit(kind.init)(jax.random.key(1), images)
    labels = np.repeat(np.arange(2, dtype=np.int32), kind.images_per_class)
    set_ = parameterizations.stored(kind, params, labels, 0.0123, provenance or {"step": 3})
    if name == "gaussian":
        codes = np.random.default_rng(5).integers(0, 32, (len(labels), 2))
        set_ = dataclasses.replace(
            set_, soft_labels=np.float32(codes) * np.float32(8 / 31), label_bits=5
        )
    gsdd_jax.save(path, set_)
    return path


@pytest.mark.parametrize(("prefilter", "side"), [(True, 3), (False, 1)])
def test_gaussians_of_every_kind_by_matrices(prefilter, side):
    several = [random_gaussians(seed, 12, 2) for seed in range(3)]
    counts = [12, 7, 12]
    parts = [[p[:count] for p in image] for image, count in zip(several, counts, strict=True)]
    together = [np.concatenate(p) for p in zip(*parts, strict=True)]
    images = raster.rasterize(
        np.array(counts), *together, height=9, width=14, samples_per_side=side, prefilter=prefilter
    )
    for image, parameters in zip(images, parts, strict=True):
        expected, near, _ = dense(parameters, 9, 14, side=side, prefilter=prefilter)
        assert near.mean() < 0.1
        np.testing.assert_allclose(image[~near], expected[~near], atol=1e-5)


WITHOUT_JAX = """
import json, sys
for name in ("jax", "jaxlib", "jaxtyping", "flax", "optax", "ml_dtypes", "constriction", "orbax",
             "tensorflow", "tensorflow_datasets", "matplotlib", "tensorboardX"):
    sys.modules[name] = None
import gsdd_jax
found = gsdd_jax.load(sys.argv[1])
images, targets = found.numpy()
lines = []
doing = (
    lambda: gsdd_jax.load(sys.argv[2]),
    lambda: gsdd_jax.save(sys.argv[3], found),
    lambda: gsdd_jax.fit_images,
    lambda: gsdd_jax.gone,
)
for do in doing:
    try:
        do()
    except Exception as error:
        lines.append(f"{type(error).__name__}: {error}")
print(json.dumps([images.tolist(), targets.tolist(), lines]))
"""


def test_without_jax(tmp_path):
    """Reads a set in a Python that cannot import JAX, the compiled calls or what is slow."""
    path = saved(tmp_path / "set.safetensors", "gaussian", NORMALIZE)
    coded = saved(tmp_path / "coded.safetensors", "quantized")
    out = subprocess.run(
        [sys.executable, "-c", WITHOUT_JAX, path, coded, tmp_path / "new"], capture_output=True,
        text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    images, targets, (constriction, save, fit, gone) = json.loads(out.stdout)
    expected = gsdd_jax.load(path)
    rendered = (np.asarray(expected.images()) - 0.5) / np.array([0.2, 0.25, 0.5])
    np.testing.assert_allclose(images, rendered, atol=1e-4)
    np.testing.assert_allclose(targets, expected.targets, atol=1e-6)
    assert constriction.startswith(f"UsageError: {coded}: ")
    assert "pip install constriction" in constriction
    assert save.startswith(f"UsageError: {tmp_path / 'new'}: ")
    assert "ml_dtypes, which writes bfloat16" in save
    assert fit.startswith("ImportError: gsdd_jax.fit_images needs ")
    assert gone.startswith("AttributeError")


def test_what_the_description_refuses_is_not_read(tmp_path, monkeypatch):
    """Refuses a four-gigabyte sparse file that is no set."""
    path, size = tmp_path / "large.safetensors", 2**32
    header = json.dumps({"x": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    with open(path, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    monkeypatch.setattr("pathlib.Path.read_bytes", lambda path: pytest.fail("it is read"))
    with pytest.raises(gsdd_jax.UsageError, match="not a distilled set"):
        gsdd_jax.load(path)


# --- Kinds


GRAY = """
import dataclasses
from gsdd_jax.formats.base import Format

@dataclasses.dataclass(frozen=True)
class {kind}(Format):
    name = "{name}"
    def decode(self, params, height, width, resample="bilinear"):
        return params["gray"]
"""


@pytest.fixture
def more(tmp_path):
    """Writes a module of formats, and finds its kind."""

    def write(module, text):
        (tmp_path / f"{module}.py").write_text(text)
        importlib.invalidate_caches()
        return kinds.find("gsdd_jax.formats", module, base.Format)

    with in_package(formats, tmp_path):
        yield write


def test_a_kind_is_the_public_class_of_its_modules_name(more):
    kind = more("shade", GRAY.format(kind="Shade", name="shade"))
    assert (kind.name, kind.__name__) == ("shade", "Shade")
    assert "shade" in kinds.known("gsdd_jax.formats", base.Format)
    settings = {"name": "shade", "height": 2, "width": 3, "channels": 1, "images_per_class": 1}
    assert base.format_of(settings) == kind(2, 3, 1, 1)
    assert more("hidden", GRAY.format(kind="_Hidden", name="hidden")) is None
    assert more("other", GRAY.format(kind="Other", name="shade")) is None
    assert more("borrowed", "from gsdd_jax.formats.pixels import Pixels as borrowed") is None


@pytest.mark.parametrize(
    "name",
    ["os", "json.decoder", "..core.files", "base", "entropy", "../x", "", "pixels.py", "Pixels",
     "gsdd_jax.formats.pixels", "pixels\n", "__init__", None, 3, ["pixels"], {}],
)  # fmt: skip
def test_no_name_imports_what_the_packages_have_not(name, monkeypatch):
    """Records imports of a second look-up: during the first, modules import others."""
    imported, original = [], importlib.import_module
    for _ in range(2):
        with pytest.raises(
            gsdd_jax.UsageError,
            match="expected one of dct, ddif, frame_gaussian, fred, gaussian, haba",
        ):
            base.format_of({"name": name})
        monkeypatch.setattr(importlib, "import_module", lambda n: imported.append(n) or original(n))
    ours = ("gsdd_jax.formats.", "gsdd_jax.parameterizations.")
    assert imported and all(n.startswith(ours) and n.count(".") == 2 for n in imported)


# --- Transforms


@pytest.fixture(scope="module")
def real():
    """Returns training images of 8 x 12, and a set's description of their ZCA."""
    images = np.random.default_rng(3).integers(0, 256, (40, 8, 12, 3), np.uint8)
    return images, transforms.describe("zca", (), (), images)


@pytest.fixture
def pixels(tmp_path, real):
    """Returns the file of a set that was made with a ZCA."""
    made = {"transform": real[1], "data": {"name": "mine", "fingerprint": "ab" * 32}}
    return saved(tmp_path / "zca.safetensors", "pixels", made)


def test_the_zca_is_that_of_training(real, pixels, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))
    images, _ = real
    zca = training.fit_zca(images)
    test = jnp.asarray(np.random.default_rng(4).random((5, 8, 12, 3), np.float32))
    shuffled = np.random.default_rng(5).permutation(images)  # the order does not matter
    set_ = gsdd_jax.load(pixels)
    found = set_.find_transform(shuffled)
    np.testing.assert_allclose(found(np.asarray(test)), zca(test), atol=1e-4)
    whitened, targets = set_.numpy(transform=shuffled)
    np.testing.assert_allclose(whitened, zca(jnp.asarray(set_.images())), atol=1e-4)
    np.testing.assert_array_equal(targets, set_.labels)
    plain, _ = set_.numpy("unit")
    np.testing.assert_array_equal(plain, set_.images())
    clipped, _ = set_.numpy("unit", clip=True)
    np.testing.assert_array_equal(clipped, np.clip(plain, 0, 1))


def test_a_normalization_is_in_the_file(tmp_path):
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    made = {
        "transform": transforms.describe("normalize", mean, std, np.zeros((0, 1, 1, 3), np.uint8))
    }
    path = saved(tmp_path / "set.safetensors", "idc", json.loads(json.dumps(made)))
    test = np.random.default_rng(4).random((2, 5, 8, 12, 3), np.float32)
    expected = training.Normalize(jnp.array(mean), jnp.array(std))(jnp.asarray(test))
    set_ = gsdd_jax.load(path)
    np.testing.assert_allclose(set_.transform(test), expected, atol=1e-5)
    small = set_.numpy(height=4, width=6).images
    np.testing.assert_allclose(small, set_.transform(set_.images(4, 6)), atol=1e-6)
    with pytest.raises(gsdd_jax.UsageError, match="divide bytes by 255"):
        set_.transform(np.zeros((1, 8, 12, 3), np.uint8))
    with pytest.raises(gsdd_jax.UsageError, match="channels last, got"):
        set_.transform(np.zeros((1, 3, 8, 12), np.float32))
    for wrong in (np.float32([0, 255]), np.float64([-11, 0]), np.float32([0, np.nan])):
        wrong = np.resize(wrong, (2, 8, 12, 3))
        with pytest.raises(gsdd_jax.UsageError, match=r"in about \[0, 1\], got .*; divide bytes"):
            set_.transform(wrong)
    # A set's own images may be far beyond [0, 1].
    far = dataclasses.replace(set_, arrays={n: 300 * a for n, a in set_.arrays.items()})
    np.testing.assert_allclose(far.numpy().images, (far.images() - mean) / std, rtol=1e-4, atol=0.1)


def test_a_transform_as_a_file(real, pixels, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))
    set_ = gsdd_jax.load(pixels)
    found = set_.find_transform(real[0])
    path = tmp_path / "transform.safetensors"
    transforms.save(path, found, set_.transform_description())
    again = set_.find_transform(path)
    for name in ("mean", "whitening"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
    same = path.read_bytes()
    transforms.save(path, found, set_.transform_description())
    assert path.read_bytes() == same
    others = real[1] | {"images_sha256": "0" * 64, "data_fingerprint": "1" * 64}
    transforms.save(path, found, others)
    assert "the transform of another data set" in refusal(set_, path)
    for content in (same[:200], same[:-1], b"none", pixels.read_bytes()):
        path.write_bytes(content)
        assert str(path) in refusal(set_, path)
    assert "No such file" in refusal(set_, tmp_path / "none")


def refusal(set_, transform=None):
    """Returns the one-line error that says why there is no transform."""
    with pytest.raises(gsdd_jax.UsageError) as raised:
        set_.numpy(transform=transform)
    message = str(raised.value)
    assert len(message.splitlines()) == 1 and len(message) < 900
    return message


def test_nobody_gets_images_that_are_not_whitened(real, pixels, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))
    set_ = gsdd_jax.load(pixels)
    for message in (refusal(set_), refusal(dataclasses.replace(set_, provenance={}))):
        for way in ("launch.export --transform=PATH", "transform=IMAGES", "space='unit'"):
            assert way in message
    assert "zca transform of 'mine'" in refusal(set_)
    changed = real[0].copy()
    changed[3, 2, 1, 0] ^= 1
    assert "these 40 images are not the training images" in refusal(set_, changed)
    assert "got float32" in refusal(set_, np.zeros((40, 8, 12, 3), np.float32))
    before = {"config": {"data.transform": "zca"}}  # as in older files
    older = dataclasses.replace(set_, provenance=before)
    assert "an earlier version" in refusal(older, real[0])
    for wrong in ({"name": "pca"}, [], {"name": "normalize", "mean": [1.0], "std": [1.0]}):
        assert "provenance.transform" in refusal(
            dataclasses.replace(set_, provenance={"transform": wrong})
        )
    whitening = set_.find_transform(real[0])
    with pytest.raises(gsdd_jax.UsageError, match="channels last"):
        whitening(np.zeros((2, 3, 8, 12), np.float32))
    with pytest.raises(gsdd_jax.UsageError, match="expected shape"):
        set_.numpy(transform=real[0], height=4, width=6)
    with pytest.raises(ValueError, match="space: expected one of training, unit"):
        set_.numpy("zca")
    with pytest.raises(ValueError, match="clip: expected False"):
        set_.numpy(clip=True)


def test_a_matrix_by_the_data_on_disk(tmp_path, monkeypatch):
    """Finds no ZCA without data; then computes it from the data on disk; then reads the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    mini = data.load("cifar10_mini", resolution=8)
    config = {"data.name": "cifar10_mini", "data.resolution": 8, "data.transform": "zca"}
    made = {"config": config, "data": {"name": mini.name, "fingerprint": mini.fingerprint}}
    kind = parameterizations.build("pixels", (8, 8, 3), ipc=1, images_per_class=1)
    test = np.random.default_rng(0).random((10, 8, 8, 3), np.float32)
    path = tmp_path / "set.safetensors"
    set_ = gsdd_jax.DistilledSet(kind, {"pixels": test}, np.arange(10), 0.1, made)
    gsdd_jax.save(path, set_)
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "gsdd_jax.data.of_sets", None)
        assert "without gsdd_jax.data.of_sets it is not made" in refusal(gsdd_jax.load(path))
    expected = training.fit_zca(mini.train.images)(jnp.asarray(test))
    for _ in ("made", "kept"):
        np.testing.assert_allclose(gsdd_jax.load(path).transform(test), expected, atol=1e-4)
    for name, value in (("data.name", "cifar10"), ("data.name", 3), ("data.resolution", 10)):
        other = dataclasses.replace(set_, provenance=made | {"config": config | {name: value}})
        other = dataclasses.replace(
            other, provenance=other.provenance | {"data": {"fingerprint": "0" * 64}}
        )
        monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nowhere"))
        assert "space='unit'" in refusal(other)


# --- Frameworks


def test_batches(pixels):
    set_ = gsdd_jax.load(pixels)
    images, targets = set_.numpy("unit")
    passes = [list(set_.batches(3, seed=seed, epochs=2, space="unit")) for seed in (0, 0, 1)]
    for batches in passes:
        assert [len(batch.images) for batch in batches] == [3, 3, 2] * 2
    orders = []
    for batches in passes:
        seen = np.concatenate([batch.images for batch in batches])
        order = [int(np.flatnonzero((images == one).all((1, 2, 3)))[0]) for one in seen]
        labels = np.concatenate([batch.targets for batch in batches])
        np.testing.assert_array_equal(labels, targets[order])
        assert sorted(order[:8]) == sorted(order[8:]) == list(range(8))
        orders.append(order)
    assert orders[0] == orders[1] != orders[2]
    assert orders[0][:8] != orders[0][8:]
    with pytest.raises(ValueError, match="batch_size"):
        set_.batches(0, space="unit")
    for epochs in (0, -1):
        with pytest.raises(ValueError, match=f"epochs: expected at least 1, got {epochs}"):
            set_.batches(3, epochs=epochs, space="unit")


def test_torch(tmp_path, monkeypatch):
    """Uses a stand-in for PyTorch, which the tests do not need; then none."""
    hard, soft = (
        gsdd_jax.load(saved(tmp_path / f"{case}.safetensors", case))
        for case in ("pixels", "gaussian")
    )
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(gsdd_jax.UsageError, match=r"pip install torch, or use \.numpy\(\)"):
        hard.torch("unit")
    utils = types.SimpleNamespace(data=types.SimpleNamespace(TensorDataset=lambda *parts: parts))
    stand_in = types.SimpleNamespace(tensor=np.array, utils=utils)
    monkeypatch.setitem(sys.modules, "torch", stand_in)
    images, targets = hard.torch("unit")
    assert images.dtype == np.float32 and targets.dtype == np.int64
    np.testing.assert_array_equal(images, np.moveaxis(hard.images(), -1, 1))
    np.testing.assert_array_equal(targets, hard.labels)
    _, targets = soft.torch("unit")
    assert targets.dtype == np.float32
    np.testing.assert_allclose(targets.sum(1), 1, atol=1e-6)


def test_grain(tmp_path, monkeypatch):
    """Checks that Grain shuffles, batches and repeats the records; then goes without Grain."""
    hard, soft = (
        gsdd_jax.load(saved(tmp_path / f"{case}.safetensors", case, NORMALIZE))
        for case in ("pixels", "gaussian")
    )
    records, pixels = hard.grain(), hard.params["pixels"]
    assert len(records) == len(pixels) == 8
    for i in (0, 5, 7):
        expected = (pixels[i] - 0.5) / np.array([0.2, 0.25, 0.5])
        np.testing.assert_allclose(records[i]["image"], expected, atol=1e-5)
        assert records[i]["image"].dtype == np.float32 and records[i]["label"] == i // 4
    seen = list(hard.grain("unit").shuffle(seed=3).batch(3))
    assert [batch["image"].shape for batch in seen] == [(n, 8, 12, 3) for n in (3, 3, 2)]
    images, labels = (np.concatenate([batch[key] for batch in seen]) for key in ("image", "label"))
    order = [int(np.flatnonzero((pixels == image).all((1, 2, 3)))[0]) for image in images]
    assert sorted(order) == list(range(8)) != order
    np.testing.assert_array_equal(labels, hard.labels[order])
    probabilities = np.stack([record["label"] for record in soft.grain("unit")])
    np.testing.assert_allclose(probabilities, soft.targets)
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(gsdd_jax.UsageError, match=r"pip install grain, or use \.numpy\(\)"):
        hard.grain()


def test_the_committed_set_is_read_as_ever():
    """Reads an older file with less description."""
    path = ROOT / "benchmarks" / "results" / "cifar10_tm_ipc1_cpu" / "distilled.safetensors"
    set_ = gsdd_jax.load(path)
    assert set_.class_names is None
    np.testing.assert_allclose(set_.images(), parameterizations.images(set_), atol=1e-5)
    assert os.path.getsize(path) > set_.num_bytes == 118800


LAZY = """
import sys
import gsdd_jax
import gsdd_jax.parameterizations
for path in sys.argv[1:]:
    found = gsdd_jax.load(path)
    found.images(), found.numpy("unit"), found.num_bytes, next(found.batches(2, space="unit"))
assert "jax" in sys.modules
try:
    found.torch("unit")
except gsdd_jax.UsageError as error:
    assert "torch is not installed" in str(error)
try:
    gsdd_jax.parameterizations.images(found)
except RuntimeError as error:  # only now
    print(error)
"""


def test_arrays_of_a_set_start_no_device(tmp_path):
    """Reads arrays in a Python where starting a JAX device fails."""
    paths = [saved(tmp_path / name, name) for name in ("gaussian", "fred", "quantized")]
    out = subprocess.run(
        [sys.executable, "-c", LAZY, *paths], capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "nonsense"},
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    assert "nonsense" in out.stdout


def test_images_that_memory_does_not_hold(tmp_path, monkeypatch):
    """Refuses a small file that claims large images."""
    kind = parameterizations.find("gaussian")(4096, 4096, 3, 1000, 1)
    shapes = {"means": 2, "cholesky": 3, "colors": 3}
    arrays = {name: np.zeros((1000, 1, size), np.float32) for name, size in shapes.items()}
    params = kind.from_arrays(arrays | {"opacities": np.zeros((1000, 1), np.float32)})
    labels = np.zeros(1000, np.int32)
    gsdd_jax.save(tmp_path / "set", parameterizations.stored(kind, params, labels, 0.1))
    monkeypatch.setattr(memory, "available", lambda: 10 * 2**30)
    set_ = gsdd_jax.load(tmp_path / "set")
    line = (
        r"^1,000 images of 4096x4096x3: 187\.5 GiB of memory and up to 4 times that while "
        r"computing, expected at most the 10\.0 GiB that are free$"
    )
    for attempt in (set_.images, set_.numpy):
        with pytest.raises(gsdd_jax.UsageError, match=line):
            attempt(**({"space": "unit"} if attempt == set_.numpy else {}))
    assert set_.images(8, 8).shape == (1000, 8, 8, 3)


SHARES = dict(images_per_class=1, bytes_per_class=4000, num_classes=20)


@pytest.mark.parametrize(
    ("name", "claimed"),
    [
        ("dct", {}), ("ptq", {"groups": 1}), ("idc", {"factor": 1}), ("pixels", {}),
    ],
)  # fmt: skip
def test_a_small_file_of_large_images_is_refused(name, claimed):
    """Claims 20 images of 700 x 700 in 3.7 kB, or as many as are plausible."""
    kind = kinds.find("gsdd_jax.formats", name, base.Format).variant({"dtype": "codes"})
    claimed |= {} if name in ("dct", "ptq") else {"dtype": "codes"}
    kind = kind(height=700, width=700, channels=3, **SHARES, **claimed)
    specs = kind.array_specs(20)
    arrays = {n: np.zeros([s or 0 for s in spec.shape]) for n, spec in specs.items()}
    there = kind.used_bytes(arrays)
    arrays["codes"] = np.zeros(3700)
    with pytest.raises(gsdd_jax.UsageError, match=rf"codes: expected more than {there + 3700:,} "):
        dataclasses.replace(kind, bytes_per_class=10**6).check_bytes(arrays)
    few = dataclasses.replace(kind, height=40, width=40, bytes_per_class=10**6)
    few.check_bytes(arrays)


def test_a_forged_file_is_not_decoded(tmp_path, monkeypatch):
    kind = dct.DCT(700, 700, 3, **SHARES)
    arrays = {n: np.ones(s.shape[0] or 3600, s.dtype) for n, s in kind.array_specs(20).items()}
    set_ = gsdd_jax.DistilledSet(kind, arrays, np.arange(20, dtype=np.int32), 0.1)
    with monkeypatch.context() as patched:
        patched.setattr(base, "FREE_CODES", 10**9)
        gsdd_jax.save(tmp_path / "set", set_)
    monkeypatch.setattr(entropy, "_decoder", lambda payload: pytest.fail("it is decoded"))
    with pytest.raises(
        gsdd_jax.UsageError, match=r"set: codes: expected more than 3,\d+ bytes for"
    ):
        gsdd_jax.load(tmp_path / "set")


def test_few_bytes_of_many_soft_labels_are_not_decoded(monkeypatch):
    """Sure labels are stored in fixed width where range coding would take too few bytes."""
    classes = np.arange(600)
    sure = np.zeros((600, 600), np.float32)
    sure[classes, classes] = 8
    payload = labels.pack(sure, 2, classes[:, None], 600)
    assert len(payload) == 600 * 600 * 2 // 8
    np.testing.assert_array_equal(labels.unpack(payload, 2, classes[:, None], 600), sure)
    monkeypatch.setattr(entropy, "_decoder", lambda payload: pytest.fail("it is decoded"))
    with pytest.raises(gsdd_jax.UsageError, match="soft_labels: expected more than 40 bytes for 3"):
        labels.unpack(payload[:40], 2, classes[:, None], 600)


@pytest.mark.parametrize(
    "kind",
    [
        parameterizations.find("ddif")(8, 8, 3, 1, 1, 1024, 10.0),
        parameterizations.find("gaussian")(8, 8, 3, 1, 1, samples_per_side=16),
        parameterizations.find("pixels")(4096, 4096, 3, 1),
    ],
)
def test_what_images_are_rendered_with_is_counted(kind, monkeypatch):
    """Counts layers, sample points and other sizes: more or larger images take more memory."""
    monkeypatch.setattr(memory, "available", lambda: 2 * 2**30)
    base.checked_size(kind, 1, 64, 64, "bilinear")
    with pytest.raises(gsdd_jax.UsageError, match=r"^what 99 images of \d+x\d+x3 are rendered wi"):
        side = 512 if kind.height == 8 else 8
        base.checked_size(kind, 99, side, side, "bilinear")


def test_a_file_that_memory_does_not_hold_is_not_read(tmp_path, monkeypatch):
    path = saved(tmp_path / "set.safetensors", "pixels")
    monkeypatch.setattr(memory, "available", lambda: path.stat().st_size)
    monkeypatch.setattr(type(path), "read_bytes", lambda path: pytest.fail("it is read"))
    with pytest.raises(gsdd_jax.UsageError, match=r"set\.safetensors: its arrays of 0\.0 MiB, whi"):
        gsdd_jax.load(path)


def test_a_transform_that_memory_does_not_hold_is_not_read(tmp_path, monkeypatch):
    (tmp_path / "zca").write_bytes(bytes(1000))
    monkeypatch.setattr(memory, "available", lambda: 1000)
    with pytest.raises(gsdd_jax.UsageError, match=r"zca: its matrix: 0\.0 MiB of memory"):
        transforms.load(tmp_path / "zca", (8, 8, 3))


@pytest.mark.parametrize("value", [1e39, float("nan"), float("inf"), 10**400, True, "1"])
@pytest.mark.parametrize("name", ["mean", "std"])
def test_a_normalization_of_no_numbers(name, value):
    said = {"name": "normalize", "mean": [0.5] * 3, "std": [0.5] * 3}
    said[name] = [0.5, value, 0.5]
    with pytest.raises(gsdd_jax.UsageError, match=rf"^provenance\.transform\.{name}: expected 3"):
        transforms.from_description(said, 3)


LIMITED = """
import resource
from gsdd_jax.core import memory
resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
print(memory.available())
"""


def test_a_limit_of_the_process_counts():
    out = subprocess.run(
        [sys.executable, "-c", LIMITED], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert 0 < int(out.stdout) < 2**31
