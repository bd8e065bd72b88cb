"""What the documents show as Python runs, and what it defines fits the rest."""

import pathlib
import re

import jax
import numpy as np

from gsdd_jax import matching, networks, parameterizations
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


def test_what_the_architecture_adds_distils(monkeypatch):
    """The example parameterization under the example objective, through the real loop."""
    names = {"__name__": __name__}
    for code in blocks("docs/architecture.md"):
        exec(code, names)
    monkeypatch.setitem(parameterizations.BY_NAME, "grey", names["Grey"])
    monkeypatch.setitem(matching.BY_NAME, "mean_images", names["MeanImages"])
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 8, 8, 3), np.uint8), np.arange(40) % 2
    data = matching.real_data(
        images, labels, 2, transforms.Normalize(jax.numpy.full(3, 0.5), jax.numpy.full(3, 0.25))
    )
    kind = parameterizations.build("grey", (8, 8, 3), ipc=3, gpc=1)
    network = networks.build("convnet", image_shape=(8, 8, 3), num_classes=2, width=4, depth=1)
    objective = matching.build(
        "mean_images", network=network, num_classes=2, images_per_class=3, strategy="",
        batch_real=20,
    )  # fmt: skip
    problem = distill.Problem(kind, objective, 2, 0.01)
    params = kind.init(jax.random.key(0), jax.random.uniform(jax.random.key(1), (6, 8, 8, 3)))
    state = distill.start(problem, params)
    _, losses = distill.run(problem, state, jax.random.key(2), data, None, 50)
    assert losses[-1] < 0.5 * losses[0]
