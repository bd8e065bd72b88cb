"""Trains the experts that trajectory matching (tm, datm) and ncfm need.

    python -m launch.train_experts --config=cifar10_tm:ipc=1
    python -m launch.train_experts --config=configs/demo.py --config.experts.num_experts=2

Writes them to `config.experts.dir`. The same command resumes with the missing ones.
"""

from launch import cli

CONFIG = cli.define_config()
cli.define_processes()
cli.define_stop_after()


def main() -> None:
    from gsdd_jax import matching  # after the flags, so that a wrong one answers at once
    from gsdd_jax.runs import experts
    from gsdd_jax.runs.progress import Reporter
    from gsdd_jax.setup import experiment

    config, dataset = cli.experiment(CONFIG.value), None
    if matching.find(config.matching.name).follows_experts:
        dataset = experiment.build_problem(config)[0].dataset  # refuses settings first
    store = experts.train_all(config, Reporter(None), dataset)
    train, test = store.accuracies()
    print(
        f"experts in {store.directory}: {len(store)}, of {store.epochs} epochs; mean accuracy "
        f"train {train.mean():.1f} %, test {test.mean():.1f} %"
    )


if __name__ == "__main__":
    cli.run(main, resumes=True)
