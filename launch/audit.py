"""Audits a recipe: tells which training images its distilled sets give away.

    python -m launch.audit --config=demo --workdir=runs/audit
    python -m launch.audit --config=demo --config.matching.name=dp_dm --workdir=runs/audit_dp

Distills --shadows sets, each of a random half of the training images, and infers the membership of
every training image from each set by the others (LiRA). Writes audit.json. The same command resumes
an interrupted audit. docs/privacy.md explains the numbers.
"""

from absl import flags

from launch import cli, paths

CONFIG = cli.define_config()
cli.define_stop_after()
SHADOWS = flags.DEFINE_integer("shadows", 16, "Number of sets, in pairs that share no image.", 1)
WORKDIR = paths.define("workdir", None, "Directory for the sets and the result.", required=True)


def main() -> None:
    from gsdd_jax.runs import audit  # after the flags, so that a wrong one answers at once

    result = audit.audit_to(cli.experiment(CONFIG.value), SHADOWS.value, WORKDIR.value)
    print(audit.text(result))
    print(f"written to {WORKDIR.value}/{audit.RESULT}")


if __name__ == "__main__":
    cli.run(main, resumes=True)
