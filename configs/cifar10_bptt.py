"""CIFAR-10, back-propagation through training (RaT-BPTT), IPC 10, stored as Gaussians or codes.

    python -m launch.distill --config=cifar10_bptt --workdir=runs/cifar10_bptt

The published settings of Feng et al. (2024) for pixels at IPC 10, as far as they exist here; the
differences are in docs/architecture.md. Variants: "" and "codes". The paper of this package has no
such row, and the published settings for other budgets are not known.
"""

from configs import common, load


def get_config(variant: str = ""):
    """Returns the config of the experiment; a variant is "" or "codes"."""
    common.parse(variant, (10,))
    base = load("cifar10_tm:ipc=10" + ",codes" * ("codes" in variant))
    config = common.matched_by(base, "bptt")
    config.matching.strategy = "flip_rotate"
    config.matching.options.update(batch_syn=100, batch_real=500)
    config.distill.update(num_steps=15_000, learning_rate=1e-3)
    return config
