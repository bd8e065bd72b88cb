"""Trains fresh networks on a distilled set and tests them, beside the same bytes of real images.

    python -m launch.evaluate --distilled=runs/demo/distilled.safetensors
    python -m launch.evaluate --distilled=runs/demo/distilled.safetensors --network=resnet18

Everything that no flag names is as in the config that made the set; for another network than the
config's, as in the published comparison across architectures.
"""

from absl import flags

from launch import cli, paths

DISTILLED = paths.define(
    "distilled", None, "The .safetensors file, or the work directory of its run.", required=True
)
NETWORK = flags.DEFINE_string("network", None, "convnet, alexnet, vgg11, resnet18 or vit.")
NUM_NETWORKS = flags.DEFINE_integer("num_networks", None, "How many networks are trained.")
EPOCHS = flags.DEFINE_integer("epochs", None, "Passes over the distilled set.")
OPTIMIZER = flags.DEFINE_enum(
    "optimizer", None, ["sgd", "adam", "sgd_cosine", "adamw"], "Of the networks."
)
LEARNING_RATE = flags.DEFINE_float("learning_rate", None, "Default: the set's, or the network's.")
DATA_DIR = paths.define("data_dir", None, "Where TFDS keeps its sets.")
RESOLUTION = flags.DEFINE_integer(
    "resolution", None, "Pixels a side at which the set is used and tested; default: its own."
)
RESAMPLE = flags.DEFINE_enum(
    "resample", "bilinear", ["bilinear", "nearest"], "How stored pixels come to it."
)
CORRUPTED = flags.DEFINE_list(
    "corrupted", [], "Of noise, blur, contrast, jpeg: tested on images made worse, too."
)
cli.define_processes()
RESULT = paths.define("result", None, "A JSON file to write the accuracies to.")


def main() -> None:
    from gsdd_jax.core import processes
    from gsdd_jax.core.files import write_json
    from gsdd_jax.runs.assess import evaluate_file

    result = evaluate_file(
        DISTILLED.value,
        overrides={
            "network.name": NETWORK.value,
            "evaluate.num_networks": NUM_NETWORKS.value,
            "evaluate.epochs": EPOCHS.value,
            "evaluate.optimizer": OPTIMIZER.value,
            "data.dir": DATA_DIR.value,
        },
        learning_rate=LEARNING_RATE.value,
        resolution=RESOLUTION.value,
        resample=RESAMPLE.value,
        corrupted=CORRUPTED.value,
    )
    if RESULT.value and processes.first():
        write_json(RESULT.value, result)
    arms = (cli.accuracy(arm, result) for arm in ("distilled", "random_real"))
    print(f"test accuracy ({result['network']}):  " + "   ".join(arms))
    for kind in CORRUPTED.value:
        shares = "  ".join(f"{a:.1f}" for a in result["corrupted"][kind])
        print(f"test images with {kind}, strength 1 to 5:  {shares} %")


if __name__ == "__main__":
    cli.run(main)
