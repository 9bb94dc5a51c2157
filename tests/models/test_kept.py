"""Keys and values that are kept from one call for the next: what a call over some columns gives is what a call over
the whole canvas gives whose other keys and values are old; how far that is from no cache; and, under blocks that see
what stands before them alone, that it is the same."""

from __future__ import annotations

import pytest
import torch
from models.test_masked_lms import build, canvas_of, text_of
from reference import text_models
from reference.cycles import cycles, taught

from diffq.diffusion.contracts import GUIDED, Canvas, Meter, open_guided
from diffq.diffusion.draws import Draw
from diffq.errors import UserError
from diffq.models.base import TextBatch, Totals
from diffq.models.mdlm import visible
from diffq.models.text_diffusion import training_noise
from diffq.rng import Rng

MODELS = ["llada", "llada_tied", "dream", "mdlm"]


def denoiser_of(name, **changes):
    return (text_models.build(name, **changes) if name.startswith("mdlm") else build(name, **changes)).denoiser()


def masked_canvas(denoiser, prompts=(9, 3, 6), answer=8, side="left"):
    canvas = canvas_of(text_of(*prompts), answer, side)
    return canvas.replace(tokens_BL=torch.where(canvas.free_BL, denoiser.mask, canvas.tokens_BL))


def written(canvas, columns, seed=0):
    """The canvas' tokens with some columns written."""
    tokens_BL = canvas.tokens_BL.clone()
    some = torch.randint(10, 290, (len(tokens_BL), len(columns)), generator=torch.Generator().manual_seed(seed))
    tokens_BL[:, columns] = some
    return tokens_BL


def with_old_keys(session, old_BL, new_BL, first, last, at_BK):
    """States of a call over the whole of `new_BL` in which the keys and values outside of the columns are those that
    the blocks had over `old_BL`: every block is computed everywhere, nothing is left out."""
    model, held = session.model, {}
    net = model.net

    def record(i):
        return lambda key, value: held.setdefault(i, (key.clone(), value.clone()))

    def replace(i):
        def cache(key, value):
            inside = torch.zeros(key.shape[2], dtype=torch.bool)
            inside[first:last] = True
            return tuple(torch.where(inside[:, None], n, o) for n, o in zip((key, value), held[i], strict=True))

        return cache

    rows = len(new_BL) * len(session.branches)
    with torch.no_grad():
        for tokens_BL, caches in ((old_BL, record), (new_BL, replace)):
            made = [caches(i) for i in range(len(net.blocks))]
            tokens_RL, at_RK = session.stack(tokens_BL), session.repeat(at_BK)
            valid_RL = None if session.valid_BL is None else session.repeat(session.valid_BL)
            if hasattr(model, "states"):
                hidden = model.states(tokens_RL, valid_RL, at_RK, None, made)
            else:
                mask = None if valid_RL is None else valid_RL[:, None, None]
                hidden = net(tokens_RL, torch.zeros(rows), at_RK, mask, caches=made)
    return hidden


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("side", ["left", "right", "middle"])
@pytest.mark.parametrize("branches", [("cond",), GUIDED])
def test_a_frozen_call_is_a_whole_one_with_old_keys_outside(name, side, branches):
    denoiser = denoiser_of(name)
    canvas = masked_canvas(denoiser, side=side)
    session, noise_B = denoiser.open(canvas, branches), torch.ones(3)
    session.freeze(None)
    session.run(canvas.tokens_BL, noise_B)
    session.freeze(slice(9, 13))
    at_BK = torch.tensor([[9, 10, 12]] * 3)
    old_BL = canvas.tokens_BL
    for columns in ([11], [11, 9], [11, 9, 1]):  # the last is outside: it is not seen
        new_BL = written(canvas, columns)
        found = session.run(new_BL, noise_B, at_BK)
        inside_BL = torch.where(torch.arange(17) >= session.span[0], new_BL, old_BL)
        expected = with_old_keys(session, old_BL, inside_BL, *session.span, at_BK)
        assert torch.allclose(found, expected, atol=1e-4)
    whole = session.run(new_BL, noise_B)
    assert whole.shape[:2] == (3 * len(branches), 4)
    assert torch.allclose(whole[:, [0, 1, 3]], found, atol=1e-4)
    session.freeze(None)
    fresh = denoiser.open(canvas, branches).run(new_BL, noise_B)
    assert torch.allclose(session.run(new_BL, noise_B), fresh, atol=1e-4)
    assert not torch.allclose(
        fresh.gather(1, at_BK.repeat(len(branches), 1)[..., None].expand_as(found)), found, atol=1e-2
    )


@pytest.mark.parametrize("name", MODELS)
def test_where_nothing_changed_outside_nothing_is_approximated(name):
    denoiser = denoiser_of(name)
    canvas = masked_canvas(denoiser)
    session = denoiser.open(canvas)
    session.freeze(None)
    whole = session.run(canvas.tokens_BL, torch.ones(3))
    for columns in (slice(9, 13), slice(13, None), slice(0, 4), slice(0, 17)):
        session.freeze(columns)
        assert torch.allclose(session.run(canvas.tokens_BL, torch.ones(3)), whole[:, columns], atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_computed_inside_is_kept_for_the_next_columns(name):
    """Freezing (9 … 12), writing there, then (13 … 16): these see what was written, as a whole call does."""
    denoiser = denoiser_of(name)
    canvas = masked_canvas(denoiser)
    session, noise_B = denoiser.open(canvas), torch.ones(3)
    session.freeze(None)
    session.run(canvas.tokens_BL, noise_B)
    new_BL = written(canvas, [9, 11])
    session.freeze(slice(0, 17))
    whole = session.run(new_BL, noise_B)
    assert torch.allclose(whole, denoiser.open(canvas).run(new_BL, noise_B), atol=1e-4)
    session.freeze(slice(13, 17))
    assert torch.allclose(session.run(new_BL, noise_B), whole[:, 13:], atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_rows_that_leave_take_their_keys_along(name):
    denoiser = denoiser_of(name)
    canvas = masked_canvas(denoiser)
    rows = torch.tensor([2, 0])
    session = open_guided(denoiser, canvas, 2.0)
    session.freeze(None)
    session.run(canvas.tokens_BL, torch.ones(3))
    session.freeze(slice(9, 13))
    new_BL = written(canvas, [11])
    before = session.run(new_BL, torch.ones(3))
    session.select(rows)
    after = session.run(new_BL[rows], torch.ones(2))
    assert torch.allclose(after, before[torch.cat([rows, rows + 3])], atol=1e-4)


def test_what_cannot_be_kept_is_said():
    denoiser = denoiser_of("llada")
    session = denoiser.open(masked_canvas(denoiser))
    with pytest.raises(ValueError, match=r"freeze\(None\) comes before"):
        session.freeze(slice(9, 13))
    session.freeze(None)
    with pytest.raises(ValueError, match=r"freeze\(None\) comes before"):
        session.freeze(slice(9, 13))
    with pytest.raises(ValueError, match="no columns"):
        session.freeze(slice(13, 9))
    uniform = text_models.build("sedd_uniform").denoiser()
    with pytest.raises(UserError, match="cannot be kept; switch the cache off"):
        uniform.open(text_models.canvas(2, 10)).freeze(None)


def decode(session, tokens_BL, mask, blocks, refresh):
    """One token a column from left to right, the best one; the cache begins anew with each block, unless `refresh` is
    "never"; gives the tokens and the log-probabilities of all words at each step."""
    tokens_BL, seen = tokens_BL.clone(), []
    for number, (first, last) in enumerate(blocks):
        for column in range(first, last):
            if refresh == "none" or (refresh == "block" and column == first):
                session.freeze(None)
            elif refresh == "block":
                session.freeze(slice(first, last))
            elif refresh == "exact":  # the block before it once more, for its last token
                session.freeze(slice(blocks[max(number - 1, 0)][0] if column == first else first, last))
            at_B1 = torch.full((len(tokens_BL), 1), column)
            hidden = session.run(tokens_BL, torch.ones(len(tokens_BL)), at_B1)
            project = session.scores(hidden, torch.arange(len(tokens_BL)))
            seen.append(project(slice(None), 0, session.words).log_softmax(-1))
            (token_B,) = session.read(hidden, torch.arange(len(tokens_BL)), [Draw(None, 0.0)])
            tokens_BL[:, column] = token_B
    return tokens_BL, torch.stack(seen)


@pytest.fixture(scope="module", params=["llada", "dream", "mdlm"])
def trained(request):
    name = request.param
    small = {"max_length": 40, "layers": 2}
    model = text_models.build(name, words=40, **small) if name == "mdlm" else fresh(name)
    return taught(model, 400).denoiser()


def fresh(name):
    from types import SimpleNamespace

    from models.test_masked_lms import KINDS, SIZES

    settings, more = KINDS[name]
    torch.manual_seed(0)
    return settings(**(SIZES | more)).build(SimpleNamespace(size=41, pad=0, mask=40, start=1, end=1))


@pytest.mark.parametrize("columns", ["dual", "prefix"])
def test_the_error_of_block_caches_is_measured(trained, columns):
    """On a trained model: the mean total variation between the distributions with and without a cache, over the whole
    decoding. Measured: 3e-5 … 0.03 with blocks of 4 (dual), 3e-5 … 0.004 with one for all that is free (prefix)."""
    mask = trained.mask
    tokens_BL = cycles(16, 24, torch.Generator().manual_seed(9))
    truth_BL = tokens_BL.clone()
    tokens_BL[:, 8:] = mask
    free_BL = torch.zeros_like(tokens_BL, dtype=torch.bool)
    free_BL[:, 8:] = True
    canvas = Canvas(tokens_BL, free_BL, torch.ones_like(free_BL), torch.arange(16))
    blocks = [(8, 12), (12, 16), (16, 20), (20, 24)]
    if columns == "prefix":
        blocks = [(first, 24) for first, _ in blocks[:1]]
    plain, expected = decode(trained.open(canvas), tokens_BL, mask, blocks, "none")
    kept, found = decode(trained.open(canvas), tokens_BL, mask, blocks, "block")
    assert float((plain == truth_BL).float().mean()) > 0.95, "the model has learnt"
    variation = float((expected.exp() - found.exp()).abs().sum(-1).mean() / 2)
    print(f"{columns}: mean total variation {variation:.2g}")
    assert 1e-7 < variation < 0.1
    assert float((plain == kept).float().mean()) > 0.95


# Blocks that see what stands before them alone.


def blocky(**changes):
    return text_models.build("mdlm", words=40, block_causal=4, max_length=40, **changes)


def test_blocks_see_themselves_and_what_stands_before_them():
    denoiser = blocky().denoiser()
    canvas = text_models.canvas(3, 18, words=40)
    session = denoiser.open(canvas)
    one = session.run(canvas.tokens_BL, torch.ones(3))
    changed_BL = canvas.tokens_BL.clone()
    changed_BL[:, 9] = (changed_BL[:, 9] + 1) % 40
    two = session.run(changed_BL, torch.ones(3))
    differs_L = (one - two).abs().amax((0, 2)) > 1e-6
    assert differs_L.tolist() == [False] * 8 + [True] * 10


def test_each_block_is_learnt_given_the_text_before_it():
    """The loss of one call is that of one call a block on the text before it and what was made of it."""
    model, length, block = blocky(), 14, 4
    tokens_BL = torch.randint(0, 40, (3, length), generator=torch.Generator().manual_seed(2))
    batch = TextBatch(tokens_BL, torch.ones_like(tokens_BL, dtype=torch.bool), torch.arange(3), torch.zeros(3).long())
    with torch.no_grad():
        found = float(model.loss(batch, Rng(0), Totals(3, 42))["loss"])
    noise, total = training_noise(model.noise, batch, Rng(0), block), 0.0
    noised_BL = torch.where(noise.destroyed_BL, model.mask, tokens_BL)
    for first in range(0, length, block):
        last = min(first + block, length)
        assert len(noise.share[:, first:last].unique(dim=1).T) == 1
        seen_BL = torch.cat([tokens_BL[:, :first], noised_BL[:, first:last]], 1)
        _, before_LL = visible(torch.arange(last), block)
        mask = before_LL | (torch.arange(last)[:, None] // block == torch.arange(last) // block)
        with torch.no_grad():
            hidden = model.net(seen_BL, torch.zeros(3), None, mask[None, None])
            log_p = model.log_weights(hidden.flatten(0, 1)).log_softmax(-1).view(3, last, -1)
        nats = -log_p[:, first:last].gather(2, tokens_BL[:, first:last, None]).squeeze(2)
        weight = noise.rate * (1 - noise.share) / noise.share
        total += float((nats * weight[:, first:last] * noise.destroyed_BL[:, first:last]).sum())
    assert found == pytest.approx(total / 42, rel=1e-4)


@pytest.mark.parametrize("refresh", ["exact", "block"])
@pytest.mark.parametrize("side", ["none", "left"])
def test_a_cache_of_finished_blocks_is_exact(refresh, side):
    """Tokens are the same and no probability differs by more than rounding; nothing behind a block is computed."""
    denoiser = taught(blocky(), 60).denoiser()
    tokens_BL = cycles(4, 22, torch.Generator().manual_seed(9))
    valid_BL = torch.ones_like(tokens_BL, dtype=torch.bool)
    if side == "left":
        valid_BL[1, :3] = False
    tokens_BL[:, 6:] = denoiser.mask
    free_BL = torch.zeros_like(valid_BL)
    free_BL[:, 6:] = True
    canvas = Canvas(tokens_BL, free_BL, valid_BL, torch.arange(4))
    blocks = [(6, 8), (8, 12), (12, 16), (16, 20), (20, 22)]
    plain, expected = decode(denoiser.open(canvas), tokens_BL, denoiser.mask, blocks, "none")
    session = denoiser.open(canvas)
    if refresh == "exact":  # the prompt's blocks first: there is nothing to be kept yet
        session.freeze(slice(0, 8))
        session.run(tokens_BL, torch.ones(4))
    kept, found = decode(session, tokens_BL, denoiser.mask, blocks, refresh)
    assert torch.equal(plain, kept)
    assert torch.allclose(expected.exp(), found.exp(), atol=1e-5)


def test_only_some_columns_go_through_the_network():
    denoiser = blocky().denoiser()
    canvas = text_models.canvas(3, 18, words=40)
    meter, widths = Meter(denoiser), []
    denoiser.model.net.blocks[0].mlp.register_forward_hook(lambda _m, args, _o: widths.append(args[0].shape[1]))
    session = meter.open(canvas)
    session.freeze(slice(0, 5))
    session.run(canvas.tokens_BL, torch.ones(3))
    session.freeze(slice(9, 11))
    session.run(canvas.tokens_BL, torch.ones(3), torch.tensor([[9]] * 3))
    session.freeze(slice(12, 18))
    session.run(canvas.tokens_BL, torch.ones(3))
    assert widths == [8, 4, 6]
    assert meter.nfe_calls == 3


def test_blocks_have_no_time_conditioning_and_no_published_layout(tmp_path):
    from reference.chat_tokenizer import tokenizer_files

    from diffq.data.chat import chat_folder
    from diffq.models.published import write_published

    with pytest.raises(UserError, match=r"model\.time_conditioning=false or model\.block_causal=0"):
        blocky(time_conditioning=True)
    tokenizer_files(tmp_path, "llada")
    with pytest.raises(UserError, match=r"cannot say model\.block_causal="):
        write_published(blocky(), chat_folder(tmp_path, mask=55, end=50, pad=50), tmp_path / "out")
