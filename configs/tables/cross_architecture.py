"""Accuracy of other networks on sets distilled for a ConvNet (Tables 4 and 8).

    python -m launch.reproduce --table=cross_architecture --size=paper
    python -m launch.reproduce --table=cross_architecture --size=small

Paper: trajectory matching on the subsets of ImageNet; three trainings per network, at its own rate
with cosine decay. Small: CIFAR-10, sets of the small table; fewer and shorter trainings, of equally
many steps for every method.
"""

from configs import imagenet_tm
from configs.tables import small
from configs.tables.methods import METHODS, PUBLISHED, SUBSETS, stored_as, trials
from gsdd_jax.tables.table import Cell, Mean, Table

NETWORKS = {"AlexNet": "alexnet", "VGG11": "vgg11", "ResNet18": "resnet18", "ViT": "vit"}
SMALL_STEPS = 80  # of each network, whatever the number of images
SMALL_ROWS = ("pixels", "IDC", "FreD", "DDiF", "Gaussians")


def get_table(size: str) -> Table:
    """Returns the table; see the module's docstring."""
    cells, means = [], []
    columns = SUBSETS if size == "paper" else ("CIFAR-10, TM",)
    for place, column in enumerate(columns):
        for row in SMALL_ROWS:
            method = METHODS[row]
            config, overrides = _experiment(size, column, method)
            published = PUBLISHED["cross_architecture_gsdd"]["rows"]
            own = size == "paper" and row == "Gaussians"
            for network, name in NETWORKS.items():
                number = published[network][place] if own else None
                evaluation = {"overrides": {"network.name": name, **overrides}}
                searched = ({},) if own else trials(method, "tm", size)
                cells.append(
                    Cell(f"{row}, {network}", column, config, "distilled", searched,
                         evaluation=evaluation, published=number)
                )  # fmt: skip
            known = {"pixels": "TM", "Gaussians": "GSDD"}.get(row, row)
            averages = PUBLISHED["cross_architecture_mean"]["rows"].get(known)
            number = averages[place] if averages and size == "paper" else None
            rows = tuple(f"{row}, {network}" for network in NETWORKS)
            means.append(Mean(f"{row}, mean", column, rows, number))
    return Table(
        f"cross_architecture-{size}", "Other networks than the one distilled for", tuple(cells),
        tuple(means), needs_gpu=size == "paper",
    )  # fmt: skip


def _experiment(size, column, method):
    if size == "small":
        config = small.stored("tm", method)
        # `small.stored` has set the epochs so that every method's networks take as many steps.
        epochs = config.evaluate.epochs * SMALL_STEPS // small.EVALUATION_STEPS
        return config, {"evaluate.num_networks": 2, "evaluate.epochs": epochs}
    config = imagenet_tm.get_config()
    config.data.subset = column
    return stored_as(config, method), {}
