"""Counts the bytes per class of anyone's distilled set: images or codes, labels, decoder.

    python -m launch.bytes images_best.pt labels_best.pt
    python -m launch.bytes latents.pt labels.npz --decoder=generator.safetensors
    python -m launch.bytes runs/demo --json

All files are one set: .pt and .pth of tensors, .npz, .npy, .safetensors, folders of pictures with
one folder per class, and this library's sets. Nothing is unpickled.
"""

from absl import flags

from launch import cli, paths

DECODER = paths.define_several(
    "decoder", "Files that turn codes into images: networks, generators."
)
CLASSES = flags.DEFINE_integer("classes", None, "Number of classes, if no labels say it.")
JSON = flags.DEFINE_bool("json", False, "Print one JSON object.")


def main(*files: str) -> None:
    from gsdd_jax.formats import counting

    said = counting.count(files, DECODER.value, CLASSES.value)
    cli.print_as(said, counting.text, JSON.value)


if __name__ == "__main__":
    cli.run(main, several="files of one set", computes=None)
