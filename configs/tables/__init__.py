"""Tables, the paper's and two more: a module each, with `get_table(size)`, "paper" or "small".

    python -m launch.reproduce --table=cifar --size=small

"paper" is the experiment as published, beside the published number; "small" is the same comparison
made to fit two CPU cores, and no row of the paper.
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
)
