"""Video sets, distribution matching, as Wang et al. (CVPR 2024) match clips: no row of the paper.

    python -m launch.distill --config=clips_dm:miniucf,vpc=1 --workdir=runs/miniucf

| variant | frames | classes |
| --- | --- | --- |
| miniucf | 16 of 112 x 112 | 50 of UCF-101's |
| hmdb51 | 16 of 112 x 112 | 51 |
| kinetics400 | 8 of 64 x 64 | 400 |
| ssv2 | 8 of 64 x 64 | 174 |

The budget is that of VPC float32 clips per class, 115 MB in all for miniUCF at VPC 1;
`--config.budget.bytes` sets a smaller one. UCF-101 is a set of TFDS, the others are prepared from
their videos, such as `python -m launch.prepare --clips=videos --name=hmdb51 --resolution=112`.
`PUBLISHED` has published numbers, quoted from later work (arXiv 2505.22564).
"""

from configs import common
from gsdd_jax.config import component_options, stored_as

MINI_UCF = (
    *("ApplyEyeMakeup", "BalanceBeam", "BandMarching", "BaseballPitch", "Basketball"),
    *("BasketballDunk", "Biking", "Billiards", "BlowingCandles", "Bowling", "BreastStroke"),
    *("CleanAndJerk", "CliffDiving", "CricketShot", "Diving", "FloorGymnastics", "FrisbeeCatch"),
    *("GolfSwing", "HammerThrow", "HighJump", "HorseRace", "HorseRiding", "HulaHoop", "IceDancing"),
    *("JumpingJack", "Knitting", "MilitaryParade", "Mixing", "ParallelBars", "PlayingPiano"),
    *("PlayingViolin", "PoleVault", "PommelHorse", "Punch", "Rafting", "Rowing", "SkateBoarding"),
    *("Skiing", "Skijet", "SkyDiving", "SoccerPenalty", "StillRings", "SumoWrestling", "Surfing"),
    *("Swing", "TennisSwing", "TrampolineJumping", "UnevenBars", "VolleyballSpiking"),
    "WritingOnBoard",
)
# TFDS name, side, frames, classes to keep.
SETS = {
    "miniucf": ("ucf101", 112, 16, ",".join(MINI_UCF)),
    "hmdb51": ("hmdb51", 112, 16, ""),
    "kinetics400": ("kinetics400", 64, 8, ""),
    "ssv2": ("ssv2", 64, 8, ""),
}
PUBLISHED = {  # test accuracy, %
    "miniucf,vpc=1": {"DM": 15.3, "Wang et al.": 17.5},
    "miniucf,vpc=5": {"DM": 25.7, "Wang et al.": 27.2},
    "hmdb51,vpc=1": {"DM": 6.1, "Wang et al.": 6.0},
    "hmdb51,vpc=5": {"DM": 8.0, "Wang et al.": 8.2},
}
CLIPS = {1: 40, 5: 60}  # per class, by VPC: 2,315 and 7,718 Gaussians each at 112 x 112
VARIANTS = tuple(f"{name},vpc={vpc}" for name in SETS for vpc in CLIPS)


def get_config(variant: str = VARIANTS[0]):
    """Returns the config of a variant, such as "hmdb51,vpc=5"."""
    if variant not in VARIANTS:
        raise ValueError(f"variant {variant!r}: expected one of {' '.join(VARIANTS)}")
    name, _, vpc = variant.partition(",vpc=")
    config = common.get_config()
    config.data.resize = "squash"
    config.data.name, config.data.resolution, config.data.frames, config.data.classes = SETS[name]
    stored_as(config, "video_gaussian")
    config.budget.ipc, config.budget.images_per_class = int(vpc), CLIPS[int(vpc)]
    config.init.learning_rate = 0.01  # as of images of that size
    config.network.name = "minic3d"
    config.network.options = component_options("network", "minic3d")
    config.matching.strategy = ""
    config.matching.options.batch_real, config.matching.options.batch_syn = 64, 0
    config.distill.num_steps, config.distill.eval_every = 5000, 500
    config.evaluate.epochs = 500
    return config
