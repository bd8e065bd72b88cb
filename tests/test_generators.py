"""Tests latents of generators: what is decoded, stored and learned, and files of weights."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import gsdd_jax
from gsdd_jax import UsageError, generators, parameterizations
from gsdd_jax.formats import base, counting
from gsdd_jax.generators.vae import VAE
from tests.commands import ROOT
from tests.more_kinds import in_package
from tests.test_arrays import FIELDS, arrays
from tests.test_growing import SMALL

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SIDES = 16, 12


@pytest.fixture
def vae(tmp_path, monkeypatch):
    """Returns a random generator, its weights, and their file, which the environment names."""
    kind = VAE(*SIDES, 3, latent_channels=2, features=4)
    weights = {name: np.asarray(array) for name, array in kind.init(jax.random.key(0)).items()}
    rng = np.random.default_rng(0)
    weights = {n: np.float32(a + rng.normal(0, 0.05, a.shape)) for n, a in weights.items()}
    path = tmp_path / "vae.safetensors"
    generators.save(path, kind, weights)
    monkeypatch.setenv(generators.VARIABLE, str(path))
    return kind, weights, path


def build(layer=0, side=SIDES, **options):
    return parameterizations.build(
        "generator", (*side, 3), images_per_class=0, bytes_per_class=4000, num_classes=2,
        layer=layer, **options,
    )  # fmt: skip


def images_of(kind, seed=0):
    count = 2 * kind.images_per_class
    return jnp.asarray(np.random.default_rng(seed).random((count, *kind.image_shape), np.float32))


def convolved(x, kernel, bias):
    """Computes in float64: every pixel is added to the pixels that it reaches."""
    height, width, _ = x.shape
    out = np.zeros((height + 2, width + 2, len(bias)))
    for y in range(3):
        for column in range(3):
            out[2 - y : 2 - y + height, 2 - column : 2 - column + width] += x @ kernel[y, column]
    return out[1:-1, 1:-1] + bias


def decoded(weights, latents):
    """Returns the image of one grid of latent variables, in float64."""
    of = {name: np.float64(array) for name, array in weights.items()}
    layer = lambda name, x: convolved(x, of[f"{name}/kernel"], of[f"{name}/bias"])

    def squares(x):
        height, width, channels = x.shape
        out = np.zeros((2 * height, 2 * width, channels // 4))
        for y in range(2):
            for column in range(2):
                first = (2 * y + column) * (channels // 4)
                out[y::2, column::2] = x[..., first : first + channels // 4]
        return out

    x = np.maximum(layer("decoder_0", np.float64(latents)), 0)
    x = np.maximum(squares(layer("decoder_1", x)), 0)
    x = np.maximum(layer("decoder_2", x), 0)
    return 0.5 + squares(layer("decoder_3", x))


def test_images_are_those_of_the_latents(vae, tmp_path):
    """Compares with float64, at every layer and from a file, which holds only the latents."""
    _, weights, path = vae
    first = build()
    begun = jax.jit(first.init)(jax.random.key(0), images_of(first))
    expected = [decoded(weights, one) for one in np.asarray(begun["latents"])]
    for layer, size in ((0, 4 * 3 * 2), (1, 4 * 3 * 8), (2, 8 * 6 * 4)):
        assert build(layer, dtype="bfloat16").images_per_class == 4000 // (2 * size)
        kind = build(layer)
        params = kind.continued(first, begun)
        assert kind.differs(first) == ({"layer"} if layer else set()) and not first.differs(kind)
        np.testing.assert_allclose(jax.jit(kind.render)(params), expected, atol=1e-4)
    set_ = parameterizations.stored(
        first, first.init(jax.random.key(0), images_of(first)), np.repeat([0, 1], 41), 0.02
    )
    gsdd_jax.save(tmp_path / "set.safetensors", set_)
    read = gsdd_jax.load(tmp_path / "set.safetensors")
    assert set(read.arrays) == {"latents"} and read.num_bytes == begun["latents"].nbytes
    assert read.num_bytes <= 2 * 4000
    np.testing.assert_allclose(read.images(), expected, atol=1e-4)
    np.testing.assert_allclose(parameterizations.images(read), expected, atol=1e-4)
    sha256, size = generators.load(path).sha256, path.stat().st_size
    assert gsdd_jax.info(read)["settings"]["weights"] == sha256
    (needed,) = counting.count([tmp_path / "set.safetensors"])["not_counted"]
    assert needed == f"{size:,} bytes: the weights of vae, SHA-256 {sha256}"
    cut = gsdd_jax.subset(read, [1], images_per_class=3)
    np.testing.assert_allclose(cut.images(), expected[41:44], atol=1e-4)


def test_latents_begin_as_those_of_real_images(vae):
    kind, weights, _ = vae
    stored = build()
    images = images_of(stored)
    mean, _ = kind.encode(jax.tree.map(jnp.asarray, weights), images)
    np.testing.assert_allclose(stored.init(jax.random.key(0), images)["latents"], mean, atol=1e-5)
    x = np.float64(images[0]) - 0.5
    for name in ("encoder_0", "encoder_1", "encoder_2"):
        if name != "encoder_2":  # squares of pixels, row by row
            x = np.concatenate([x[y::2, z::2] for y in range(2) for z in range(2)], -1)
        x = convolved(x, weights[f"{name}/kernel"], weights[f"{name}/bias"])
        x = x if name == "encoder_2" else np.maximum(x, 0)
    np.testing.assert_allclose(mean[0], x[..., :2], atol=1e-4)


def test_a_run_learns_latents_and_goes_on_at_the_next_layer(tmp_path, monkeypatch):
    kind, paths = VAE(8, 8, 3, latent_channels=2, features=4), []
    for i in range(2):
        paths.append(tmp_path / f"{i}.safetensors")
        generators.save(paths[i], kind, kind.init(jax.random.key(i)))

    def distilled(name, steps, bytes_per_class=96, layer=0, **init):
        fields = SMALL | {
            "distill": FIELDS["distill"] | {"num_steps": steps, "eval_every": 0},
            "parameterization": {"name": "generator", "options": {"layer": layer}},
            "init": {"num_steps": 0, **init},
        }
        where = {"workdir": tmp_path / name, "objective": "dm", "verbose": False}
        return gsdd_jax.distill(*arrays(), bytes_per_class, **where, **fields)

    monkeypatch.setenv(generators.VARIABLE, str(paths[0]))
    first = distilled("first", 3)
    assert not np.array_equal(first.images(), distilled("none", 0).images())
    result = json.loads((tmp_path / "first" / "result.json").read_text())
    assert result["stored"]["generator_bytes"] == paths[0].stat().st_size
    later = distilled("later", 0, 384, layer=1, set=str(tmp_path / "first"))
    assert set(later.arrays) == {"features"}
    np.testing.assert_allclose(later.images(), first.images(), atol=1e-5)
    with pytest.raises(UsageError, match=r"init.set: .*: layer: expected 0, as in this run, got 1"):
        distilled("back", 0, set=str(tmp_path / "later"))
    monkeypatch.setenv(generators.VARIABLE, str(paths[1]))
    with pytest.raises(UsageError, match=r"a run with config.parameterization \(SHA-256\)='\w{64}"):
        distilled("first", 4)


def test_only_latents_are_learned(vae):
    stored = build()
    params = stored.init(jax.random.key(0), images_of(stored))
    gradient = jax.jit(jax.grad(lambda params: (stored.render(params) ** 2).sum()))(params)
    optimizer = stored.optimizer(0.1)
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    for name, update in updates.items():
        assert (np.abs(update).max() > 0.01) == (name == "latents")


def test_another_generator_is_one_file(tmp_path, monkeypatch):
    """Runs the example of the document: without an encoder, with latents of two kinds."""
    text = (ROOT / "docs" / "generators.md").read_text()
    (tmp_path / "styled.py").write_text(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1])
    with in_package(generators, tmp_path):
        kind = generators.known()["styled"](*SIDES, 3)
        rng = np.random.default_rng(0)
        weights = {n: np.float32(rng.normal(size=s)) for n, s in kind.weight_shapes().items()}
        path = tmp_path / "styled.safetensors"
        generators.save(path, kind, weights)
        monkeypatch.setenv(generators.VARIABLE, str(path))
        early, late = build(0), build(2)
        params = early.init(jax.random.key(0), jnp.zeros((4, *SIDES, 3)))
        images = early.render(params)
        np.testing.assert_allclose(late.render(late.continued(early, params)), images, atol=1e-5)
        steps = late.optimizer(1.0)
        params = late.continued(early, params)
        moved, _ = steps.update(jax.tree.map(jnp.ones_like, params), steps.init(params), params)
        assert float(moved["features"].mean() / moved["styles"].mean()) == pytest.approx(
            10, rel=1e-3
        )


BOTH = r"expected the path of one file of weights in GSDD_GENERATORS, .* got 2 paths"
NO_PATH = "weights: expected a SHA-256, 64 of 0123456789abcdef, got "


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"variable": ""}, "expected the path of one file of weights in GSDD_GENERATORS, .* got 0"),
        ({"variable": "{path}:{path}"}, BOTH),
        ({"weights": "{path}"}, NO_PATH),
        ({"weights": ""}, NO_PATH),
        ({"weights": "A" * 64}, NO_PATH),
        ({"weights": "0" * 64}, r"SHA-256 0{64} among the paths in GSDD_GENERATORS, which names 1"),
        ({"side": (16, 16)}, "expected images of 16 x 12 x 3, as vae has, got 16 x 16 x 3"),
        ({"layer": 3}, "layer: expected 0 to 2, got 3"),
        ({"layer": -1}, "layer: expected an integer from 0 to"),
    ],
)
def test_a_wrong_setting_is_a_line(vae, monkeypatch, given, message):
    *_, path = vae
    if "variable" in given:
        monkeypatch.setenv(generators.VARIABLE, given["variable"].format(path=path))
        given = {}
    if "weights" in given:
        given = given | {"weights": given["weights"].format(path=path)}
    with pytest.raises(UsageError, match=message):
        build(**given)


FORGED = {
    "shape": (
        lambda a, h: a.update({"decoder_3/bias": np.zeros(13, np.float32)}),
        "decoder_3/bias",
    ),
    "type": (lambda a, h: a.update({"decoder_3/bias": np.zeros(12)}), "'F64'"),
    "missing": (lambda a, h: a.pop("decoder_3/bias"), "decoder_3/bias.*got none"),
    "more": (lambda a, h: a.update(more=np.zeros(1, np.float32)), "'more': expected no such array"),
    "nan": (lambda a, h: a["decoder_3/bias"].fill(np.nan), "decoder_3/bias': expected finite"),
    "name": (lambda a, h: h.update(name="os"), "name: expected one of vae, got 'os'"),
    "field": (lambda a, h: h.update(code="os"), "expected height, width, .*got .*code"),
    "value": (lambda a, h: h.update(features=0), "vae: features: expected an integer from 1"),
    "sides": (lambda a, h: h.update(height=18), "vae: expected sides that are multiples of 4"),
}


@pytest.mark.parametrize("how", FORGED)
def test_a_forged_file_of_weights_is_a_line(vae, tmp_path, how):
    kind, weights, _ = vae
    change, message = FORGED[how]
    header = {"name": kind.name, **dataclasses.asdict(kind)}
    arrays = {name: array.copy() for name, array in weights.items()}
    change(arrays, header)
    path = tmp_path / "forged.safetensors"
    path.write_bytes(safetensors.numpy.save(arrays, {generators.HEADER: json.dumps(header)}))
    with pytest.raises(UsageError, match=message):
        generators.load(path)


def test_a_set_opens_no_file_that_it_names(vae, monkeypatch):
    """Reads nothing for a path, and weights by their SHA-256 past files that are none."""
    *_, path = vae
    stored = build()
    values = base.settings(stored)
    other = path.with_name("none.safetensors")
    monkeypatch.setenv(generators.VARIABLE, f"{path.parent}:{other}:{path}")
    assert base.format_of(values) == stored
    monkeypatch.setenv(generators.VARIABLE, str(other))
    with pytest.raises(UsageError, match=r"which names 1; skipped: \S*none.safetensors"):
        base.format_of(values)
    monkeypatch.setattr(generators, "load", lambda path: pytest.fail(f"opens {path}"))
    for text in (str(path), "~/x", "", "0" * 63, "０" * 64):
        with pytest.raises(UsageError, match=NO_PATH):
            base.format_of(values | {"weights": text})


def test_other_files_are_neither_read_nor_replaced(vae, tmp_path):
    kind, weights, path = vae
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(UsageError, match=r"vae.safetensors: expected weights of a generator"):
        generators.load(path)
    text = tmp_path / "text.safetensors"
    text.write_text("mine")
    with pytest.raises(UsageError, match=r"text.safetensors"):
        generators.save(text, kind, weights)
    assert text.read_text() == "mine"
