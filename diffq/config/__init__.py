"""Words and YAML into one typed, frozen configuration, checked before anything loads.

    schema    Config, its parts, and its way to YAML and back
    sections  how one trains, and where one logs
    composer  key=value words into a Config, over `layers` of what holds by default and `options` to choose from
    checks    what must fit together
    hydra     the two things that are taken from Hydra: its override grammar, and the composition of YAML
    files     where the YAML lies

Importing this loads no Hydra and no torch.
"""

from diffq.config.schema import (
    Choices,
    Config,
    MetricSuite,
    Request,
    RootSettings,
    compose,
    from_mapping,
    identity,
    typed_root,
)

__all__ = [
    "Choices", "Config", "MetricSuite", "Request", "RootSettings", "compose", "from_mapping", "identity", "typed_root",
]  # fmt: skip
