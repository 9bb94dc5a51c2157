"""The training loop on a small model: exact resumption, accumulation, processes, averages, budgets, failures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import toy_training as toy
from accelerate.state import AcceleratorState

from diffq.config.sections import TrainerSettings
from diffq.errors import UserError
from diffq.models.base import PairBatch
from diffq.models.checkpoints import read_tensors
from diffq.runs.training.loop import Interrupted, NotFinite
from diffq.runs.training.optimise import Average, build_optimizer, learning_rate
from diffq.runs.training.steps import divide

PROGRAM = Path(toy.__file__)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    AcceleratorState._reset_state(reset_partial_state=False)
    yield
    torch.set_num_threads(before)


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in rows(folder) if "loss" in row]


def run_json(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


class Stops(toy.ToyModel):
    """Fails at one of its training losses."""

    left = 6

    def loss(self, *arguments):
        self.left -= self.training
        if self.left < 0:
            raise RuntimeError("the power went")
        return super().loss(*arguments)


@pytest.mark.parametrize("changes", [{}, {"ema": 0.9, "micro_batch": 3, "clip": 0.5, "precision": "bf16"}])
def test_a_training_that_failed_goes_on_with_the_same_losses(tmp_path, changes):
    toy.train(toy.job(tmp_path / "whole", **changes))
    with pytest.raises(RuntimeError, match="the power went"):
        toy.train(toy.job(tmp_path / "broken", model=Stops, **changes))
    AcceleratorState._reset_state(reset_partial_state=False)
    assert run_json(tmp_path / "broken")["status"] == "running"
    toy.train(toy.job(tmp_path / "broken", **changes))
    assert losses(tmp_path / "broken") == losses(tmp_path / "whole")
    assert len(losses(tmp_path / "whole")) == 12
    whole, broken_weights = (read_tensors(tmp_path / n / "model.safetensors") for n in ("whole", "broken"))
    assert all(torch.equal(whole[name], broken_weights[name]) for name in whole)
    assert run_json(tmp_path / "broken")["status"] == "done"


def launch(folder: Path, *arguments: str, processes: int = 1) -> subprocess.CompletedProcess:
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"]
        command += ["--num_processes", str(processes), "--mixed_precision", "no", "--dynamo_backend", "no"]
        command += ["--main_process_port", "0"]
    path = os.pathsep.join([str(PROGRAM.parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": path}
    return subprocess.run(
        [*command, str(PROGRAM), str(folder), *arguments], env=environment, capture_output=True, text=True, timeout=120
    )


def test_a_killed_process_goes_on_with_the_same_losses(tmp_path):
    killed = launch(tmp_path / "killed", "--kill-after", "7")
    assert killed.returncode == -signal.SIGKILL
    assert len(losses(tmp_path / "killed")) == 7
    toy.train(toy.job(tmp_path / "killed"))
    toy.train(toy.job(tmp_path / "whole"))
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")


def test_two_processes_have_the_losses_of_one_and_go_on_after_a_kill(tmp_path):
    toy.train(toy.job(tmp_path / "one", dropout=0.0))
    killed = launch(tmp_path / "two", "--dropout", "0", "--kill-after", "6", processes=2)
    assert killed.returncode != 0
    assert len(losses(tmp_path / "two")) == 6
    again = launch(tmp_path / "two", "--dropout", "0", processes=2)
    assert again.returncode == 0, again.stderr
    assert run_json(tmp_path / "two")["processes"] == 2
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    validation = [[r["validation_loss"] for r in rows(tmp_path / n) if "validation_loss" in r] for n in ("one", "two")]
    assert validation[1] == pytest.approx(validation[0], rel=1e-5)


@pytest.mark.slow
def test_two_processes_with_dropout_go_on_exactly(tmp_path):
    assert launch(tmp_path / "killed", "--kill-after", "6", processes=2).returncode != 0
    for name in ("killed", "whole"):
        assert launch(tmp_path / name, processes=2).returncode == 0
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    before = rows(tmp_path / "whole")
    assert launch(tmp_path / "whole", processes=2).returncode == 0  # both know that the last step was validated
    assert rows(tmp_path / "whole") == before


def test_accumulation_is_exact(tmp_path):
    for name, micro in (("whole", None), ("parts", 3)):
        toy.train(toy.job(tmp_path / name, dropout=0.0, micro_batch=micro))
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), rel=1e-5)
    assert losses(tmp_path / "parts") != losses(tmp_path / "whole")  # it did sum in another order


def test_the_shares_of_a_batch_are_the_batch():
    batch = toy.ToyBatches(24).collate(torch.arange(24), torch.zeros(24, dtype=torch.long))
    found: dict[int, tuple] = {}
    for rank in range(3):
        share = divide(batch, 3, rank, 3)
        assert share.totals.examples == 24
        assert share.totals.tokens == int(batch.target_valid_BL.sum())
        laid = torch.cat([p.row_B for p in share.parts])
        placed = torch.empty_like(laid)
        placed[share.order_B] = laid
        assert placed.tolist() == list(range(rank, 24, 3))
        for part in share.parts:
            assert len(part.row_B) <= 3
            assert bool(part.target_valid_BL.any(0).all())
            assert bool(part.source_valid_BS.any(0).all())
            found |= {int(r): _texts(part, i) for i, r in enumerate(part.row_B)}
    assert found == {r: _texts(batch, r) for r in range(24)}


def _texts(batch: PairBatch, i: int) -> tuple:
    source, target = batch.source_BS[i][batch.source_valid_BS[i]], batch.target_BL[i][batch.target_valid_BL[i]]
    return source.tolist(), target.tolist()


def test_the_averaged_weights_are_the_ones_published(tmp_path):
    toy.train(toy.job(tmp_path, ema=0.5, max_steps=3, schedule="constant"))
    state = tmp_path / "state" / "step-3"
    average, raw = read_tensors(state / "average.safetensors"), read_tensors(state / "weights.safetensors")
    published = read_tensors(tmp_path / "model.safetensors")
    assert torch.equal(published["out.weight"], average["out.weight"])
    assert not torch.equal(published["out.weight"], raw["out.weight"])
    assert torch.equal(published["seen"], raw["seen"])


def test_the_average_by_hand():
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    average = Average(model, 0.2)
    expected = 0.0
    for n, value in enumerate((1.0, 2.0, 5.0), start=1):
        model.weight.data.fill_(value)
        average.update()
        decay = min(0.2, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * value
    assert average.values["weight"].item() == pytest.approx(expected, rel=1e-6)
    with average.swapped_in():
        assert model.weight.item() == pytest.approx(expected, rel=1e-6)
    assert model.weight.item() == 5.0


def test_learning_rates():
    linear = TrainerSettings(max_steps=110, warmup_steps=10, learning_rate=1.0)
    assert [learning_rate(linear, s, 0.0) for s in (0, 9, 10, 60, 110)] == pytest.approx([0.1, 1.0, 1.0, 0.55, 0.1])
    cosine = linear.replace(schedule="cosine", final_fraction=0.0)
    assert [learning_rate(cosine, s, 0.0) for s in (10, 60, 110)] == pytest.approx([1.0, 0.5, 0.0])
    assert learning_rate(linear.replace(schedule="constant"), 90, 0.0) == 1.0
    assert learning_rate(linear.replace(max_steps=8), 3, 0.0) == 1.0  # half of it is warm-up
    by_clock = TrainerSettings(max_minutes=5.0, learning_rate=1.0)
    assert [learning_rate(by_clock, 10**6, c) for c in (0.0, 0.5, 1.2)] == pytest.approx([1.0, 0.55, 0.1])


def test_what_decays():
    model = toy.ToyModel()
    assert len(build_optimizer(model, TrainerSettings(max_steps=1)).param_groups) == 1
    decayed, plain = build_optimizer(model, TrainerSettings(max_steps=1, decay="matrices")).param_groups
    assert {id(p) for p in decayed["params"]} == {id(model.hidden.weight), id(model.out.weight)}
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.01, 0.0)


class Explodes(toy.ToyModel):
    """Its loss is infinite once it has been computed six times."""

    left = 6

    def loss(self, *arguments):
        parts = super().loss(*arguments)
        self.left -= self.training
        return parts if self.left >= 0 else parts | {"loss": parts["loss"] * float("inf")}


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_state(tmp_path):
    with pytest.raises(NotFinite, match=r"became inf at step 7 \(learning rate 0.0[0-9]+\); the checkpoint of step-4"):
        toy.train(toy.job(tmp_path, model=Explodes, log_steps=5, validation_sources=0))
    assert [p.name for p in (tmp_path / "state").iterdir()] == ["step-4"]
    assert run_json(tmp_path)["status"] == "failed"
    assert all(bool(v.isfinite().all()) for v in read_tensors(tmp_path / "model.safetensors").values())


class Breaks(toy.ToyModel):
    """A weight becomes NaN at the seventh update, whose loss does not show it yet."""

    left = 7

    def observe(self, records):
        super().observe(records)
        self.left -= 1
        if self.left == 0:
            with torch.no_grad():
                self.out.weight[0, 0] = float("nan")


@pytest.mark.parametrize("changes", [{"save_steps": 7}, {"max_steps": 7, "save_steps": 3}, {"validate_steps": 7}])
def test_no_state_holds_weights_that_are_no_numbers(tmp_path, changes):
    with pytest.raises(NotFinite, match=r"not finite after step 7|validation loss became nan at step 7"):
        toy.train(toy.job(tmp_path, model=Breaks, **changes))
    assert run_json(tmp_path)["status"] == "failed"
    kept = list((tmp_path / "state").glob("step-*"))
    assert "step-7" not in [path.name for path in kept]
    if (tmp_path / "model.safetensors").exists():
        assert all(bool(v.isfinite().all()) for v in read_tensors(tmp_path / "model.safetensors").values())


def test_no_state_is_written_from_losses_that_were_not_looked_at(tmp_path):
    with pytest.raises(NotFinite):
        toy.train(toy.job(tmp_path, model=Explodes, log_steps=100, save_steps=7))
    assert not (tmp_path / "model.safetensors").exists()


class Signalled(toy.ToyModel):
    left = 5
    number = signal.SIGINT

    def loss(self, *arguments):
        self.left -= self.training
        if self.left == 0:
            os.kill(os.getpid(), self.number)
        return super().loss(*arguments)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_first(tmp_path, number, monkeypatch):
    before = signal.getsignal(number)
    monkeypatch.setattr(Signalled, "number", number)
    with pytest.raises(Interrupted, match="saved at step 5") as stop:
        toy.train(toy.job(tmp_path / "stopped", model=Signalled))
    AcceleratorState._reset_state(reset_partial_state=False)
    assert stop.value.number == number
    assert signal.getsignal(number) is before
    assert run_json(tmp_path / "stopped")["status"] == "stopped"
    toy.train(toy.job(tmp_path / "stopped"))
    toy.train(toy.job(tmp_path / "whole"))
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")


def test_minutes_are_counted_over_calls(tmp_path):
    job = toy.job(tmp_path, max_steps=None, max_minutes=0.3 / 60, schedule="constant")
    toy.train(job)
    first = run_json(tmp_path)
    assert first["status"] == "done"
    assert 0.3 <= first["seconds"] < 2
    more = toy.job(tmp_path, max_steps=None, max_minutes=(first["seconds"] + 0.2) / 60, schedule="constant")
    AcceleratorState._reset_state(reset_partial_state=False)
    toy.train(more)
    second = run_json(tmp_path)
    assert second["step"] > first["step"]
    assert first["seconds"] + 0.2 <= second["seconds"] < first["seconds"] + 2
    assert [r["step"] for r in rows(tmp_path) if "loss" in r] == list(range(1, second["step"] + 1))


def test_states_are_pruned_and_leftovers_do_not_count(tmp_path):
    (tmp_path / "state" / ".step-9.tmp").mkdir(parents=True)
    toy.train(toy.job(tmp_path, keep=2))
    assert sorted(p.name for p in (tmp_path / "state").glob("step-*")) == ["step-12", "step-8"]


def test_validation_changes_nothing_and_is_logged(tmp_path):
    toy.train(toy.job(tmp_path / "often", validate_steps=2))
    toy.train(toy.job(tmp_path / "never", validate_steps=None))
    assert losses(tmp_path / "often") == losses(tmp_path / "never")
    assert len([r for r in rows(tmp_path / "often") if "validation_loss" in r]) == 6


def test_a_training_that_goes_on_from_its_last_step_does_not_validate_it_again(tmp_path):
    """Also where the state was saved by a signal, before the validation that the log has."""
    toy.train(toy.job(tmp_path))
    before = rows(tmp_path)
    (validated,) = [row["validation_loss"] for row in before if "validation_loss" in row]
    head = tmp_path / "state/step-12/state.json"
    for held in (validated, None):
        head.write_text(json.dumps(json.loads(head.read_text()) | {"validation_loss": held}))
        toy.train(toy.job(tmp_path))
        assert rows(tmp_path) == before
        assert run_json(tmp_path)["validation_loss"] == validated
        assert run_json(tmp_path)["status"] == "done"


def test_an_older_state_stands_in_for_a_damaged_one(tmp_path, capsys):
    toy.train(toy.job(tmp_path / "whole", schedule="constant"))
    folder = tmp_path / "cut"
    toy.train(toy.job(folder, max_steps=8, schedule="constant"))
    for name in ("optimizer.safetensors", "state.json"):
        place = folder / "state" / "step-8" / name
        place.write_bytes(place.read_bytes()[:-10])
    toy.train(toy.job(folder, schedule="constant"))
    told = capsys.readouterr().err
    assert "step-8/state.json is not JSON" in told
    assert "step-4 is gone on from" in told
    assert losses(folder) == losses(tmp_path / "whole")
    for place in (folder / "state").glob("step-*"):
        (place / "weights.safetensors").unlink()
    with pytest.raises(UserError, match=r"weights\.safetensors is not there.*no older state; delete .*state and the"):
        toy.train(toy.job(folder, max_steps=20, schedule="constant"))


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path):
    from accelerate import Accelerator

    from diffq.runs.training.loop import Trainer

    class Three(Accelerator):
        num_processes = 3

    with pytest.raises(UserError, match=r"batch_size=8 cannot be shared equally by 3 processes"):
        Trainer(toy.job(tmp_path), Three(cpu=True))


def test_a_training_needs_an_end():
    with pytest.raises(UserError, match=r"max_steps or trainer\.max_minutes"):
        TrainerSettings()
