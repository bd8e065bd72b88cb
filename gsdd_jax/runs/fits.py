"""Initial images of distillation: fitted to random real ones, optionally shared between runs."""

import math
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from gsdd_jax.config.fields import BY_TEACHER, MOMENTS
from gsdd_jax.core import interrupts, mesh, stopping
from gsdd_jax.core.errors import UsageError
from gsdd_jax.data import moments
from gsdd_jax.data.soft_labels import LABELER
from gsdd_jax.parameterizations.base import Params
from gsdd_jax.runs import selection, teacher
from gsdd_jax.runs.progress import Display, Reporter
from gsdd_jax.setup import experiment
from gsdd_jax.setup.components import labels_of, stream
from gsdd_jax.storage import checkpoint
from gsdd_jax.storage.workdir import decisive, digest
from gsdd_jax.training import fit

SAVE_EVERY = 500  # steps
AT_ONCE = 2**28  # pixels of all images and steps of a call: half a minute of a CPU core
# Groups of config fields that a fit depends on.
GROUPS = ("seed", "data", "budget", "parameterization", "init")


def initial(
    config: ConfigDict, material: experiment.FitParts, workdir: pathlib.Path, reporter: Reporter
) -> Params:
    """Returns initial parameters, fitted to real images or random.

    A fit resumes from its newest checkpoint in `workdir`, or in `config.init.dir`, which runs
    with the same initial images share. Raises UsageError if the error is not finite, or another
    process fits the same.
    """
    parameterization = material.parameterization
    key = stream(config.seed, "initial parameters")
    if config.init.images == "none":
        shape = (len(material.labels), *parameterization.image_shape)
        return parameterization.init(key, jax.random.uniform(key, shape))
    images = jnp.asarray(images_of(config, material, workdir, reporter))
    rates = config.init.learning_rate, config.init.halve_means_every
    state = fit.start(parameterization, key, images, *rates)
    made_of = _identity(config, material)
    own, taken = workdir / "checkpoints" / "fit", "another process fits the same images"
    with checkpoint.shared(own, config.init.dir, made_of, reporter.line, taken) as checkpoints:
        state = checkpoints.restore(state) or state
        done, total = int(state.step), config.init.num_steps
        at_once = _steps_at_once(images.shape)
        alone = jax.process_count() == 1  # several processes would have to save at one step
        with (
            stopping.able(lambda: alone and done < total),
            reporter.phase("fit", total, done) as progress,
        ):
            while done < total:
                count = min(at_once, total - done)
                state, errors = fit.run(parameterization, state, images, rates[0], count, rates[1])
                error = float(mesh.to_host(errors).mean())
                if not math.isfinite(error):
                    raise UsageError(
                        f"fit: the error is {error} by step {done + count}; the config is "
                        f"{workdir / 'config.json'}"
                    )
                done += count
                asked = stopping.asked() or interrupts.noted()
                due = asked or checkpoints.is_due or done == total
                if due or done % SAVE_EVERY == 0:
                    checkpoints.save(done, state)
                psnr = -10 * math.log10(max(error, 1e-12))
                reporter.scalars(done, {"fit/psnr": psnr})
                progress.advance(count, psnr=psnr)
                if asked:
                    raise stopping.Stopped
    return state.params


def _steps_at_once(shape: Sequence[int]) -> int:
    """Returns the steps of a call for images [m, h, w, c]: a divisor of `SAVE_EVERY`.

    It follows from the images alone, so that a resumed fit makes the same calls.
    """
    most = max(1, AT_ONCE // math.prod(shape[:3]))
    return max(n for n in range(1, SAVE_EVERY + 1) if SAVE_EVERY % n == 0 and n <= most)


def fit_to_share(config: ConfigDict, display: Display) -> None:
    """Fits the initial images of `config` into `config.init.dir`; raises like `initial`."""
    reporter = Reporter(None, display=display)
    with mesh.use_devices(config.mesh.devices):
        initial(config, experiment.build_fit_parts(config), pathlib.Path(config.init.dir), reporter)
    reporter.close()


def is_there(config: ConfigDict) -> bool:
    """Returns whether `config.init.dir` has a finished fit of that many steps, unopened."""
    return any(pathlib.Path(config.init.dir).glob(f"*/{config.init.num_steps}"))


def settings(config: ConfigDict) -> dict[str, Any]:
    """Returns all settings that a fit depends on, by dotted name."""
    fields = decisive(config)
    # Soft labels and labelers leave fewer bytes to the images.
    leaving = ("bits",) if labels_of(config).soft else ()
    leaving = ("width", "weight_bits") if config.labels.source == LABELER else leaving
    labels = {f"labels.{name}": config.labels[name] for name in leaving}
    if config.init.images in BY_TEACHER:
        labels |= teacher.settings(config)
    return labels | {n: v for n, v in fields.items() if n.partition(".")[0] in GROUPS}


def images_of(
    config: ConfigDict,
    material: experiment.FitParts,
    workdir: pathlib.Path | None = None,
    reporter: Display | None = None,
) -> Float[np.ndarray, "m h w c"]:
    """Returns the images that the fit targets: real ones, random or chosen by a teacher, their mean
    colors, or images drawn by the moments of their class.

    The teacher of chosen ones is trained in `workdir`; raises UsageError without it.
    """
    key, chosen = stream(config.seed, "initial images"), None
    if config.init.images == MOMENTS:
        return moments.drawn(key, material.dataset.train, material.counts)
    if config.init.images in BY_TEACHER:
        if workdir is None:
            raise UsageError(
                "config.init.images: expected real, solid or moments here, got "
                f"{config.init.images}"
            )
        chosen = selection.chosen(config, material, workdir, reporter)
    images = experiment.initial_images(material.dataset, key, material.counts, chosen)
    if config.init.images == "solid":
        images = np.broadcast_to(images.mean((1, 2), keepdims=True), images.shape)
    return images


def _identity(config: ConfigDict, material: experiment.FitParts) -> str:
    """Returns a digest of everything that a fit depends on."""
    of_files = {"data.fingerprint": material.dataset.fingerprint}
    if (sha256 := material.parameterization.made_of) is not None:
        of_files["parameterization"] = sha256
    return digest(of_files | settings(config))
