"""scripts/llada_tiny_pipeline.sh on made-up problems: a checkpoint in the published form, sampled, scored, and the
problems' own solutions all right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from reference.chat_tokenizer import tokenizer_files

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_whole_path_of_a_published_model(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "gsm8k").mkdir(parents=True)
    rows = [{"question": f"what is {i} and {i}?", "answer": f"it is\n#### {2 * i}"} for i in range(3, 8)]
    (data / "gsm8k/test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tokenizer_files(data / "tokenizers/gpt2", "llada", bare=True)
    environment = os.environ | {
        "PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "DIFFQ_DATA": str(data), "OMP_NUM_THREADS": "1",
        "SOURCES": "4", "SAMPLES": "2", "ANSWER": "16", "TOKENIZER": "",
    }  # fmt: skip
    done = subprocess.run(
        [ROOT / "scripts/llada_tiny_pipeline.sh", tmp_path / "made", "gsm8k"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "made/checkpoint/config.json").read_text())
    assert config["model_type"] == "llada"
    points = sorted((tmp_path / "made/outputs/points").glob("**/samples.jsonl"))
    assert [yaml.safe_load((p.parent / "config.yaml").read_text())["sampler"]["kind"] for p in points] == [
        "imh", "low_confidence", "random",
    ]  # fmt: skip
    for file in points:
        assert len(file.read_text().splitlines()) == 8
        named = {s["name"]: s["value"] for s in json.loads((file.parent / "metrics.json").read_text()).values()}
        assert {"pass_at_1", "pass_at_2", "pass_at_n", "majority"} <= set(named)
        run = json.loads((file.parent / "run.json").read_text())
        assert run["nfe_rows"] > 0
    assert "100.0" in done.stdout.rpartition("--answers reference")[2]
