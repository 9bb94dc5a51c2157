"""Sessions of LLaDA and Dream: padding anywhere, asked positions, guidance by masking the prompt, rows that leave; the
loss; sampling and training by name."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from reference.published_llms import random_tensors
from torch.nn import functional as F

from diffq.cli.main import main
from diffq.diffusion.contracts import GUIDED, UNCOND, Canvas, Meter
from diffq.diffusion.noise import Noise
from diffq.diffusion.reductions import LogProb
from diffq.errors import UserError
from diffq.models.base import TextBatch, Totals
from diffq.models.masked_lm import DreamSettings, LLaDASettings
from diffq.models.text_diffusion import training_noise
from diffq.registry import SAMPLERS
from diffq.rng import Rng

WORDS, MASK, PAD, END = 700, 300, 5, 6  # several blocks of the race; the mask stands in the middle
SIZES = {"width": 32, "heads": 4, "layers": 2, "mlp_width": 48, "max_length": 40}
KINDS = {
    "llada": (LLaDASettings, {}),
    "llada_tied": (LLaDASettings, {"tied": True, "kv_heads": 2}),
    "dream": (DreamSettings, {"qkv_bias": True, "kv_heads": 2}),
}


def build(name, seed=0, **changes):
    settings, more = KINDS[name]
    vocabulary = SimpleNamespace(size=WORDS, pad=PAD, mask=MASK, start=END, end=END)
    model = settings(**(SIZES | more | changes)).build(vocabulary)
    shapes = {name: tuple(value.shape) for name, value in model.net.state_dict().items()}
    model.net.load_state_dict(random_tensors(shapes, seed))
    return model.eval()


def text_of(*lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(10, 290, (n,), generator=generator) for n in lengths]


def canvas_of(prompts, answer, side="left"):
    """Prompts of several lengths and then `answer` free positions; padding stands on one side of the prompt or behind
    the answer."""
    longest = max(len(p) for p in prompts)
    tokens_BL = torch.full((len(prompts), longest + answer), PAD)
    valid_BL = torch.zeros_like(tokens_BL, dtype=torch.bool)
    free_BL = valid_BL.clone()
    for b, prompt in enumerate(prompts):
        n, gap = len(prompt), longest - len(prompt)
        begin = gap if side == "left" else 0
        first = longest if side in ("left", "middle") else n
        tokens_BL[b, begin : begin + n] = prompt
        tokens_BL[b, first : first + answer] = MASK
        valid_BL[b, begin : begin + n] = valid_BL[b, first : first + answer] = True
        free_BL[b, first : first + answer] = True
    return Canvas(tokens_BL, free_BL, valid_BL, torch.arange(len(prompts)))


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("side", ["left", "right", "middle"])
def test_padding_changes_nothing_wherever_it_stands(name, side):
    denoiser, prompts = build(name).denoiser(), text_of(9, 3, 6)
    canvas = canvas_of(prompts, 4, side)
    hidden = denoiser.open(canvas).run(canvas.tokens_BL, torch.ones(3))
    for b, prompt in enumerate(prompts):
        alone = canvas_of([prompt], 4)
        expected = denoiser.open(alone).run(alone.tokens_BL, torch.ones(1))[0, len(prompt) :]
        assert torch.allclose(hidden[b][canvas.free_BL[b]], expected, atol=2e-4)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("branches", [("cond",), GUIDED])
def test_asked_positions_are_those_of_the_whole(name, branches):
    denoiser, prompts = build(name).denoiser(), text_of(9, 3)
    canvas = canvas_of(prompts, 4)
    session = denoiser.open(canvas, branches)
    whole = session.run(canvas.tokens_BL, torch.ones(2))
    at_BK = torch.tensor([[12, 9, 0], [10, 11, 6]])
    some = session.run(canvas.tokens_BL, torch.ones(2), at_BK)
    at_RK = at_BK.repeat(len(branches), 1)
    assert torch.allclose(some, whole.gather(1, at_RK[..., None].expand(-1, -1, 32)), atol=2e-5)


@pytest.mark.parametrize("name", KINDS)
def test_the_unconditional_branch_sees_masks_for_the_prompt(name):
    denoiser, canvas = build(name).denoiser(), canvas_of(text_of(9, 3), 4)
    blank = torch.where(canvas.valid_BL & ~canvas.free_BL, MASK, canvas.tokens_BL)
    free_BL = canvas.free_BL
    expected = denoiser.open(canvas.replace(free_BL=canvas.valid_BL)).run(blank, torch.ones(2))
    both = denoiser.open(canvas, GUIDED).run(canvas.tokens_BL, torch.ones(2))
    alone = denoiser.open(canvas, UNCOND).run(canvas.tokens_BL, torch.ones(2))
    assert torch.allclose(both[2:][free_BL], expected[free_BL], atol=2e-5)
    assert torch.allclose(alone[free_BL], expected[free_BL], atol=2e-5)
    assert not torch.allclose(both[:2][free_BL], expected[free_BL], atol=1e-2)


@pytest.mark.parametrize("name", KINDS)
def test_rows_leave_and_may_be_repeated(name):
    denoiser, canvas = build(name).denoiser(), canvas_of(text_of(9, 3, 5), 4)
    session = denoiser.open(canvas, GUIDED)
    whole = session.run(canvas.tokens_BL, torch.ones(3))
    rows = torch.tensor([2, 0, 2])
    session.select(rows)
    part = session.run(canvas.tokens_BL[rows], torch.ones(3))
    assert torch.allclose(part, whole[torch.cat([rows, rows + 3])], atol=2e-5)


def test_scores_are_log_probabilities_without_mask_and_padding():
    model = build("llada")
    assert (model.words, model.never) == (WORDS, (PAD, MASK))
    canvas = canvas_of(text_of(5), 3)
    session = model.denoiser().open(canvas)
    hidden = session.run(canvas.tokens_BL, torch.ones(1))
    position_N = torch.tensor([5, 6, 7])
    with torch.no_grad():
        logits_NV = F.linear(hidden[0, 5:], *model.net.head).double()
        assert torch.equal(model.log_weights(hidden[0, 5:]).isinf().nonzero()[:, 1].unique(), torch.tensor([PAD, MASK]))
    allowed = [v for v in range(WORDS) if v not in (MASK, PAD)]
    for token in (0, 299, 301, END, 699):
        (found_N,) = session.read(hidden, position_N, [LogProb(torch.full((3,), token))])
        assert torch.allclose(found_N, logits_NV[:, token] - logits_NV[:, allowed].logsumexp(-1), atol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_the_loss_is_the_weighted_cross_entropy_one_row_at_a_time(name):
    model, generator = build(name), torch.Generator().manual_seed(3)
    tokens_BL = torch.randint(10, 290, (4, 11), generator=generator)
    valid_BL = torch.arange(11) < torch.tensor([11, 7, 11, 9])[:, None]
    batch = TextBatch(tokens_BL, valid_BL, torch.arange(4), torch.zeros(4, dtype=torch.long), seen_BL=valid_BL)
    with torch.no_grad():
        found = model.loss(batch, Rng(0), Totals(4, int(valid_BL.sum())))["loss"]
    noise = training_noise(Noise(), batch, Rng(0))
    total = torch.zeros((), dtype=torch.float64)
    for b in range(4):
        n = int(valid_BL[b].sum())
        seen = torch.where(noise.destroyed_BL[b, :n], MASK, tokens_BL[b, :n])
        with torch.no_grad():
            log_p = model.log_weights(model.states(seen[None])[0]).log_softmax(-1)
        for i in range(n):
            if noise.destroyed_BL[b, i]:  # 1/m is LLaDA's weight: with log-linear noise m = (1 − eps)·t
                total -= log_p[i, tokens_BL[b, i]].double() / noise.share[b] * (1 - Noise().eps)
    # dσ/dt · (1 − m)/m = (1 − eps)/m
    assert float(found) == pytest.approx(float(total / valid_BL.sum()), rel=1e-4)


@pytest.mark.parametrize("name", KINDS)
def test_the_loss_is_nearly_the_same_in_half_precision_and_learns_in_both(name):
    """Under autocast the stream stays in float32; the gradients point the same way."""
    model = build(name)
    tokens_BL = torch.randint(10, 290, (4, 11), generator=torch.Generator().manual_seed(3))
    batch = TextBatch(tokens_BL, torch.ones_like(tokens_BL, dtype=torch.bool), torch.arange(4), torch.zeros(4).long())
    losses, slopes = [], []
    for half in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            states = model.states(tokens_BL)
            loss = model.loss(batch, Rng(0), Totals(4, 44))["loss"]
        assert states.dtype == torch.float32
        loss.backward()
        losses.append(loss.item())
        slopes.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert losses[1] == pytest.approx(losses[0], rel=0.03)
    assert float(F.cosine_similarity(*slopes, dim=0)) > 0.98


@pytest.mark.parametrize("sampler", ["ancestral", "first_hitting", "remdm", "remdm_conf", "eags", "eags_all"])
@pytest.mark.parametrize("name", ["llada", "dream"])
def test_every_masked_sampler_serves_them(name, sampler):
    rule = {"remdm_conf": {"rule": "conf"}, "eags_all": {"update": "all"}}.get(sampler, {})
    steps = {} if sampler == "first_hitting" else {"steps": 6}
    made = SAMPLERS[sampler.removesuffix("_conf").removesuffix("_all")](scale=1.5, **rule, **steps)
    meter, canvas = Meter(build(name).denoiser()), canvas_of(text_of(9, 3, 5), 6)
    filled = made(meter, canvas, Rng(0)).tokens_BL
    assert torch.equal(filled[~canvas.free_BL], canvas.tokens_BL[~canvas.free_BL])
    assert not bool(((filled == MASK) | (filled == PAD) | (filled >= WORDS))[canvas.free_BL].any())
    assert bool(meter.finite)


def test_prompts_with_a_mask_and_canvases_that_are_too_long_are_refused():
    denoiser = build("llada").denoiser()
    with pytest.raises(UserError, match="such as its mask"):
        denoiser.open(canvas_of([torch.tensor([7, MASK, 9])], 4))
    with pytest.raises(UserError, match="longer than the model's max_length=40"):
        denoiser.open(canvas_of(text_of(37), 4))
    with pytest.raises(UserError, match="guidance needs a prompt"):
        denoiser.open(canvas_of(text_of(0), 4), GUIDED)
    with pytest.raises(UserError, match="has embeddings of 650 tokens"):
        build("llada", rows=650)
    with pytest.raises(UserError, match="heads=4 must be a multiple of kv_heads=3"):
        build("llada", kv_heads=3)


@pytest.mark.parametrize("model", ["llada_tiny", "dream_tiny"])
def test_they_are_trained_and_sampled_by_name(tmp_path, model, capsys):
    lines = [" ".join(("sun", "moon", "sea", "sand")[(i * 7 + j) % 4] for j in range(6)) for i in range(120)]
    (tmp_path / "all.txt").write_text("\n".join(lines))
    said = ["dataset=textfiles", "dataset.tokenizer=characters", "dataset.documents=row", "dataset.block=16",
            f"dataset.path={tmp_path / 'all.txt'}", f"outputs={tmp_path / 'outputs'}"]  # fmt: skip
    sizes = ["model.width=32", "model.heads=2", "model.layers=2", "model.mlp_width=64"]
    trainer = ["max_steps=40", "trainer.batch_size=16", "trainer.schedule=constant", "trainer.learning_rate=0.003"]
    sizes += ["model.kv_heads=1"] if model == "dream_tiny" else []
    assert main(["train", f"model={model}", *said, *sizes, *trainer, "trainer.validation_sources=4", "--json"]) == 0
    folder = next((tmp_path / "outputs/train").iterdir())
    for given in (f"checkpoint={folder}", f"model={model}"):  # by its place, and as the newest of its name
        assert main(["sample", given, *said, "sampler=ancestral", "steps=8", "num_samples=3"]) == 0
    assert len(list(tmp_path.glob("outputs/points/**/samples.jsonl"))) == 1
    capsys.readouterr()
