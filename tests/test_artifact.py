"""Tests distilled sets as files."""

import copy
import dataclasses
import functools
import hashlib
import json
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.flax
import safetensors.numpy

import gsdd_jax
from gsdd_jax import parameterizations
from gsdd_jax.formats import base, transforms

pytestmark = pytest.mark.usefixtures("quickly_compiled")

NAMED_ARRAYS = ["pixels", "idc", "fred", "ddif"]
SHARING = ["rtp", "haba", "speed", "nsd", "hmn"]
NAMES = [
    "gaussian", "video_gaussian", *NAMED_ARRAYS, *SHARING, "ptq", "quantized", "video_quantized",
    "dct",
]  # fmt: skip
FILES = [*NAMES, "fred in codes", "soft labels"]  # the last has labels of five bits
COUNTS = ("images_per_class", "num_gaussians", "num_classes", "channels")


@functools.partial(jax.jit, static_argnums=0)  # one program for all tests of a kind
def initial(kind, key, images):
    return kind.init(key, images)


@functools.cache  # tests change copies
def some_set(name="gaussian", shape=(8, 8, 3), ipc=1, images_per_class=4, **options):
    if name == "soft labels":
        return softened(some_set("gaussian", shape, ipc, images_per_class=3, **options))
    if name.endswith(" in codes"):
        options |= {"dtype": "codes"}
        name = name.removesuffix(" in codes")
    if name in ("haba", "hmn"):
        ipc = max(ipc, 2)  # a hallucinator or a decoder takes more than an image
    kind = parameterizations.build(
        name, shape, ipc=ipc, images_per_class=images_per_class, num_classes=2, **options
    )
    images = np.random.default_rng(0).random((2 * kind.images_per_class, *shape), np.float32)
    params = initial(kind, jax.random.key(1), images)
    labels = np.repeat(np.arange(2, dtype=np.int32), kind.images_per_class)
    return parameterizations.stored(kind, params, labels, 0.0123, {"note": "ä", "step": 3})


def softened(distilled, bits=5):
    """Returns the set with soft labels of two classes."""
    codes = np.random.default_rng(bits).integers(0, 2**bits, (len(distilled.labels), 2))
    logits = np.float32(codes) * np.float32(8 / (2**bits - 1))
    return dataclasses.replace(distilled, soft_labels=logits, label_bits=bits)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gaussian", {}),
        ("gaussian", {"opacity": False, "samples_per_side": 1}),
        ("gaussian", {"bfloat16": False, "prefilter": False}),
        *((name, {}) for name in FILES[1:]),
        *((name, {"dtype": "bfloat16"}) for name in [*NAMED_ARRAYS, *SHARING]),
        *((name, {"dtype": "codes"}) for name in NAMED_ARRAYS if name != "fred"),
        ("quantized", {"coding": "none"}),
    ],
)
def test_round_trip(tmp_path, name, options):
    distilled = some_set(name, **options)
    path = tmp_path / "set.safetensors"
    gsdd_jax.save(path, distilled)
    loaded = gsdd_jax.load(path)
    assert parameterizations.of_format(loaded.format) == distilled.format
    assert loaded.provenance == distilled.provenance
    assert loaded.learning_rate == pytest.approx(0.0123)
    np.testing.assert_array_equal(loaded.labels, distilled.labels)
    assert loaded.labels.dtype == np.int32
    np.testing.assert_array_equal(loaded.targets, distilled.targets)
    assert (loaded.num_bytes, loaded.label_bits) == (distilled.num_bytes, distilled.label_bits)
    shown = parameterizations.images(loaded)
    np.testing.assert_array_equal(shown, parameterizations.images(distilled))
    np.testing.assert_allclose(loaded.images(), shown, atol=1e-5)
    assert loaded.images().shape == (len(loaded.labels), 8, 8, 3)
    gsdd_jax.save(tmp_path / "again.safetensors", loaded)
    assert path.read_bytes() == (tmp_path / "again.safetensors").read_bytes()


def test_the_file_holds_what_the_budget_counts(tmp_path):
    distilled = some_set()
    gsdd_jax.save(tmp_path / "set.safetensors", distilled)
    with safetensors.safe_open(tmp_path / "set.safetensors", framework="flax") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    count = distilled.format.num_gaussians
    assert distilled.num_bytes == 8 * count * 9 * 2
    parameters = [t for n, t in tensors.items() if n not in ("labels", "learning_rate")]
    assert sum(t.size * t.dtype.itemsize for t in parameters) == distilled.num_bytes
    assert {t.dtype.name for t in parameters} == {"bfloat16"}
    # Rendered from the file's own numbers, without the package's parameterization.
    again = gsdd_jax.rasterize(
        *(tensors[n].astype(jnp.float32) for n in ("means", "cholesky", "colors", "opacities")),
        height=8,
        width=8,
    )
    np.testing.assert_array_equal(again, parameterizations.images(distilled))


@pytest.mark.parametrize(("name", "bits"), [("gaussian", 2), ("gaussian", 7), ("quantized", 8)])
def test_soft_labels_are_packed_codes_that_count(tmp_path, name, bits):
    path, hard = tmp_path / "set.safetensors", some_set(name, images_per_class=3)
    distilled = softened(hard, bits)
    gsdd_jax.save(path, distilled)
    header, arrays = raw(path)
    packed = np.asarray(arrays["soft_labels"])
    assert header["label_bits"] == bits
    assert len(packed) == math.ceil(6 * 2 * bits / 8)
    assert distilled.num_bytes == hard.num_bytes + len(packed)
    assert distilled.num_bytes == sum(
        a.size * a.dtype.itemsize for n, a in arrays.items() if n not in ("labels", "learning_rate")
    )
    digits = "".join(f"{byte:08b}" for byte in packed)
    codes = [int(digits[i * bits : (i + 1) * bits], 2) for i in range(12)]
    loaded = gsdd_jax.load(path)
    np.testing.assert_allclose(
        loaded.soft_labels.ravel(), 8 * np.array(codes) / (2**bits - 1), rtol=1e-6
    )
    np.testing.assert_array_equal(loaded.soft_labels, distilled.soft_labels)
    odds = np.exp(np.float64(loaded.soft_labels))
    np.testing.assert_allclose(loaded.targets, odds / odds.sum(1, keepdims=True), rtol=1e-5)
    gsdd_jax.save(path, hard)
    header, arrays = raw(path)
    assert "label_bits" not in header and "soft_labels" not in arrays


def test_soft_labels_that_are_damaged(tmp_path):
    path = tmp_path / "set.safetensors"
    gsdd_jax.save(path, some_set("soft labels"))
    header, arrays = raw(path)
    for bits in (None, 0, 1, 9, 2.0, True, "5", [5]):
        write_raw(path, header | {"label_bits": bits}, arrays)
        assert "label_bits: expected an integer" in refusal(path)
    write_raw(path, header | {"label_bits": 4}, arrays)
    assert "soft_labels: expected at most 6 bytes" in refusal(path)
    write_raw(path, {n: v for n, v in header.items() if n != "label_bits"}, arrays)
    assert "unknown array 'soft_labels'" in refusal(path)
    packed = arrays["soft_labels"].copy()
    packed[-1] += 1  # 60 bits, then four unused
    write_raw(path, header, arrays | {"soft_labels": packed})
    assert "soft_labels: 8 bytes are not what their codes take" in refusal(path)


def test_soft_labels_are_range_coded_where_that_takes_fewer_bytes(tmp_path):
    """By the entropy of the codes of images' own classes and of all others."""
    rng, classes, bits = np.random.default_rng(0), np.repeat(np.arange(10), 40), 4
    codes = rng.choice(16, (400, 10), p=np.r_[0.5, 0.2, 0.1, 0.1, np.full(12, 0.1 / 12)])
    codes[np.arange(400), classes] = 15 - rng.binomial(2, 0.1, 400)
    kind = parameterizations.build("pixels", (2, 2, 3), ipc=40, images_per_class=1, num_classes=10)
    pixels = {"pixels": np.zeros((400, 2, 2, 3), np.float32)}
    hard = parameterizations.stored(kind, pixels, classes.astype(np.int32), 0.01, {})
    logits = np.float32(codes) * np.float32(8 / 15)
    soft = dataclasses.replace(hard, soft_labels=logits, label_bits=bits)
    gsdd_jax.save(tmp_path / "set.safetensors", soft)
    loaded = gsdd_jax.load(tmp_path / "set.safetensors")
    np.testing.assert_array_equal(loaded.soft_labels, logits)
    own = np.arange(10) == classes[:, None]
    bytes_ = 2 * 16 + sum(
        -n * np.log2(n / part.size) / 8
        for part in (codes[own], codes[~own])
        for n in np.bincount(part)
        if n
    )
    stored = loaded.num_bytes - hard.num_bytes
    assert bytes_ < stored < bytes_ + 12 < 400 * 10 * bits / 8
    header, arrays = raw(tmp_path / "set.safetensors")
    assert len(arrays["soft_labels"]) == stored
    for damaged in (arrays["soft_labels"][:20], np.zeros_like(arrays["soft_labels"])):
        write_raw(tmp_path / "set.safetensors", header, arrays | {"soft_labels": damaged})
        assert "soft_labels" in refusal(tmp_path / "set.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_bits": 0}, "label_bits: expected an integer from 2 to 8, got 0"),
        (
            {"label_bits": 3},
            r"soft_labels: expected logits on the grid of 8 values, got \d+ others",
        ),
        ({"soft_labels": lambda a: a + 8}, "soft_labels: expected logits on the grid"),
        ({"soft_labels": lambda a: a * np.nan}, "grid of 32 values, got 12 others"),
        ({"soft_labels": lambda a: a[:, :1]}, r"soft_labels: expected shape \[6, 2\], of images"),
    ],
)
def test_save_refuses_soft_labels_that_are_none(tmp_path, changes, message):
    some = some_set("soft labels")
    changes = {n: c(getattr(some, n)) if callable(c) else c for n, c in changes.items()}
    with pytest.raises(gsdd_jax.UsageError, match=message):
        gsdd_jax.save(tmp_path / "set.safetensors", dataclasses.replace(some, **changes))
    assert not (tmp_path / "set.safetensors").exists()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gaussian", {"bfloat16": False}),
        *(
            (name, {"dtype": dtype})
            for name in [*NAMED_ARRAYS, *SHARING]
            for dtype in ("float32", "bfloat16")
        ),
        ("quantized", {"coding": "none"}),
        ("quantized", {}),
        ("video_quantized", {}),
        ("ptq", {"bits": 3}),
        ("dct", {}),
    ],
)
def test_a_file_stays_within_the_budget(tmp_path, name, options):
    path, shape, ipc = tmp_path / "set.safetensors", (10, 18, 1), 4
    distilled = some_set(name, shape, ipc, **options)
    gsdd_jax.save(path, distilled)
    # The payload of the file itself: what follows its header, less labels and learning rate.
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    free = sum(
        header[n]["data_offsets"][1] - header[n]["data_offsets"][0]
        for n in ("labels", "learning_rate")
    )
    payload = len(content) - start - free
    budget = 2 * 4 * ipc * math.prod(shape)
    assert payload == distilled.num_bytes <= budget
    if name in ("pixels", "idc", "ddif"):  # no further image would fit
        assert (budget - payload) // 2 < payload // len(distilled.labels)
    if name == "rtp":
        assert budget - payload < 2 * distilled.arrays["addresses"][0].size * 4
    np.testing.assert_array_equal(gsdd_jax.load(path).images(), distilled.images())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(height=0, width=8), "height: expected an integer from 1 to 4096, got 0"),
        (dict(height=8, width=5000), "width: expected an integer from 1 to 4096, got 5000"),
        (dict(height=8), "height, width: expected both or neither, got 8 and None"),
        (dict(width=8), "height, width: expected both or neither, got None and 8"),
        (dict(resample="cubic"), "resample: expected one of bilinear, nearest, got 'cubic'"),
    ],
)
def test_sizes_that_there_are_not(arguments, message):
    for images in (gsdd_jax.DistilledSet.images, parameterizations.images):
        with pytest.raises(ValueError, match=message):
            images(some_set("pixels"), **arguments)


@pytest.mark.parametrize("name", NAMES[:-1])  # codes and steps of dct are bounded
def test_no_images_are_had_that_are_not_finite(tmp_path, name):
    """Stores finite parameters whose images overflow, in float32 and bfloat16."""
    good, path, most = some_set(name), tmp_path / "huge.safetensors", np.float32(1.75 * 2**127)
    huge = {n: most * np.sign(a) for n, a in good.arrays.items() if a.dtype.kind == "f"}
    if name == "gaussian":  # only colors; moved Gaussians would be invisible
        huge = {"colors": np.full_like(good.arrays["colors"], most)}
    if "quantized" in name:
        huge = {"ends": np.broadcast_to([-most, most], good.arrays["ends"].shape)}
    if name == "video_quantized":  # only colors, too
        huge = {"ends": good.arrays["ends"].copy()}
        huge["ends"][5:8] = -most, most
    gsdd_jax.save(path, dataclasses.replace(good, arrays=good.arrays | huge))
    set_ = gsdd_jax.load(path)
    ways = (set_.images, lambda: parameterizations.images(set_), lambda: set_.numpy("unit").images)
    stretched = transforms.Normalize(np.zeros(3, np.float32), np.full(3, 0.1, np.float32))
    for images in (*ways, lambda: set_.numpy(transform=stretched).images):
        try:
            assert np.isfinite(images()).all()
        except gsdd_jax.UsageError as error:
            assert str(error).startswith(f"{path}: expected finite images")
        else:
            assert name in ("pixels", "idc", "fred") and images in ways
    with pytest.raises(gsdd_jax.UsageError, match=r"^DistilledSet\(.*\): expected finite images"):
        dataclasses.replace(set_, source="").numpy(transform=stretched)


def test_a_set_is_shown_in_one_line_whatever_its_file_says():
    named = {"data": {"name": "a\n\x1b[31m" + "x" * 1000}}
    shown = repr(dataclasses.replace(some_set("pixels"), provenance=named))
    assert shown.isprintable()
    assert "of a\\n\\x1b[31mxxx" in shown
    assert len(shown) < 200


def test_unreadable_files_are_named(tmp_path):
    path = tmp_path / "set.safetensors"
    with pytest.raises(gsdd_jax.UsageError, match="No such file"):
        gsdd_jax.load(path)
    path.write_bytes(b"not a set at all")
    with pytest.raises(gsdd_jax.UsageError, match="not a readable safetensors file"):
        gsdd_jax.load(path)
    with pytest.raises(gsdd_jax.UsageError, match="not a distilled set; move it away"):
        gsdd_jax.save(path, some_set())
    assert path.read_bytes() == b"not a set at all"
    path.unlink()
    gsdd_jax.save(path, some_set())
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(gsdd_jax.UsageError, match="not a readable safetensors file"):
        gsdd_jax.load(path)
    path.write_bytes(safetensors.numpy.save({"a": np.zeros(3)}))
    with pytest.raises(gsdd_jax.UsageError, match="not a distilled set"):
        gsdd_jax.load(path)
    with pytest.raises(gsdd_jax.UsageError, match="not a distilled set; move it away"):
        gsdd_jax.save(path, some_set())
    path.write_bytes(whole)
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    path.write_bytes(safetensors.numpy.save({"labels": np.zeros(3)}, metadata))
    with pytest.raises(gsdd_jax.UsageError, match="'learning_rate' is missing"):
        gsdd_jax.load(path)
    header = json.loads(metadata["gsdd_jax"])
    header["parameterization"]["name"] = "splines"
    metadata["gsdd_jax"] = json.dumps(header)
    path.write_bytes(safetensors.numpy.save({"labels": np.zeros(3)}, metadata))
    with pytest.raises(gsdd_jax.UsageError, match="expected one of dct, ddif, frame_gaussian"):
        gsdd_jax.load(path)


def raw(path):
    """Returns a file's description without digests, and its arrays, by safetensors only."""
    with safetensors.safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["gsdd_jax"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del header["sha256"]
    return header, arrays


def write_raw(path, header, arrays):
    """Writes a file with right digests, which refuse nothing first, unless `header` has some."""
    if not isinstance(header, str) and "sha256" not in header:
        parts = {n: json.dumps(part, sort_keys=True).encode() for n, part in header.items()}
        parts = {n: a.tobytes() for n, a in arrays.items()} | parts
        parts.pop("format", None)
        digests = {n: hashlib.sha256(part).hexdigest() for n, part in parts.items()}
        header = header | {"sha256": digests}
    text = header if isinstance(header, str) else json.dumps(header)
    path.write_bytes(safetensors.numpy.save(arrays, {"gsdd_jax": text}))


def refusal(path):
    """Returns the one-line error that refuses a file."""
    with pytest.raises(gsdd_jax.UsageError) as raised:
        gsdd_jax.load(path)
    message = str(raised.value)
    assert message.startswith(f"{path}: ")
    assert len(message.splitlines()) == 1
    assert len(message) < len(str(path)) + 500
    return message


# Values of every kind that no field accepts.
WRONG = (None, [], {}, [1], "8", "", 1.5, math.nan, math.inf, -1, -8, 1e999, "9" * 5000)


def nested(depth):
    return '{"a":' * depth + "1" + "}" * depth


@functools.cache
def described(name, folder):
    """Returns the description and the arrays of a valid file."""
    path = folder / f"{name}.safetensors"
    gsdd_jax.save(path, some_set(name))
    header, arrays = raw(path)
    write_raw(path, header, arrays)
    gsdd_jax.load(path)
    return header, arrays


@pytest.fixture(params=FILES)
def good(request, tmp_path, tmp_path_factory):
    """(path, description, arrays) of a good file; `path` is to be written."""
    header, arrays = described(request.param, tmp_path_factory.getbasetemp())
    return tmp_path / "set.safetensors", copy.deepcopy(header), arrays


def test_every_field_of_the_description_is_checked(good):
    path, header, arrays = good
    for field, value in header["parameterization"].items():
        changed = copy.deepcopy(header)
        del changed["parameterization"][field]
        write_raw(path, changed, arrays)
        if field in base.format_of(header["parameterization"]).since:
            gsdd_jax.load(path)
        else:
            assert (f": {field} is missing" if field != "name" else "got None") in refusal(path)
        wrong = [w for w in WRONG if not (isinstance(value, float) and w == 1.5)]
        if isinstance(value, bool):
            wrong += [0, 1, "true"]
        elif isinstance(value, int):  # also contradicted by the arrays or the rasterizer
            wrong += [True, 0, float(value), 2**31, 10**40]
            # No array contradicts these.
            free = {"samples_per_side", "size", "patch", "bytes_per_class"}
            if header["parameterization"]["name"] not in ("pixels", "idc", "fred"):
                free |= {"height", "width"}
            if field not in free:
                wrong += [value + 1, max(value - 1, 0), 2 * value]
        for w in wrong:
            if type(w) is type(value) and w == value:
                continue
            changed["parameterization"][field] = w
            write_raw(path, changed, arrays)
            message = refusal(path)
            if field not in ("name", *COUNTS):
                by_arrays = (
                    r": expected \w+ \[|the array '\w+' is missing|unknown array|: (codes|masks): "
                )
                assert field in message or re.search(by_arrays, message)
    for name in ("gaussiam", "pixels" if "means" in arrays else "gaussian"):
        changed = copy.deepcopy(header)
        changed["parameterization"]["name"] = name
        write_raw(path, changed, arrays)
        assert name in refusal(path)


def test_a_size_that_cannot_be_rendered_is_refused(good):
    path, header, arrays = good
    for field, value in (("height", 20_000), ("width", 10**9), ("channels", 5)):
        write_raw(
            path, header | {"parameterization": header["parameterization"] | {field: value}}, arrays
        )
        assert f"{field}: expected an integer from 1 to" in refusal(path)


@pytest.mark.parametrize("good", ["gaussian", "quantized"], indirect=True)
def test_every_part_of_the_metadata_is_checked(good):
    path, header, arrays = good
    for part in ("format", "parameterization", "provenance"):
        changed = dict(header)
        del changed[part]
        write_raw(path, changed, arrays)
        assert ("not a distilled set" if part == "format" else part) in refusal(path)
        for wrong in (None, [], [[1]], "x", 3, True, math.nan):
            write_raw(path, header | {part: wrong}, arrays)
            assert ("not a distilled set" if part == "format" else part) in refusal(path)
    for names in (["a", "b", "a"], ["a\n", "a\n"], ["a", 3, [], "a"]):
        write_raw(path, header | {"provenance": {"data": {"class_names": names}}}, arrays)
        assert "data.class_names: expected different names, got 'a" in refusal(path)
    header["parameterization"]["color\nspace"] = "sRGB"
    write_raw(path, header, arrays)
    assert "unknown field 'color\\nspace'" in refusal(path)
    del header["parameterization"]["color\nspace"]
    write_raw(path, header | {"license": "?"}, arrays)
    assert "unknown field 'license'" in refusal(path)
    for text in ("null", "[]", "3", "", "{", "[" * 100_000, nested(100_000), "9" * 5000):
        write_raw(path, text, arrays)
        refusal(path)
    for digests in (None, [], 3, {}, {"labels": 3}):
        write_raw(path, header | {"sha256": digests}, arrays)
        refusal(path)
    write_raw(path, json.dumps(header), arrays)
    assert "sha256 is missing from this distilled set" in refusal(path)
    deep = json.dumps(header).replace('"step": 3', f'"step": {nested(50_000)}')
    write_raw(path, deep, arrays)
    refusal(path)


def test_every_array_is_checked(good):
    path, header, arrays = good
    for name, array in arrays.items():
        write_raw(path, header, {n: a for n, a in arrays.items() if n != name})
        assert f"'{name}' is missing" in refusal(path)
        flat = array.ravel()
        wrong = [array[None], np.stack([array, array]), flat[:0], array.astype(np.float16)]
        wrong += [array.astype(np.int32 if array.dtype != np.int32 else np.int8)]
        if array.ndim:
            wrong += [array[:-1], np.concatenate([array, array]), np.array(flat[0])]
        for value in (np.nan, np.inf, -np.inf) if array.dtype.kind not in "iu" else ():
            other = np.array(array)
            other.reshape(-1)[-1] = value
            wrong.append(other)
        for w in wrong:
            write_raw(path, header, arrays | {name: w})
            assert name in refusal(path) or name == "labels"
    write_raw(path, header, arrays | {"extra\n": np.zeros(3)})
    assert "unknown array 'extra\\n'" in refusal(path)


@pytest.mark.parametrize("good", ["gaussian", "quantized"], indirect=True)
def test_labels_are_those_of_the_parameterization(good):
    path, header, arrays = good
    labels = np.asarray(arrays["labels"])
    others = [labels * 0, labels * 0 + 1, labels + 1, 2 * labels, labels - 1]
    for value in (-1, -7, 99, 2, 2**31 - 1, -(2**31)):
        others.append(np.where(np.arange(len(labels)) == len(labels) - 1, value, labels))
    for other in others:
        write_raw(path, header, arrays | {"labels": np.int32(other)})
        assert "labels: expected each of 0 to 1" in refusal(path)
    for other in (labels.astype(np.float32), labels.reshape(2, -1), labels[:, None]):
        write_raw(path, header, arrays | {"labels": other})
        assert "labels: expected int32 [" in refusal(path)
    # Another order changes nothing.
    write_raw(path, header, arrays | {"labels": labels[::-1].copy()})
    np.testing.assert_array_equal(gsdd_jax.load(path).labels, labels[::-1])


@pytest.mark.parametrize("good", ["gaussian", "quantized"], indirect=True)
def test_the_learning_rate_is_a_positive_number(good):
    path, header, arrays = good
    for rate in (0.0, -1.0, math.nan, math.inf, [0.1, 0.2]):
        write_raw(path, header, arrays | {"learning_rate": np.asarray(rate, np.float32)})
        assert "learning_rate: expected" in refusal(path)


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "set.safetensors"
    gsdd_jax.save(path, some_set("soft labels"))
    whole = path.read_bytes()
    for length in [*range(12), *range(12, len(whole), len(whole) // 100), len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert "not a readable safetensors file" in refusal(path)
    path.write_bytes(whole + b"\0")
    refusal(path)
    path.write_bytes((2**63).to_bytes(8, "little") + whole[8:])
    refusal(path)


@pytest.mark.parametrize("name", ["gaussian", "dct", "soft labels"])
def test_a_flipped_byte_is_noticed(tmp_path, name):
    path, again = tmp_path / "set.safetensors", tmp_path / "again.safetensors"
    gsdd_jax.save(path, some_set(name))
    whole = path.read_bytes()
    rng, refused = np.random.default_rng(0), 0
    for position in rng.integers(len(whole), size=100):
        damaged = bytearray(whole)
        damaged[position] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            gsdd_jax.save(again, gsdd_jax.load(path))
            assert again.read_bytes() == whole
        except gsdd_jax.UsageError:
            refusal(path)
            refused += 1
    assert refused > 95


def with_last(array, value):
    """Returns a copy whose last number is `value`; bytes are returned unchanged."""
    array = np.array(array)
    if array.dtype == np.float32:
        array.reshape(-1)[-1] = value
    return array


def test_save_refuses_numbers_that_bfloat16_has_not(tmp_path):
    some = some_set()
    between = some.arrays | {"means": with_last(some.arrays["means"], 0.1)}
    with pytest.raises(gsdd_jax.UsageError, match="means: expected bfloat16 values, got 1"):
        gsdd_jax.save(tmp_path / "set", dataclasses.replace(some, arrays=between))


@pytest.mark.parametrize("name", ["gaussian", "quantized"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": -1.0}, "learning_rate: expected a positive number, got -1.0"),
        ({"learning_rate": math.nan}, "learning_rate: expected finite numbers"),
        ({"learning_rate": 1e300}, "learning_rate: expected finite numbers"),
        ({"learning_rate": 1e-300}, "learning_rate: expected a positive number, got 0.0"),
        (
            {"labels": lambda a: a[:-1]},
            r"expected (float32|bfloat16) \[|images_per_class=4 of each of 2",
        ),
        ({"labels": lambda a: a.astype(np.int64) + 2**32}, r"labels: expected int32 \["),
        ({"labels": lambda a: a + 1}, "labels: expected each of 0 to 1"),
        ({"labels": lambda a: 0 * a}, "labels: expected each of 0 to 1"),
        ({"arrays": lambda a: {n: with_last(v, np.inf) for n, v in a.items()}}, "finite numbers"),
        ({"arrays": lambda a: {n: v[:-1] for n, v in a.items()}}, "expected"),
        ({"arrays": lambda a: a | {"others": np.zeros(3)}}, "unknown array 'others'"),
        ({"format": lambda k: dataclasses.replace(k, height=9998)}, "height: expected"),
        ({"format": lambda k: dataclasses.replace(k, images_per_class=3)}, "labels|images_per"),
        ({"provenance": {"made": {1, 2}}}, "provenance: expected plain JSON values"),
        ({"provenance": {"data": {"class_names": ["a", "a"]}}}, "class_names: .* 'a' again"),
        ({"provenance": {"a": 1, 2: 3}}, None),
    ],
)
def test_save_refuses_what_load_would(tmp_path, name, changes, message):
    some = some_set(name)
    changes = {n: c(getattr(some, n)) if callable(c) else c for n, c in changes.items()}
    changed = dataclasses.replace(some, **changes)
    path = tmp_path / "set.safetensors"
    if message is None:  # becomes a string, as in any JSON
        gsdd_jax.save(path, changed)
        assert gsdd_jax.load(path).provenance == {"a": 1, "2": 3}
        return
    with pytest.raises(gsdd_jax.UsageError, match=message) as raised:
        gsdd_jax.save(path, changed)
    assert str(raised.value).startswith(f"{path}: ")
    assert not path.exists()
