"""Trains fresh networks on a distilled set and tests them, compared with random real images.

Compressed real images are compared if the run has left them next to the set, as by default.

    python -m launch.evaluate --distilled=runs/demo/distilled.safetensors
    python -m launch.evaluate --distilled=runs/demo/distilled.safetensors --network=resnet18
    python -m launch.evaluate --distilled=cifar10-12kB --width=128 --nobaselines

Settings default to the config of the set. A different --network defaults to the settings of the
published cross-architecture comparison.
"""

from absl import flags

from launch import cli, paths

DISTILLED = paths.define(
    "distilled",
    None,
    "Distilled set: a .safetensors file, a URL or a work directory.",
    required=True,
    urls=True,
)
NETWORK = flags.DEFINE_string(
    "network", None, "Network to train: convnet, alexnet, vgg11, resnet18, vit or minic3d."
)
WIDTH = flags.DEFINE_integer("width", None, "Channels of the ConvNet; default: as with the set.")
NUM_NETWORKS = flags.DEFINE_integer("num_networks", None, "Number of networks to train.")
EPOCHS = flags.DEFINE_integer("epochs", None, "Training epochs over the distilled set.")
OPTIMIZER = flags.DEFINE_enum(
    "optimizer", None, ["sgd", "adam", "sgd_cosine", "adamw"], "Optimizer of the networks."
)
LEARNING_RATE = flags.DEFINE_float(
    "learning_rate",
    None,
    "Learning rate; default: the set's or the network's, or the best that the set's config tries.",
)
DATA_DIR = paths.define("data_dir", None, "Directory of the TFDS data sets.")
RESOLUTION = flags.DEFINE_integer(
    "resolution", None, "Pixels per side to train and test at; default: the set's own."
)
RESAMPLE = flags.DEFINE_enum(
    "resample", "bilinear", ["bilinear", "nearest"], "Interpolation of pixels to --resolution."
)
BASELINES = flags.DEFINE_bool("baselines", True, "Train networks on real images as well.")
CORRUPTED = flags.DEFINE_list(
    "corrupted", [], "Comma-separated corruptions to test on as well: noise, blur, contrast, jpeg."
)
cli.define_processes()
RESULT = paths.define(
    "result", None, "JSON file for the accuracies; only an earlier one is replaced."
)


def main() -> None:
    from gsdd_jax.core import processes
    from gsdd_jax.core.files import check_ours, write_json
    from gsdd_jax.runs.evaluation import compared, evaluate_file, is_result
    from gsdd_jax.setup.experiment import COMPRESSED

    if out := RESULT.value:
        place = lambda: check_ours(out, "an earlier result of this command", is_result)
        processes.from_first(lambda: place() or b"")
    result = evaluate_file(
        DISTILLED.value,
        overrides={
            "network.name": NETWORK.value,
            "network.options.width": WIDTH.value,
            "evaluate.num_networks": NUM_NETWORKS.value,
            "evaluate.epochs": EPOCHS.value,
            "evaluate.optimizer": OPTIMIZER.value,
            "data.dir": DATA_DIR.value,
        },
        learning_rate=LEARNING_RATE.value,
        resolution=RESOLUTION.value,
        resample=RESAMPLE.value,
        corrupted=CORRUPTED.value,
        baselines=BASELINES.value,
    )
    if out and processes.first():
        write_json(out, result)
    shown = compared(("distilled", "random_real", *COMPRESSED), result)
    print(f"test accuracy ({result['network']}):  {shown}")
    for kind in CORRUPTED.value:
        shares = "  ".join(f"{a:.1f}" for a in result["corrupted"][kind])
        print(f"test images with {kind}, strength 1 to 5:  {shares} %")


if __name__ == "__main__":
    cli.run(main)
