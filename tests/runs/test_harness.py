"""The model class that lm-eval-harness drives: exact values, bounds under common noise, greedy answers, resuming."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from reference import text_models

from diffq.data.exact_tokenizers import characters
from diffq.errors import UserError
from diffq.models.causal_lm import CausalLMSettings
from diffq.samplers.autoregressive import Autoregressive
from diffq.samplers.masked import Ancestral

pytest.importorskip("lm_eval")
from diffq.runs.harness_model import DiffqLM

TOKENIZER = characters(["the quick brown fox jumps over a lazy dog"])
WORDS = TOKENIZER.mask


def request(context, answer, doc=0):
    return SimpleNamespace(args=(context, answer), doc_id=doc)


def causal():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = {"width": 32, "heads": 2, "layers": 2, "max_length": 24, "dropout": 0.0}
        return text_models.lively(CausalLMSettings(**sizes).build(TOKENIZER))


def harness(model, folder, **changes):
    sampler = Autoregressive(temperature=0.0) if model.process == "causal" else Ancestral(steps=4)
    return DiffqLM(model.denoiser(), TOKENIZER, torch.device("cpu"), folder, sampler, quiet=True, **changes)


def test_a_causal_model_is_exact_and_white_space_belongs_to_the_answer(tmp_path):
    model = causal()
    lm = harness(model, tmp_path)
    (found, other) = lm.loglikelihood([request("the fox", " jumps"), request("the fox ", "jumps", 1)])
    assert found[0] == pytest.approx(other[0])
    ids = [TOKENIZER.start, *TOKENIZER.encode_target("the fox jumps")]
    with torch.no_grad():
        linear = model.net.output_layer.linear
        logits = torch.nn.functional.linear(
            model.net(torch.tensor([ids[:-1]]), None, causal=True)[0], linear.weight, linear.bias
        )
    log_p = logits.log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None]).squeeze(1)
    assert found[0] == pytest.approx(float(log_p[7:].sum()), rel=1e-5)
    (rolled,) = lm.loglikelihood_rolling([request("the fox jumps", "")])
    assert rolled == pytest.approx(float(log_p.sum()), rel=1e-5)


def test_the_greedy_answer_is_known_as_such(tmp_path):
    model = causal()
    lm = harness(model, tmp_path)
    (text,) = lm.generate_until([SimpleNamespace(args=("the fox", {"max_gen_toks": 5, "until": ["\n"]}), doc_id=0)])
    if TOKENIZER.token(TOKENIZER.end) not in text and len(text) == 5:
        (_, greedy), (_, other) = lm.loglikelihood([request("the fox", text), request("the fox", " jump", 1)])
        assert greedy
        assert not other


@pytest.mark.parametrize("ranked", ["joint", "conditional"])
def test_answers_to_one_question_share_their_noise(tmp_path, ranked):
    lm = harness(text_models.build("mdlm", words=WORDS), tmp_path, ranked=ranked, draws=3)
    same = lm.loglikelihood([request("the fox", " jumps"), request("the fox", " jumps")])
    apart = lm.loglikelihood([request("the fox", " jumps", 1)])
    assert same[0] == same[1]
    assert same[0] != apart[0]
    one, other = lm.loglikelihood([request("a dog", " jumps"), request("a dog", " sleeps")])
    assert one[0] < 0
    assert one[0] != other[0]


def test_what_was_answered_is_not_asked_again(tmp_path):
    model = text_models.build("mdlm", words=WORDS)
    requests = [request("the fox", f" jumps {c}", i) for i, c in enumerate("abc")]
    first = harness(model, tmp_path, draws=2).loglikelihood(requests)
    file = tmp_path / "answers.jsonl"
    file.write_text(file.read_text() + '["cut o')
    again = harness(model, tmp_path, draws=2)
    again._score = None  # nothing may be computed
    assert again.loglikelihood(requests) == first


@pytest.mark.parametrize("left", ['[["cut o', '[["cut off", -1.5, true]]', '[["glued[["to another", -1.5, true]]\n'])
def test_what_a_crash_left_half_written_is_cut_off_before_the_next_answer(tmp_path, left):
    """Else the next answer is glued to it, and the third run cannot read the file."""
    model = text_models.build("mdlm", words=WORDS)
    requests = [request("the fox", f" jumps {c}"[: 6 + i], i) for i, c in enumerate("aaabbb")]
    requests.append(requests[0])  # asked twice, answered once
    expected = harness(model, tmp_path / "whole", draws=2, batch_tokens=36).loglikelihood(requests)
    whole = (tmp_path / "whole/answers.jsonl").read_text().splitlines(keepends=True)
    assert [len(json.loads(line)) for line in whole] == [2, 2, 2]
    for there in range(4):
        file = tmp_path / "answers.jsonl"
        file.write_text("".join(whole[:there]) + left)
        assert harness(model, tmp_path, draws=2, batch_tokens=36).loglikelihood(requests) == expected
        assert file.read_text() == "".join(whole)
    third = harness(model, tmp_path, draws=2, batch_tokens=36)
    third._score = None  # nothing may be computed
    assert third.loglikelihood(requests) == expected


def test_answers_that_stand_a_line_each_are_still_read(tmp_path):
    """As the first versions wrote them."""
    lm = harness(text_models.build("mdlm", words=WORDS), tmp_path, draws=2)
    requests = [request("the fox", " jumps"), request("a dog", " jumps", 1)]
    expected = lm.loglikelihood(requests)
    file = tmp_path / "answers.jsonl"
    rows = [row for line in file.read_text().splitlines() for row in json.loads(line)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lm._score = None  # nothing may be computed
    assert lm.loglikelihood(requests) == expected


@pytest.mark.parametrize("bad", ['[["cut o[["another", -1.5, true]]', '{"another": 1}', "[1, 2]", "[]", "7"])
def test_a_broken_answer_before_others_is_one_sentence(tmp_path, bad):
    lm = harness(text_models.build("mdlm", words=WORDS), tmp_path, draws=2)
    lm.loglikelihood([request("the fox", " jumps")])
    file = tmp_path / "answers.jsonl"
    file.write_text(bad + "\n" + file.read_text())
    with pytest.raises(UserError, match=r"line 1 is not a list of answers, though other lines .* asked again"):
        lm.loglikelihood([request("a dog", " jumps")])


def test_text_is_cut_at_its_stop_and_long_answers_are_refused(tmp_path):
    lm = harness(text_models.build("mdlm", words=WORDS), tmp_path)
    (whole,) = lm.generate_until([SimpleNamespace(args=("fox ", {"max_gen_toks": 9}), doc_id=3)])
    (cut,) = lm.generate_until([SimpleNamespace(args=("fox ", {"max_gen_toks": 9, "until": [whole[4]]}), doc_id=3)])
    assert cut == whole[: whole.index(whole[4])]
    with pytest.raises(UserError, match="reads at most 24"):
        lm.loglikelihood([request("a", "fox " * 10)])
