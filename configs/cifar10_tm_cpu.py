"""CIFAR-10, trajectory matching, IPC 1, shortened for two CPU cores: no row of the paper.

    python -m launch.train_experts --config=cifar10_tm_cpu
    python -m launch.distill --config=cifar10_tm_cpu --workdir=runs/tm_cpu

Takes half an hour and reaches 46 % (docs/results.md). Data, budget and method are those of
cifar10_tm; the network is narrower, the experts are fewer and shorter, the unroll is half as
long and the learning rate of the images is higher.

Pixels under the same objective, with the settings published for one image per class:

    python -m launch.distill --config=cifar10_tm_cpu --workdir=runs/tm_cpu_pixels \\
        --config.parameterization.name=pixels --config.matching.options.batch_syn=10 \\
        --config.distill.learning_rate=100.0 --config.matching.options.lr_init=0.01 \\
        --config.matching.options.lr_lr=1e-7 --config.matching.options.syn_steps=50 \\
        --config.matching.options.max_start_epoch=2 --config.matching.options.expert_epochs=2
"""

from configs import cifar10_tm


def get_config():
    """Returns the config of the experiment."""
    config = cifar10_tm.get_config()
    config.network.options.width = 16
    config.experts.num_experts = 4
    config.experts.epochs = 7
    config.init.num_steps = 2000
    config.matching.options.syn_steps = 30
    config.matching.options.batch_syn = 60
    config.matching.options.max_start_epoch = 6
    config.matching.options.expert_epochs = 1
    config.matching.options.lr_init = 0.05
    config.matching.options.lr_lr = 1e-4
    config.distill.num_steps = 500
    config.distill.learning_rate = 3e-3
    config.distill.steps_per_call = 5
    config.distill.checkpoint_every = 25
    config.distill.eval_every = 100
    config.evaluate.epochs = 300
    return config
