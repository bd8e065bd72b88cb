"""Reads sets of images or clips that TensorFlow Datasets (TFDS) prepared, without TensorFlow.

Errors say in one line whether a set is unknown, missing, of another kind or damaged.
"""

import difflib
import os
import pathlib
import reprlib
import shlex

import numpy as np

from gsdd_jax.core import program, swap
from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.fields import check_value
from gsdd_jax.core.files import JSON_LIMIT, check_regular, home, read_object, read_regular
from gsdd_jax.data import frames, trusted
from gsdd_jax.exports.png import MODES

# tensorflow_datasets is imported on use: it is slow to import, and much of the package needs none.

EMBEDDED_NAME = "cifar10_mini"
LONGEST_NAME = 255  # bytes, as for a folder
EMBEDDED = pathlib.Path(__file__).parent / "datasets"  # prepared sets shipped with the package
# `tfds` imports all three whatever it is asked to do.
_TFDS_NEEDS = (
    "in an environment with `pip install tensorflow-datasets tensorflow apache-beam mlcroissant "
    "importlib_resources array_record`"
)
CIFAR = ("cifar10", "cifar100")  # can also be made from torchvision's files


def data_root(data_dir: str | os.PathLike | None = None) -> pathlib.Path:
    """Returns the folder of all prepared sets: `data_dir`, else $TFDS_DATA_DIR, else TFDS's own.

    Raises UsageError if the path is invalid, or if there is no home directory to default to.
    """
    root = data_dir or os.environ.get("TFDS_DATA_DIR") or home("tensorflow_datasets")
    if root is None:
        raise UsageError(
            "there is no home directory to look for data sets in; set TFDS_DATA_DIR, or give the "
            "folder by --data_dir or --config.data.dir"
        )
    check_value("data_dir", "str", os.fspath(root))
    root = pathlib.Path(root).expanduser().absolute()
    try:
        root.exists()
    except OSError as error:  # name too long, loop of links, no permission
        raise UsageError(f"data_dir: {root}: {error.strerror}; expected a folder") from None
    return root


def sets_in(root: pathlib.Path) -> list[str]:
    """Returns the sets in a folder with their configurations, whatever their format."""
    # NAME/VERSION, or NAME/CONFIGURATION/VERSION.
    described = (root.glob(f"{levels}/dataset_info.json") for levels in ("*/*", "*/*/*"))
    return sorted(
        {path.parent.parent.relative_to(root).as_posix() for found in described for path in found}
    )


def find(name: str, base: str, data_dir: str | os.PathLike | None):
    """Returns the TFDS builder of a prepared set; raises UsageError if it cannot be read."""
    import tensorflow_datasets as tfds

    root = EMBEDDED if base == EMBEDDED_NAME else data_root(data_dir)
    if len(name.encode(errors="replace")) > LONGEST_NAME:
        raise UsageError(
            f"unknown data set {reprlib.repr(name)}: expected a name of at most {LONGEST_NAME} "
            "bytes"
        )
    try:
        parsed, _ = tfds.core.naming.parse_builder_name_kwargs(name)
    except Exception:  # TFDS cannot parse the name
        raise _unknown(name, root) from None
    swap.recover(root / parsed.name)
    try:
        trusted.check(root / parsed.name)
    except UsageError as error:
        raise damaged(name, base, data_dir, root / base, str(error)) from None
    try:
        # Unlike `tfds.builder`, this never uses the network.
        with frames.without_tensorflow():
            builder = tfds.core.read_only_builder.builder_from_files(name, data_dir=root)
    except Exception as error:  # TFDS does not validate its files
        reason = _damaged_description(root, name.partition(":")[0])
        if reason is None:
            if isinstance(error, tfds.core.DatasetNotFoundError):
                raise _not_found(name, base, root) from None
            if not (root / base).is_dir():
                raise _unknown(name, root) from None
            reason = f"its dataset_info.json or features.json: {first_line(error)}"
        raise damaged(name, base, data_dir, root / base, reason) from None

    array_record = tfds.core.file_adapters.FileFormat.ARRAY_RECORD
    if array_record not in builder.info.available_file_formats():
        folder = shlex.quote(str(builder.data_dir))
        raise UsageError(
            f"data set {name!r} in {builder.data_dir} is in {builder.info.file_format.value}"
            " format, which cannot be read without TensorFlow; convert it with"
            f" `tfds convert_format --dataset_version_dir={folder} --out_file_format=array_record`"
            f" {_TFDS_NEEDS}"
        )
    return builder


def known_names() -> list[str]:
    """Returns the names of the set in this package and of all that TFDS can make."""
    import tensorflow_datasets as tfds

    return [EMBEDDED_NAME, *tfds.list_builders(with_community_datasets=False)]


def damaged(
    name: str, base: str, data_dir: str | os.PathLike | None, folder: str | os.PathLike, reason: str
) -> UsageError:
    """Returns the error for a set in `folder` with invalid files, and how to repair it."""
    if base == EMBEDDED_NAME:
        repair = "install gsdd-jax again"
    elif base in known_names():
        repair = f"delete it and run {_build_command(name, data_root(data_dir))}"
    else:
        repair = f"make it again, own pictures by {_prepare_command(base)} --overwrite`"
    return UsageError(f"data set {name!r} in {folder} is damaged ({reason}); {repair}")


def feature_keys(builder, name: str) -> tuple[str, str]:
    """Returns the names of the images, else the clips, and of their labels."""
    from tensorflow_datasets import features as kinds

    features = builder.info.features
    if not isinstance(features, kinds.FeaturesDict):
        raise UsageError(
            f"data set {name!r} in {builder.data_dir} has {type(features).__name__} for its "
            "features: expected an image and a class label by name"
        )

    def key_of(is_one) -> str | None:
        found = [key for key, feature in features.items() if is_one(feature)]
        supervised = [key for key in builder.info.supervised_keys or () if key in found]
        return (supervised or found or [None])[0]

    image_key = key_of(lambda feature: type(feature) is kinds.Image) or key_of(frames.images_of)
    label_key = key_of(lambda feature: type(feature) is kinds.ClassLabel)
    if image_key is None or label_key is None:
        raise UsageError(
            f"data set {name!r} has the features {', '.join(features)}: expected an image or a"
            " clip, and a class label among them"
        )
    image = frames.images_of(features[image_key]) or features[image_key]
    if image.np_dtype != np.uint8 or image.shape[-1] not in MODES:
        raise UsageError(
            f"data set {name!r} has {image.np_dtype} images of shape {image.shape}: expected"
            " 8-bit images of 1, 3 or 4 channels"
        )
    return image_key, label_key


def wrong_classes(builder, base: str, label_key: str) -> str | None:
    """Returns the fault in the number of classes or their names, or None."""
    folder, label = pathlib.Path(builder.data_dir), builder.info.features[label_key]
    if not label.num_classes or label.num_classes < 1:
        return f"{folder / 'features.json'}: expected at least one class, got {label.num_classes}"
    path = folder / f"{label_key}.labels.txt"
    if not os.path.exists(path) and base != EMBEDDED_NAME:  # the set shipped here has names
        return None
    try:
        names = read_regular(path, "the names of classes", JSON_LIMIT).decode().split("\n")
    except UsageError as error:
        return first_line(error)
    except ValueError as error:
        return f"{path}: {first_line(error)}"
    different = {name.strip() for name in names} - {""}
    if len(different) != label.num_classes or different != set(label.names):
        return f"{path}: expected {label.num_classes} different names, got {len(different)}"
    return None


def splits(builder, base: str) -> dict[str, str]:
    """Returns the set's own names of the training and test splits."""
    # The test split of imagenet2012 has no labels.
    test_names = ["validation"] if base == "imagenet2012" else ["test", "validation"]
    present = list(builder.info.splits)
    test = next((name for name in test_names if name in present), None)
    if "train" not in present or test is None:
        raise UsageError(
            f"the data set in {builder.data_dir} has the splits {', '.join(present)}: expected"
            f" train and {' or '.join(test_names)}"
        )
    return {"train": "train", "test": test}


def check_records(builder, split: str) -> None:
    """Raises ValueError, naming the file, if a file has another number of examples than stated."""
    from array_record.python.array_record_module import ArrayRecordReader

    info = builder.info.splits[split]
    if not info.shard_lengths:
        raise ValueError(f"dataset_info.json: its split {split!r} has no files")
    for path, expected in zip(info.filepaths, info.shard_lengths, strict=True):
        try:
            check_regular(path, "records")
        except UsageError as error:
            raise ValueError(str(error)) from None
        try:
            reader = ArrayRecordReader(str(path))
            found = reader.num_records()
            reader.close()
        except Exception as error:
            raise ValueError(f"{path}: {first_line(error)}") from None
        if found != expected:
            raise ValueError(f"{path}: expected {expected} examples, got {found}")


def first_line(error: Exception) -> str:
    """Returns the first line of a reader's message."""
    return (str(error).strip() or "it cannot be read").splitlines()[0]


def _damaged_description(root: pathlib.Path, name: str) -> str | None:
    """Returns the descriptive file of a set that is missing or invalid, and why; else None."""
    names = ("dataset_info.json", "features.json")
    for folder in sorted({path.parent for file in names for path in (root / name).rglob(file)}):
        for path in (folder / file for file in names):
            try:
                if not read_object(path, "its fields"):
                    return f"{path}: expected a JSON object with its fields"
            except UsageError as error:
                return first_line(error)
    return None


def _not_found(name, base, root) -> UsageError:
    import tensorflow_datasets as tfds

    if base == EMBEDDED_NAME or base not in known_names():
        return _unknown(name, root)
    builder_class = tfds.builder_cls(base)
    configs = [config.name for config in builder_class.BUILDER_CONFIGS]
    config = name.partition(":")[0].partition("/")[2]
    if config and config not in configs:
        return UsageError(
            f"data set {base!r} has no configuration {config!r}: expected"
            f" {', '.join(configs) or 'none'}"
        )
    if configs and not config:  # `tfds build` would prepare every configuration
        name = name.replace(base, f"{base}/{builder_class.default_builder_config.name}", 1)
    by_hand = ""
    if builder_class.MANUAL_DOWNLOAD_INSTRUCTIONS:
        by_hand = f", after putting the archives that it names into {root / 'downloads' / 'manual'}"
    return UsageError(
        f"data set {name!r} is not on disk (looked in {root / base}); prepare it with"
        f" {_build_command(name, root)}{by_hand}{_from_torchvision(base)}"
    )


def _build_command(name, root) -> str:
    folder = shlex.quote(str(root))
    return f"`tfds build {name} --file_format=array_record --data_dir={folder}` {_TFDS_NEEDS}"


def _from_torchvision(base) -> str:
    if base not in CIFAR:
        return ""
    return (
        f"; or, of what torchvision downloads, with `{program.command('prepare')} --cifar=FOLDER`, "
        f"the folder {'cifar-10-batches-py' if base == CIFAR[0] else 'cifar-100-python'}"
    )


def _prepare_command(name) -> str:
    """Returns the command up to a backtick or more flags."""
    return f"`{program.command('prepare')} --images=FOLDER --name={name}"


def _unknown(name, root) -> UsageError:
    close = difflib.get_close_matches(name, [*sets_in(root), *known_names()], n=3)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    return UsageError(
        f"unknown data set {name!r}: expected cifar10_mini, a TFDS set such as cifar10,"
        f" imagenette/160px-v2, or one of your own in {root}, made by"
        f" {_prepare_command('NAME')}` (of clips with --clips){hint}"
    )
