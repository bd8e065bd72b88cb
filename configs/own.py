"""Your own data set: distribution matching with settings chosen from the data.

    python -m launch.prepare --images=FOLDER --name=NAME
    python -m launch.distill --config=configs/own.py --config.data.name=NAME --workdir=runs/mine

Stores Gaussians as codes, in the bytes of one float32 image per class. Takes minutes on two cores
at 32 x 32: the ConvNet is narrow, the schedules are short. Fields that are 0 here follow from the
size of the pictures, the number of classes and the largest class (`gsdd_jax.config.suited`). Flags
override them.

| variant | objective |
| --- | --- |
| objective=dm | distribution matching |
| objective=taught | the same with a teacher's labels, also of mixtures |
| objective=tm | trajectory matching, after `launch.train_experts` with the same --config |
| objective=datm | the same with learned labels, early epochs first |
| objective=bptt | back-propagation through training |
| objective=ncfm | characteristic function matching, after `launch.train_experts` likewise |
| objective=none | nothing is distilled: compressed real images and a teacher's labels |
| objective=labeler | nothing is distilled: such images and a network that labels every view |
"""

from gsdd_jax.config import own
from gsdd_jax.core.errors import UsageError


def get_config(variant="objective=dm"):
    """Returns the config of the experiment; raises ValueError for an unknown objective."""
    try:
        return own(variant.removeprefix("objective="))
    except UsageError as error:
        raise ValueError(error) from None  # the kind of error that a flag shows in one line
