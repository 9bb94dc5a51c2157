"""Who says what: the words of the command line over an experiment over the users' and the built-in config.yaml.

A layer is a mapping from a canonical key (`seed`, `model`, `sampler.scale`) to a value.
This file does not know what a value means.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffq.config.checks import ASKED, dial_owners, refuse_key
from diffq.config.files import GROUPS, read_mapping
from diffq.config.hydra import Argument, parse_argument
from diffq.config.options import Options
from diffq.config.schema import RootSettings
from diffq.config.sections import TrainerSettings
from diffq.errors import UserError

ROOT = tuple(f.name for f in dataclasses.fields(RootSettings))
SECTIONS = ("model", "dataset", "sampler", "metric", "trainer", "tracker")
TRAINER_KEYS = tuple(f.name for f in dataclasses.fields(TrainerSettings))

Layer = dict[str, Any]


class Layers:
    """Reads the layers of one command. Under the verb `train` a bare word is the trainer's, elsewhere a dial or
    something that is asked of an answer."""

    def __init__(self, options: Options, verb: str):
        self._options = options
        self._verb = verb
        self._bases: dict[str | None, tuple[Layer, Layer]] = {}
        self._checkpoints: dict[str, dict[str, Any]] = {}

    def arguments(self, overrides: Sequence[str]) -> list[Argument]:
        """The words of the command line with canonical keys; of a key that is given twice the last one holds.

        Plugins that any layer names are imported first, so that their names and dials are known.
        """
        parsed = [parse_argument(text, lambda key: self._glob(overrides, key)) for text in overrides]
        raw = {a.key: list(a.values) if a.swept else a.values[0] for a in parsed}
        experiment = raw.get("experiment")
        if isinstance(experiment, list):
            raise UserError("experiment= takes one name; sweep each experiment by itself")
        self._options.load_plugins(raw.get("plugins"), experiment)
        merged: dict[str, Argument] = {}
        for a in parsed:
            key = self.canonical(a.key, bare="trainer" if self._verb == "train" else "sampler")
            merged.pop(key, None)
            values = self._words(key, a.values)
            merged[key] = dataclasses.replace(a, key=key, values=values, swept=a.swept and values == a.values)
        return list(merged.values())

    def _words(self, key: str, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """The values of a key. `sample` has one point, so there keywords with commas are words of one list; a sweep
        takes lists, one a point. UserError where it is given words."""
        section, _, name = key.partition(".")
        if section != "dataset" or name not in ASKED or not any(isinstance(value, str) for value in values):
            return values
        if self._verb == "sample":
            words = values if len(values) > 1 else str(values[0]).split(",")  # raw where the grammar cannot read it
            return ([str(word).strip() for word in words],)
        said = ",".join(map(str, values))
        raise UserError(f"{name}={said}: a sweep takes lists of words here, one a point: '{name}=[{said}]'")

    def _glob(self, overrides: Sequence[str], key: str) -> list[str]:
        """What a glob chooses from; the plugins named on the same line count too."""
        given = [text for text in overrides if text.startswith("plugins=")]
        for a in (parse_argument(text, self._options.glob) for text in given[-1:]):
            self._options.load_plugins(list(a.values) if a.swept else a.values[0], None)
        return self._options.glob(key)

    def canonical(self, key: str, where: str = "", *, bare: str = "sampler") -> str:
        """A key as layers hold it: a dial becomes `sampler.DIAL`. UserError where nothing has such a key.

        bare: the section whose keys may be written without it, `sampler` or `trainer`.
        """
        head, dot, _ = key.partition(".")
        if (not dot and (key in GROUPS or key in ROOT)) or (dot and head in SECTIONS):
            return key
        training = bare == "trainer"
        if key in ASKED:
            if training:
                raise UserError(f"{where}'{key}' is asked of answers, and training gives none; give it to diffq sample")
            return f"dataset.{key}"
        if training and key in TRAINER_KEYS:
            return f"trainer.{key}"
        owners = {} if dot else dial_owners()
        if key in owners and not training:
            return f"sampler.{key}"
        if key in owners:
            raise UserError(
                f"{where}'{key}' is a dial of samplers, and training has none; settings of the trainer:"
                f" {', '.join(TRAINER_KEYS)}"
            )
        if key in TRAINER_KEYS:
            raise UserError(
                f"{where}'{key}' is a setting of training, and no dial of a sampler; give it to diffq train, as"
                f" trainer.{key}=VALUE"
            )
        raise refuse_key(key, where, owners, TRAINER_KEYS if training else ())

    def read(self, mapping: Mapping[str, Any], where: str) -> Layer:
        """A YAML mapping as a layer; a mapping below a section is the same as keys with dots."""
        out: Layer = {}
        for key, value in mapping.items():
            canonical = self.canonical(str(key), f"{where}: ")
            if canonical in SECTIONS and isinstance(value, Mapping):
                out |= {f"{canonical}.{inner}": v for inner, v in value.items()}
            else:
                out[canonical] = value
        return out

    def merge(self, chosen: Mapping[str, Any]) -> Layer:
        """All layers of one point, the command line's last.

        A checkpoint says which model and dataset it was trained on: that layer lies above the config.yaml files.
        Under `train` an experiment's sampler is left out: training samples with the default of its model.
        UserError where what an experiment leaves to the command line (`???`, as in Hydra) is not given there.
        """
        root, experiment = self._below(chosen.get("experiment"))
        over = experiment | dict(chosen)
        if missing := [key for key, value in over.items() if value == _TO_BE_GIVEN]:
            raise UserError(
                f"experiment '{chosen.get('experiment')}' leaves {' and '.join(missing)} to you; add"
                f" {' '.join(f'{key}=…' for key in missing)}"
            )
        checkpoint = over.get("checkpoint", root.get("checkpoint"))
        return root | (self._trained(str(checkpoint), over) if checkpoint is not None else {}) | over

    def _below(self, name: str | None) -> tuple[Layer, Layer]:
        if name not in self._bases:
            root: Layer = {}
            for path, held in self._options.roots():
                root |= self.read({k: v for k, v in held.items() if k not in _NO_SETTINGS}, str(path))
            held = self._options.experiment(name).get("defaults") or {}
            above = self.read({k: v for k, v in held.items() if k not in _NO_SETTINGS}, f"experiment '{name}'")
            if self._verb == "train":
                above = {k: v for k, v in above.items() if k.partition(".")[0] != "sampler"}
            self._bases[name] = (root, above)
        return self._bases[name]

    def _trained(self, checkpoint: str, over: Layer) -> Layer:
        """Model and dataset of a checkpoint of ours, where nobody names another; of other layouts the kind of model."""
        if checkpoint not in self._checkpoints:
            path = Path(checkpoint) / "config.yaml"
            self._checkpoints[checkpoint] = read_mapping(path) if path.is_file() else _foreign(Path(checkpoint))
        stored = self._checkpoints[checkpoint]
        layer: Layer = {}
        for group in ("dataset", "model"):
            name, section = (stored.get("choices") or {}).get(group), stored.get(group)
            if name in self._options.names(group) and over.get(group, name) == name and isinstance(section, Mapping):
                layer |= {group: name} | {f"{group}.{k}": v for k, v in section.items() if k != "kind"}
        return layer


def _foreign(folder: Path) -> dict[str, Any]:
    """What the config.json of another project's checkpoint says it is, as a YAML of ours names it: its sizes are read
    where it is loaded. Nothing where that cannot be told."""
    folder = folder.parent if folder.suffix == ".safetensors" else folder
    try:
        held = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    model = ""
    if isinstance(held, dict) and isinstance(held.get("graph"), dict):
        model = "sedd_uniform_small" if held["graph"].get("type") == "uniform" else "sedd_small"
    elif isinstance(held, dict) and {"hidden_dim", "cond_dim"} <= held.keys():
        model = "mdlm_small"
    elif isinstance(held, dict) and held.get("architectures"):
        model = "hf_causal"
    return {"choices": {"model": model}, "model": {}} if model else {}


_TO_BE_GIVEN = "???"  # OmegaConf's word for a value that must be given
_NO_SETTINGS = ("plugins", "default_samplers", "default_trainers")  # read by Options: they are merged, not replaced
