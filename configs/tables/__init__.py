"""Tables of the paper and further ones, one module each with `get_table(size)`.

    python -m launch.reproduce --table=cifar --size=small

Size "paper" is the published experiment with its published numbers. "small" is the same comparison,
shrunk to two CPU cores; it reproduces no row of the paper.
"""

NAMES = (
    "cifar",
    "imagenet128_tm",
    "imagenet128_dm",
    "imagenet128_dc",
    "cross_architecture",
    "cross_resolution",
    "ablation",
    "gpc_sweep",
    "codes",
    "guidance",
    "bytes",
)
