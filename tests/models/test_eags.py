"""The trainable conditional masked language model: ENS against its textbook, losses, entropies, starts."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from reference import entropy_masks as textbook
from reference.tabular import TabularMasks, bound_1e9, joint
from torch.nn import functional as F

from diffq.data.batches import tokenise
from diffq.data.exact_tokenizers import characters
from diffq.data.laid_out import LaidOutBatches
from diffq.data.task import Example
from diffq.diffusion.noise import Noise
from diffq.errors import UserError
from diffq.models.base import TextBatch, Totals
from diffq.models.berts import CLASSES
from diffq.models.cross_entropy import weighted_sum
from diffq.models.eags import EAGSSettings
from diffq.models.entropy_masks import Masking, bins_of, fills, halves, masked_by_bins, masked_uniformly, room_bins
from diffq.models.starts import load_start, start_settings
from diffq.rng import Rng
from diffq.runs.training.entropies import FrozenEntropies, bins_of_all

VOCABULARY = SimpleNamespace(size=30, pad=1, start=0, end=2, unk=3, mask=29, ends=(2,), digest="thirty")
ROOM, SOURCE = 6, 5


def build(family="roberta", **more):
    torch.manual_seed(0)
    sizes = {"layers": 2, "width": 24, "heads": 2, "mlp_width": 40, "max_length": 30, "dropout": 0.0}
    model = EAGSSettings(family=family, **(sizes | more)).build(VOCABULARY)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def batch_of(rows=5, seed=0, visit=0):
    """Conditions of different lengths, rooms of six places."""
    generator = torch.Generator().manual_seed(seed)
    lengths = [SOURCE - b % 3 for b in range(rows)]
    tokens_BL = torch.full((rows, SOURCE + ROOM + 1), VOCABULARY.pad)
    valid_BL = torch.zeros_like(tokens_BL, dtype=torch.bool)
    seen_BL = valid_BL.clone()
    for b, n in enumerate(lengths):
        tokens_BL[b, : n + ROOM + 1] = torch.randint(4, 29, (n + ROOM + 1,), generator=generator)
        tokens_BL[b, n + ROOM - b % 4 : n + ROOM + 1] = VOCABULARY.end
        valid_BL[b, n : n + ROOM] = True
        seen_BL[b, : n + ROOM + 1] = True
    return TextBatch(tokens_BL, valid_BL, torch.arange(rows) + 7, torch.full((rows,), visit), seen_BL)


def places_of(batch, b):
    return batch.valid_BL[b].nonzero().squeeze(1).tolist()


def whole(batch, b):
    """A row without its padding."""
    return batch.tokens_BL[b][batch.seen_BL[b]]


@pytest.mark.parametrize("bins", [1, 2, 5, 7])
@pytest.mark.parametrize("places", [1, 3, 5, 12, 13])
def test_bins_are_the_textbooks(bins, places):
    generator = torch.Generator().manual_seed(bins * 100 + places)
    entropy_BL = torch.rand(20, places + 3, generator=generator).mul(8).round() / 8  # with equal ones
    valid_BL = torch.zeros_like(entropy_BL, dtype=torch.bool)
    valid_BL[:, 2 : 2 + places] = True
    found = bins_of(entropy_BL, valid_BL, bins)
    assert not bool(found[~valid_BL].any())
    for row, entropies in zip(found[:, 2 : 2 + places].tolist(), entropy_BL[:, 2 : 2 + places].tolist(), strict=True):
        assert row == textbook.bins(entropies, bins)
        sizes = np.bincount(row, minlength=bins + 1)[1:]
        assert sizes.max() - sizes.min() <= 1


def test_fillings_apart_have_bins_of_their_own_from_behind():
    end, valid = VOCABULARY.end, torch.ones(1, 8, dtype=torch.bool)
    tokens = torch.tensor([[9, 9, 9, end, end, end, end, end]])
    entropy = torch.tensor([[3.0, 1.0, 2.0, 0.5, 0, 0, 0, 0]])
    assert fills(tokens, valid, end).tolist() == [[False] * 4 + [True] * 4]
    assert room_bins(entropy, tokens, valid, end, Masking("ens", 4, "apart")).tolist() == [[4, 2, 3, 1, 4, 3, 2, 1]]
    assert room_bins(entropy, tokens, valid, end, Masking("ens", 4, "ranked")).tolist() == [[4, 3, 4, 3, 1, 1, 2, 2]]


def test_uniform_masks_have_every_number_and_every_choice_alike():
    """20,000 rows of 4 places: chi-square over the 15 choices; a false alarm in 1e9 runs."""
    rows, law = 20_000, {}
    valid_BL = torch.tensor([False, True, True, True, True, False]).expand(rows, -1)
    batch = TextBatch(valid_BL.long(), valid_BL, torch.arange(rows), torch.zeros(rows, dtype=torch.long))
    masked_BL = masked_uniformly(batch, Rng(0))
    assert not bool((masked_BL & ~valid_BL).any())
    assert bool(masked_BL.any(1).all())
    found = (masked_BL[:, 1:5].long() * torch.tensor([1, 2, 4, 8])).sum(1).bincount(minlength=16)[1:]
    law = torch.tensor([1 / 4 / [1, 4, 6, 4, 1][int(i).bit_count()] for i in range(1, 16)]) * rows
    assert float(((found - law) ** 2 / law).sum()) < bound_1e9(14)
    some = torch.arange(5, 9)
    alone = TextBatch(batch.tokens_BL[some], valid_BL[some], some, batch.visit_B[some])
    assert torch.equal(masked_uniformly(alone, Rng(0)), masked_BL[some])


def test_bins_are_masked_up_to_a_drawn_one():
    """20,000 rows, five bins: chi-square over t; a false alarm in 1e9 runs. A row with empty bins has a newest one."""
    rows = 20_000
    bin_BL = torch.tensor([0, 3, 1, 5, 5, 2, 4]).expand(rows, -1)
    batch = TextBatch(bin_BL, bin_BL > 0, torch.arange(rows), torch.ones(rows, dtype=torch.long))
    masked_BL, newest_BL = masked_by_bins(bin_BL, 5, batch, Rng(3))
    step_B = torch.where(masked_BL, bin_BL, 0).amax(1)
    assert torch.equal(masked_BL, (bin_BL > 0) & (bin_BL <= step_B[:, None]))
    assert torch.equal(newest_BL, bin_BL == step_B[:, None])
    law = rows / 5
    assert float(((step_B.bincount(minlength=6)[1:] - law) ** 2 / law).sum()) < bound_1e9(4)
    sparse_BL = torch.tensor([0, 1, 4]).expand(rows, -1)
    assert bool(masked_by_bins(sparse_BL, 5, batch, Rng(3))[1].any(1).all())


@pytest.mark.parametrize("family", ["roberta", "bert"])
@pytest.mark.parametrize("loss_on", ["masked", "newest"])
def test_the_loss_is_the_textbooks_row_by_row(family, loss_on):
    model, batch = build(family, loss_on=loss_on), batch_of()
    totals = Totals(len(batch.row_B), batch.tokens)
    with torch.no_grad():
        found = float(model.loss(batch, Rng(1), totals)["loss"])
    masked_BL = masked_uniformly(batch, Rng(1))
    rows = []
    for b in range(len(batch.row_B)):
        masked = masked_BL[b].nonzero().squeeze(1).tolist()
        rows.append(textbook.loss(model, whole(batch, b), masked, masked))
    assert found == pytest.approx(sum(rows) / len(rows), rel=1e-5)
    entropy_BL = torch.rand(batch.tokens_BL.shape, generator=torch.Generator().manual_seed(4))
    bin_BL = bins_of(entropy_BL, batch.valid_BL, 3)
    model.masking = Masking("ens", 3)
    ordered = TextBatch(batch.tokens_BL, batch.valid_BL, batch.row_B, batch.visit_B, batch.seen_BL, bin_BL)
    with torch.no_grad():
        found = float(model.loss(ordered, Rng(1), totals)["loss"])
        parts = [float(model.loss(ordered.take(torch.tensor(p)), Rng(1), totals)["loss"]) for p in ([3, 0], [1, 4, 2])]
    masked_BL, newest_BL = masked_by_bins(bin_BL, 3, batch, Rng(1))
    counted_BL = masked_BL if loss_on == "masked" else newest_BL
    rows = []
    for b in range(len(batch.row_B)):
        masked, counted = (x[b].nonzero().squeeze(1).tolist() for x in (masked_BL, counted_BL))
        rows.append(textbook.loss(model, whole(batch, b), masked, counted))
    assert found == pytest.approx(sum(rows) / len(rows), rel=1e-5)
    assert sum(parts) == pytest.approx(found, rel=1e-5)
    model.eval()
    with torch.no_grad():
        validation = float(model.loss(ordered, Rng(1), totals)["loss"])
    model.masking = Masking()
    with torch.no_grad():
        assert float(model.loss(batch, Rng(1), totals)["loss"]) == validation


def test_own_entropies_are_those_of_half_masked_drafts():
    model, batch = build(), batch_of()
    found_BL = model._own_entropy(batch, Rng(2))
    assert model.training
    first_BL, second_BL = halves(batch, Rng(2))
    assert torch.equal(first_BL | second_BL, batch.valid_BL)
    assert not bool((first_BL & second_BL).any())
    for b in range(len(batch.row_B)):
        for half_BL in (first_BL, second_BL):
            noised_L = whole(batch, b).clone()
            places = half_BL[b].nonzero().squeeze(1).tolist()
            noised_L[places] = model.mask
            log_p_LV = textbook.log_p(model, noised_L)
            for place in places:
                assert float(found_BL[b, place]) == pytest.approx(textbook.entropy(log_p_LV[place]), abs=1e-4)


@pytest.mark.parametrize("never", [(), (1, 5)])
def test_a_projection_in_parts_has_the_value_and_the_gradients_of_the_whole(never):
    torch.manual_seed(0)
    count, words = 300, 70
    made = [torch.randn(count, 9), torch.randn(words, 9), torch.randn(words)]
    target_N = torch.randint(6, words, (count,))
    weight_N = torch.rand(count)
    results = []
    for dtype in (torch.float32, torch.float64):
        inputs = [x.detach().clone().to(dtype).requires_grad_() for x in made]
        bias = inputs[2].index_fill(0, torch.tensor(never, dtype=torch.long), -float("inf"))
        if dtype == torch.float32:
            total = weighted_sum(inputs[0], inputs[1], bias, target_N, weight_N)
        else:
            scores = F.linear(inputs[0], inputs[1], bias)
            total = (F.cross_entropy(scores, target_N, reduction="none") * weight_N.double()).sum()
        (3 * total).backward()
        results.append([total.detach(), *(x.grad for x in inputs)])
    for found, expected in zip(*results, strict=True):
        assert torch.allclose(found.double(), expected, rtol=1e-5, atol=1e-4)


class Tiny:
    """A tokenizer of five words and a mask, for joints that can be enumerated."""

    size, pad, start, end, unk, mask, ends, digest = 6, 0, 1, 2, 3, 5, (2,), "five"

    def token(self, index):
        return f"t{index}"

    def encode_sources(self, texts):
        return [[self.start, *ids, self.end] for ids in self.encode_targets(texts)]

    def encode_targets(self, texts):
        return [[int(word) for word in text.split()] for text in texts]


@pytest.mark.parametrize("fill", ["ranked", "apart"])
def test_entropies_of_a_frozen_model_are_those_of_an_enumerated_joint(fill):
    """A joint of six tokens whose conditionals are known: [start] word [end] · two places · [end]."""
    table = joint(5, 6)
    denoiser = TabularMasks(table, Noise())
    loaded = SimpleNamespace(model=SimpleNamespace(denoiser=lambda: denoiser), tokenizer=Tiny(), digest="joint")
    examples = [Example(i, s, (t,)) for i, (s, t) in enumerate([("3", "4 3"), ("4", "3"), ("3", "0 4"), ("0", "2")])]
    pairs = tokenise(examples, Tiny(), 10, 2)
    laid_out = LaidOutBatches(pairs, Tiny(), 2, 2, 0)
    asked = FrozenEntropies(laid_out, loaded, "frozen_full", fill, torch.device("cpu"))
    found = asked.of(np.arange(4))
    tokens, _, _ = laid_out.canvases(np.arange(4))
    for b in range(4):
        for place in (3, 4):
            index = tuple(slice(None) if i == place else int(t) for i, t in enumerate(tokens[b]))
            p = table[index] / table[index].sum()
            filling = fill == "apart" and place == 4 and tokens[b][3] == Tiny.end
            assert found[b, place - 3] == pytest.approx(0.0 if filling else float(-(p * p.log()).sum()), abs=1e-6)


def laid_out_of(count=40):
    generator = np.random.default_rng(0)
    rows = [(generator.integers(4, 29, 1 + i % 5), generator.integers(4, 29, 1 + i % ROOM)) for i in range(count)]

    class Plain(SimpleNamespace):
        encode_targets = staticmethod(lambda texts: [[int(w) for w in text.split()] for text in texts])

        def encode_sources(self, texts):
            return [[0, *ids, 2] for ids in self.encode_targets(texts)]

        token = staticmethod(lambda index: f"t{index}")

    tokenizer = Plain(**vars(VOCABULARY))
    examples = [Example(i, " ".join(map(str, s)), (" ".join(map(str, t)),)) for i, (s, t) in enumerate(rows)]
    return LaidOutBatches(tokenise(examples, tokenizer, 20, ROOM), tokenizer, ROOM, 4, 0)


@pytest.mark.parametrize("how", ["frozen_full", "frozen_once"])
def test_entropies_of_a_network_are_the_textbooks_and_are_kept(how, tmp_path, monkeypatch):
    model, laid_out = build(), laid_out_of()
    loaded = SimpleNamespace(model=model, tokenizer=VOCABULARY, digest="weights")
    asked = FrozenEntropies(laid_out, loaded, how, "ranked", torch.device("cpu"))
    monkeypatch.setattr("diffq.runs.training.entropies._PART", 16)
    found = asked.all(tmp_path)
    model.eval()
    tokens, room, seen = laid_out.canvases(np.arange(40))
    for b in range(0, 40, 3):
        row, places = torch.from_numpy(tokens[b][seen[b]]), room[b].nonzero()[0].tolist()
        assert found[b] == pytest.approx(getattr(textbook, how)(model, row, places), abs=1e-4)
    bins = bins_of_all(laid_out, found, Masking("ens", 4))
    assert [textbook.bins(row, 4) for row in found.tolist()] == bins.tolist()
    laid_out.bins = bins
    batch = laid_out.collate(np.arange(5), np.zeros(5, dtype=np.int64))
    assert batch.bin_BL[batch.valid_BL].reshape(5, -1).tolist() == bins[:5].tolist()
    assert not bool(batch.bin_BL[~batch.valid_BL].any())

    files = sorted(tmp_path.rglob("*.npy"))
    assert len(files) == 3
    again = []
    monkeypatch.setattr(FrozenEntropies, "of", lambda self, rows: again.append(rows[0]) or found[rows])
    files[1].unlink()  # what a process that was cut off has not written
    assert np.array_equal(asked.all(tmp_path), found)
    assert again == [16]
    other = FrozenEntropies(laid_out, SimpleNamespace(**(vars(loaded) | {"digest": "x"})), how, "ranked", asked.device)
    assert other.digest != asked.digest


@pytest.mark.parametrize("family", CLASSES)
def test_the_library_s_weights_are_started_from(family, tmp_path):
    import transformers
    from models.test_hf_masked import SMALL, tokenizer_of

    name = CLASSES[family].name
    config = getattr(transformers, f"{name}Config")(**SMALL, pad_token_id=1)
    torch.manual_seed(1)
    theirs = getattr(transformers, f"{name}ForMaskedLM")(config).eval()
    theirs.save_pretrained(tmp_path)
    tokenizer_of(tmp_path)
    from diffq.data.tokenizers import Tokenizer

    tokenizer, settings = Tokenizer.load(tmp_path), start_settings(tmp_path)
    model = settings.build(tokenizer)
    load_start(model, str(tmp_path), tokenizer)
    model.eval()
    tokens = torch.tensor([[0, 7, 66, 9, 2]])
    with torch.no_grad():
        logits = theirs(input_ids=tokens).logits[0, :, : model.words]
        found = model.log_weights(model.states(tokens)[0])
    kept = [v for v in range(model.words) if v not in model.never]
    assert torch.allclose(found[:, kept], logits[:, kept], atol=1e-4)
    other = characters(["ab"])
    with pytest.raises(UserError, match=f"vocabulary of 67 tokens that is not the training's, of {other.size}; give"):
        load_start(model, str(tmp_path), other)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "electra"}))
    with pytest.raises(UserError, match="electra model"):
        start_settings(tmp_path)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", CLASSES)
def test_the_work_of_a_network_counts_its_parameters_and_matrices(family, tied):
    model = build(family, library={"tie_word_embeddings": tied})
    work = model.settings.work(VOCABULARY)
    assert work.parameters == pytest.approx(sum(p.numel() for p in model.parameters()), rel=0.02)
    matrices = [m for m in model.layers.modules() if isinstance(m, torch.nn.Linear)]
    assert work.multiplied == sum(m.weight.numel() for m in matrices)


@pytest.mark.parametrize(
    ("library", "said"),
    [
        ({"hidden_activation": "foo"}, "ModernBertForMaskedLM cannot be made of it .*foo"),
        ({"initializer_range": "abc"}, "ModernBertConfig refuses it"),
        ({"initialiser_range": 0.1}, "did you mean 'initializer_range'"),
        ({"hidden_size": 130}, "hidden_size follows from the model's other settings"),
    ],
)
def test_settings_that_the_library_does_not_take(library, said):
    with pytest.raises(UserError, match=said):
        build("modernbert", library=library)
