"""The ranges of a config's numbers: each rule stands once, and each command checks what it uses."""

import math

import pytest

from configs import common, demo
from gsdd_jax import UsageError
from gsdd_jax.runs import checks, experiment, experts
from gsdd_jax.runs.report import Reporter
from gsdd_jax.runs.workdir import dotted

WRONG = {
    checks.AT_LEAST_ONE: ("at least 1", (0, -1, math.nan), (1, 2**40)),
    checks.AT_LEAST_ZERO: ("at least 0", (-1, math.nan), (0, 1, 2**40)),
    checks.POSITIVE: ("a positive number", (0.0, -1.0, math.inf, math.nan), (1e-300, 1e300)),
    checks.BELOW_ONE: ("from 0 to below 1", (-0.1, 1.0, math.nan), (0.0, 0.999)),
    checks.SEED: ("0 to 4294967295", (-1, 2**32), (0, 2**32 - 1)),
}


@pytest.mark.parametrize("field", checks.RULES)
def test_every_rule_is_of_a_field_and_refuses_in_one_line(field):
    assert field in dotted(common.get_config().to_dict())
    expected, wrong, right = WRONG[checks.RULES[field]]
    group = field.partition(".")[0]
    config = common.get_config()
    with config.ignore_type():
        for value in wrong:
            config.update_from_flattened_dict({field: value})
            with pytest.raises(UsageError) as raised:
                checks.ranges(config, group)
            assert str(raised.value) == f"config.{field}: expected {expected}, got {value}"
            checks.ranges(config, "another group")
        for value in right:
            config.update_from_flattened_dict({field: value})
            checks.ranges(config, group)
    checks.ranges(type(config)(), group)  # a config may lack it


@pytest.mark.parametrize(
    ("command", "groups"),
    [
        (experiment.build_material, {"seed", "data", "init"}),
        (experiment.build, {"seed", "data", "init", "distill", "evaluate"}),
        (lambda config: experts.train_all(config, Reporter(None)), {"experts"}),
    ],
)
def test_a_command_checks_what_it_uses(command, groups):
    for field, rule in checks.RULES.items():
        if field.partition(".")[0] in groups:
            config = demo.get_config()
            with config.ignore_type():
                config.update_from_flattened_dict({field: -1})
            with pytest.raises(UsageError, match=f"^config.{field}: expected {rule.expected}, got"):
                command(config)
