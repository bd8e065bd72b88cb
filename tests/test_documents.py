"""What the documents show as Python runs, and what it defines fits the rest."""

import pathlib
import re

import jax
import numpy as np

import gsdd_jax
from gsdd_jax import exports, matching, networks, parameterizations
from gsdd_jax.data import transforms
from gsdd_jax.training import distill

ROOT = pathlib.Path(__file__).parent.parent


def blocks(document):
    return re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


def test_the_readme_runs():
    (code,) = blocks("README.md")
    a_set = ROOT / "benchmarks" / "results" / "cifar10_tm_ipc1_cpu" / "distilled.safetensors"
    assert '"runs/demo/distilled.safetensors"' in code
    names = {}
    code = code.replace('"runs/demo/distilled.safetensors"', repr(str(a_set)))
    exec(code.replace("num_steps=500", "num_steps=5"), names)
    assert names["pixels"].shape == (2, 32, 32, 3)
    assert names["distilled"].images().shape == (300, 32, 32, 3)


def test_using_a_set_runs(tmp_path):
    """All but PyTorch's block, of which `test_portable` has the method."""
    description = {"name": "normalize", "mean": [0.5] * 3, "std": [0.25] * 3}
    kind = parameterizations.build("pixels", (8, 8, 3), ipc=1, gpc=1)
    params = {"pixels": jax.random.uniform(jax.random.key(0), (2, 8, 8, 3))}
    set_ = gsdd_jax.DistilledSet(
        kind, params, np.arange(2, dtype=np.int32), 0.1, {"transform": description}
    )
    gsdd_jax.save(tmp_path / "set.safetensors", set_)
    exports.export_transform(set_, tmp_path / "transform.safetensors")
    names = {}
    for code in blocks("docs/using.md"):
        if "import torch" not in code:
            for name in ("runs/demo/distilled.safetensors", "transform.safetensors"):
                path = tmp_path / ("set.safetensors" if "demo" in name else name)
                code = code.replace(f'"{name}"', repr(str(path)))
            exec(code, names)
    assert names["larger"].shape == (2, 64, 64, 3)
    assert names["pictures"].max() <= 1
    np.testing.assert_allclose(names["images"].sum(), (4 * params["pixels"] - 2).sum(), rtol=1e-3)


def test_what_the_architecture_adds_distils(monkeypatch):
    """The example parameterization under the example objective and under the example network's
    features, through the real loop."""
    names = {"__name__": __name__}
    for code in blocks("docs/architecture.md"):
        exec(code, names)
    monkeypatch.setitem(parameterizations.BY_NAME, "grey", names["Grey"])
    monkeypatch.setitem(matching.BY_NAME, "mean_images", names["MeanImages"])
    monkeypatch.setitem(networks.BY_NAME, "perceptron", names["Perceptron"])
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 8, 8, 3), np.uint8), np.arange(40) % 2
    data = matching.real_data(
        images, labels, 2, transforms.Normalize(jax.numpy.full(3, 0.5), jax.numpy.full(3, 0.25))
    )
    kind = parameterizations.build("grey", (8, 8, 3), ipc=3, gpc=1)
    network = networks.build("perceptron", image_shape=(8, 8, 3), num_classes=2, width=32)
    params = network.init(jax.random.key(3))
    x = rng.normal(size=(2, 8, 8, 3))
    expected = x.reshape(2, -1)
    for layer in params["body"].values():
        expected = np.maximum(expected @ layer["kernel"] + layer["bias"], 0)
    np.testing.assert_allclose(network.features(params, jax.numpy.float32(x)), expected, atol=1e-5)
    assert expected.shape == (2, 32)
    for name, part in (("mean_images", 0.5), ("dm", 0.8)):
        objective = matching.build(
            name, network=network, num_classes=2, images_per_class=3, strategy="", batch_real=20
        )
        problem = distill.Problem(kind, objective, 2)
        params = kind.init(jax.random.key(0), jax.random.uniform(jax.random.key(1), (6, 8, 8, 3)))
        state = distill.start(problem, params, 0.01)
        _, losses = distill.run(problem, state, jax.random.key(2), data, None, 50)
        assert losses[-1] < part * losses[0]
