"""Distills a data set into a small synthetic one.

    python -m launch.distill --config=configs/demo.py --workdir=runs/demo
    python -m launch.distill --config=cifar10_dm --config.budget.bytes=6000 --workdir=runs/dm
    python -m launch.distill --config=cifar10_tm:ipc=1 --config.scale=0.01 --workdir=runs/small

Writes distilled.safetensors, result.json, report.html and checkpoints to --workdir. The result
compares the set's accuracy with baselines of the same bytes. The same command resumes an
interrupted run. The objectives tm, datm and ncfm need experts: run launch.train_experts first.
"""

from launch import cli, paths

CONFIG = cli.define_config()
cli.define_processes()
cli.define_stop_after()
WORKDIR = paths.define("workdir", None, "Directory for results and checkpoints.", required=True)


def main() -> None:
    from gsdd_jax.core import processes  # after the flags, so that a wrong one answers at once
    from gsdd_jax.report.document import distill_with_report
    from gsdd_jax.runs.evaluation import compared
    from gsdd_jax.setup import experiment

    result = distill_with_report(cli.experiment(CONFIG.value), WORKDIR.value)
    if not processes.first():
        return
    shown = ("distilled", "fitted", experiment.strongest(result))
    print(f"results in {WORKDIR.value}: distilled.safetensors, result.json, report.html")
    print(f"test accuracy:  {compared(shown, result)}")
    best = experiment.strongest(result, experiment.KEPT)
    if result["provenance"]["step"] == 0:
        print("nothing is distilled: config.distill.num_steps is 0")
    elif best not in (None, "distilled"):
        leaks = ", and not private" if "privacy" in result["provenance"] else ""
        print(
            f"the set of the most accurate networks is {best}.safetensors: nothing is distilled"
            f"{leaks}"
        )


if __name__ == "__main__":
    cli.run(main, resumes=True)
