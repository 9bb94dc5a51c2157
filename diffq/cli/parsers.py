"""The verbs: what each is for, its flags, and examples. Nothing here runs anything."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from typing import NoReturn

from diffq.errors import UserError, did_you_mean, unknown

LISTED = ("models", "datasets", "samplers", "metrics", "runs", "experiments")
BENCHES = ("samplers", "overhead", "train", "latency")
FORMATS = ("html", "png", "svg", "csv", "latex", "markdown")
LAYOUTS = ("sedd", "mdlm", "llada", "dream")
RATING = ("export", "import")


@dataclass(frozen=True)
class Flag:
    """One flag of a verb; `metavar` is empty for a switch."""

    name: str
    help: str
    metavar: str = ""
    repeated: bool = False


@dataclass(frozen=True)
class Verb:
    """What the help of a verb says. `words` is how its positional words are written in the usage line."""

    summary: str
    text: str
    examples: tuple[str, ...]
    words: str = "[KEY=VALUE ...]"
    flags: tuple[Flag, ...] = ()


COMMON = (
    Flag("--cfg", "print the composed, typed configuration and stop"),
    Flag("--json", "print as JSON what is printed as a table"),
    Flag("--config-dir", "a folder with more YAML: sampler/, experiment/, …, config.yaml", "DIR", repeated=True),
)

QUESTIONS = (
    Flag("--where", "only runs for which an SQL expression over their columns is true; may be repeated", "SQL", True),
    Flag("--sort", "order by columns; - in front: the largest first, as in --sort=-bleu,scale", "NAMES", True),
    Flag("--limit", "at most so many", "N", True),
    Flag("--columns", "these columns, with commas between them, instead of the usual ones", "NAMES", True),
)

VERBS: dict[str, Verb] = {
    "train": Verb(
        "train a model",
        "Trains a model on a dataset, or goes on with a training that was cut off.\n"
        "A word such as max_steps=1000 sets the trainer; under `accelerate launch` several GPUs share the work.",
        (
            "diffq train",
            "diffq train model=gaussian dataset=qqp",
            "diffq train model=gaussian_small dataset=qqp max_minutes=60 precision=bf16",
            "diffq train dataset=pairs dataset.path=~/my_pairs trainer=tiny",
        ),
    ),
    "sample": Verb(
        "sample answers from a trained model",
        "Samples num_samples answers to each source of a split, or to sources of your own.\n"
        "With no checkpoint=FOLDER the newest finished training of the same model and dataset is taken.",
        (
            "diffq sample sampler=cfg scale=2 --watch",
            "diffq sample sampler=cfg scale=2 --trace",
            "diffq sample dataset=qqp sampler=clamp_before_cfg scale=2 temperature=0.5 num_sources=100",
            "diffq sample checkpoint=outputs/train/FOLDER --source 'how do i learn to cook ?' num_samples=5",
            "diffq sample --source 'how do i learn to cook ?' --template 'what _ _ _ cook _ ?'",
            "diffq sample --source 'how do i learn to cook ?' keywords=cook,soup num_samples=5",
        ),
        flags=(
            Flag("--watch", "show the canvas while it is denoised"),
            Flag("--trace", "keep the denoising of a few rows step by step; trace=N says of how many"),
            Flag(
                "--source", "a source of your own instead of the dataset's; may be given again", "TEXT", repeated=True
            ),
            Flag("--template", "known words of the answer to --source, one _ for each token to fill in", "TEXT"),
            Flag(
                "--keywords", "words that every answer holds: storm,boat or 3:storm,10:boat (dataset.keywords)", "TEXT"
            ),
        ),
    ),
    "sweep": Verb(
        "sample, score and draw a grid of points",
        "Dials take lists (1,2,4), ranges (range(10,50,10)) and globs over names ('sampler=glob(clamp*)').\n"
        "Points that are finished are not computed again; a sweep that was cut off goes on where it was.",
        (
            "diffq sweep sampler=cfg scale=1,2,4",
            "diffq sweep sampler=clamp_before_cfg scale=1,1.5,2,3 temperature=0,0.25,0.5,1 steps=10,30",
            "diffq sweep dataset=qqp 'sampler=glob(clamp*)' seed='range(0,3)' num_sources=300",
            "diffq sweep sampler=cfg scale=1,2,4 trace=8",
            "diffq sweep sampler=eags order=high_entropy,random energy=16 dataset=tinyshakespeare",
            "diffq sweep sampler=cfg scale=1,2,4 hydra/launcher=joblib hydra.launcher.n_jobs=4",
            "diffq sweep experiment=demo --plan",
        ),
        flags=(Flag("--plan", "say what is done, and what the rest costs in calls, memory and time; start nothing"),),
    ),
    "score": Verb(
        "compute metrics of saved samples",
        "Scores points, or all points of a sweep, with more metrics. Nothing is sampled again.",
        (
            "diffq score outputs/sweeps/NAME metric=paraphrase",
            "diffq score outputs/points/qqp/gaussian/*/* metric=rouge_l,vendi_ngram",
            "diffq score dataset=humaneval --answers completions.jsonl",
            "diffq score dataset=math500 --answers reference",
        ),
        words="[RUN ...] [KEY=VALUE ...]",
        flags=(
            Flag(
                "--answers",
                "score these answers to dataset= instead of a run: a file with the columns source (or task_id) and"
                " text, or `reference`, the dataset's own solutions",
                "FILE",
            ),
        ),
    ),
    "report": Verb(
        "draw the frontier of points",
        "Draws quality against diversity for points or sweeps, and writes the table behind the picture.\n"
        "With no RUN the newest sweep is taken. report.html is one file that opens without a network.",
        (
            "diffq report --open",
            "diffq report outputs/sweeps/NAME --x distinct_2 --y bleu",
            "diffq report RUN RUN --format html,png",
        ),
        words="[RUN ...] [KEY=VALUE ...]",
        flags=(
            Flag("--open", "open report.html in a browser"),
            Flag("--x", "the metric of diversity, which goes to the right", "NAME"),
            Flag("--y", "the metric of quality, which goes up", "NAME"),
            Flag("--format", f"write these files alone, of {', '.join(FORMATS)}", "NAME,NAME"),
            Flag("--page-sources", "of how many sources the samples are shown in report.html (100)", "N"),
        ),
    ),
    "ls": Verb(
        "list what there is",
        "Lists models, datasets, samplers, metrics, experiments or runs; each with its dials, ranges and defaults.\n"
        "Runs are points and trainings (kind='training'); every column, dial and metric can be asked by its name.",
        (
            "diffq ls samplers",
            "diffq ls samplers imh",
            "diffq ls metrics --json",
            "diffq ls runs outputs/points/qqp",
            "diffq ls runs --where \"sampler='cfg' and bleu > 10\" --sort -bleu --limit 20",
            "diffq ls runs --where \"dataset='qqp' and scale >= 2\" --columns folder,scale,bleu,bleu_low,bleu_high",
        ),
        words="WHAT [NAME ...] [RUN ...] [KEY=VALUE ...]",
        flags=QUESTIONS,
    ),
    "export": Verb(
        "write what is known of all points into one table, or a model in a published layout",
        "Writes one row a point into a .parquet, .csv, .json or .jsonl file: every column, dial and metric, typed.\n"
        "With --samples one row a sample. Trainings are left out unless --where asks for a kind.\n"
        "With --layout a training's model is written as others have published theirs: config.json,\n"
        "model.safetensors and its tokenizer, which checkpoint=FOLDER reads again.",
        (
            "diffq export runs.parquet",
            "diffq export best.csv --where \"sampler='cfg'\" --sort -bleu --limit 10 --columns folder,scale,bleu",
            "diffq export samples.parquet --samples --where \"dataset='qqp'\"",
            "diffq export runs.jsonl outputs/sweeps/NAME",
            "diffq export outputs/train/wikitext2-sedd_mini-1f3a9c --layout sedd --to my_sedd",
        ),
        words="{FILE [RUN ...] | CHECKPOINT --layout NAME --to FOLDER} [outputs=FOLDER]",
        flags=(
            *QUESTIONS,
            Flag("--samples", "one row a sample instead of one a point"),
            Flag("--force", "write over a file that is there"),
            Flag("--layout", f"write a model instead, in the layout of {' or '.join(LAYOUTS)}", "NAME"),
            Flag("--to", "the folder that --layout makes", "FOLDER"),
        ),
    ),
    "mos": Verb(
        "have people rate samples, and read their ratings",
        "export writes a page for each rater: one HTML file that opens without a network and keeps ratings in the\n"
        "browser. Every system, a point or the references, is rated on the same sources, in an order of its own for\n"
        "each rater. The pages do not hold who wrote what: that is in key.json, which import needs.\n"
        "import prints means with intervals, paired differences and the raters' agreement, and writes the metric\n"
        "mos to the points.",
        (
            "diffq mos export outputs/sweeps/NAME --items 20 --raters 3 --to study",
            "diffq mos export RUN RUN --with-references --repeats 5 --question 'Is it a good paraphrase?' --to study",
            "diffq mos export RUN RUN --scale 1-7 --to page.html",
            "diffq mos import RUN ratings-1.json ratings-2.json",
        ),
        words="{export RUN [RUN ...] --to FOLDER | import FOLDER FILE [FILE ...]} [outputs=FOLDER]",
        flags=(
            Flag("--to", "where the pages and key.json go; FILE.html for the page of one rater", "FOLDER"),
            Flag("--items", "how many sources are rated, each once for every system (20)", "N"),
            Flag("--raters", "how many raters there are; each has a page of their own (1)", "N"),
            Flag(
                "--repeats",
                "texts that each rater sees a second time, to see how far they agree with themselves (0)",
                "N",
            ),
            Flag("--with-references", "the references are a system too, called human, and just as hidden"),
            Flag("--question", "what raters are asked", "TEXT"),
            Flag("--scale", "the least and the greatest grade (1-5)", "LOW-HIGH"),
            Flag("--seed", "the seed of which sources are drawn, and of all orders (0)", "N"),
        ),
    ),
    "rerun": Verb(
        "repeat points from their own records",
        "Samples a point, or all points of a sweep, once more with what their records say, and compares: says before\n"
        "what is not as it was (code, versions, device), and after in what the results differ. The point itself stays\n"
        "as it is; the repetition lies under outputs/reruns/ and goes on where it was when it is cut off.\n"
        "Exit status: 0 where the rows are equal, or as nearly as they have to be on another machine; 1 elsewhere.",
        (
            "diffq rerun outputs/points/qqp/gaussian/cfg/scale2-1f3a9c",
            "diffq rerun outputs/sweeps/NAME --json",
            "diffq rerun outputs/points/qqp/gaussian/cfg/scale2-1f3a9c device=cpu --again",
        ),
        words="RUN [RUN ...] [KEY=VALUE ...]",
        flags=(Flag("--again", "repeat even what this code has repeated here already"),),
    ),
    "likelihood": Verb(
        "measure the perplexity of real text under a model",
        "Unconditional, over windows of the text that do not overlap; exact for causal models, an upper bound with\n"
        "its error for diffusion. What was measured is kept under outputs/likelihood/.",
        (
            "diffq likelihood model=sedd_mini dataset=wikitext2",
            "diffq likelihood checkpoint=louaaron/sedd-small dataset=wikitext2,lambada --draws 500",
            "diffq likelihood model=gpt2 dataset=wikitext103 dataset.evaluated_on=valid",
        ),
        flags=(Flag("--draws", "noise levels drawn for each window, in each of two replicates (16)", "N"),),
    ),
    "harness": Verb(
        "run lm-eval-harness' tasks on a text model",
        "lambada, hellaswag, piqa, arc_easy, arc_challenge and winogrande are local ($DIFFQ_DATA/lm_eval); others are\n"
        "stock tasks of the harness. Diffusion ranks answers by the bound on question and answer together, under\n"
        "common noise; causal models by the exact likelihood. Answers are kept under outputs/harness/.",
        (
            "diffq harness model=mdlm_mini tasks=lambada,piqa --limit 100",
            "diffq harness model=gpt2 tasks=hellaswag",
            "diffq harness checkpoint=louaaron/sedd-small model=sedd_small --draws 64",
        ),
        words="[tasks=NAME,NAME] [KEY=VALUE ...]",
        flags=(
            Flag("--draws", "noise levels drawn for each answer (16)", "N"),
            Flag("--limit", "the first questions of each task alone", "N"),
            Flag("--conditional", "rank by the bound on the answer given the question"),
        ),
    ),
    "bench": Verb(
        "time the samplers against textbook versions",
        "samplers: speed-ups over the textbook samplers; overhead: where the time goes; train: training throughput;\n"
        "latency: diffusion at n steps against causal models with their cache.\n"
        "NAME … runs those rows alone.",
        (
            "diffq bench samplers",
            "diffq bench samplers absorbing --json",
            "diffq bench latency",
            "diffq bench overhead",
        ),
        words="{samplers,overhead,train,latency} [NAME ...] [KEY=VALUE ...]",
        flags=(Flag("--full", "run all steps of textbooks and of imh instead of a part of them"),),
    ),
}

TAKES_RUNS = ("score", "report", "ls", "export", "mos", "rerun")


def overview() -> str:
    """The text of `diffq --help`."""
    width = max(map(len, VERBS)) + 2
    verbs = "\n".join(f"  {name:<{width}}{verb.summary}" for name, verb in VERBS.items())
    return f"""usage: diffq VERB [KEY=VALUE ...]

Find out how a diffusion language model trades quality against diversity.

verbs:
{verbs}

  diffq VERB --help             what a verb does, with examples
  diffq completion bash         a script that completes verbs, names and dials (bash, zsh, fish)

keys:
  model dataset sampler metric trainer tracker experiment     a name: `diffq ls samplers` shows them
  seed num_samples num_sources split length checkpoint outputs plugins device dtype batch_tokens trace
  energy energy_potential
  scale, steps, temperature, …  the dials of the chosen sampler; also written sampler.scale

examples:
  diffq train                                       a small model of the embedded grammar world, in a minute
  diffq sweep sampler=cfg scale=1,2,4               its frontier along the guidance scale
  diffq sample sampler=cfg scale=2 --watch          the canvas denoising in the terminal
  diffq report                                      the newest sweep's frontier"""


def parser_for(verb: str) -> argparse.ArgumentParser:
    """The parser of one verb. Mistakes are raised as UserError."""
    described = VERBS[verb]
    parser = _Parser(
        prog=f"diffq {verb}",
        usage=f"diffq {verb} {described.words} [OPTIONS]",
        description=described.text,
        epilog="examples:\n" + "\n".join(f"  {line}" for line in described.examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if verb == "ls":
        parser.add_argument("subject", metavar="WHAT", type=_one_of("list called", LISTED), help=", ".join(LISTED))
    if verb == "export":
        parser.add_argument(
            "file",
            metavar="FILE",
            help="what is written: NAME.parquet, .csv, .json or .jsonl; with --layout the checkpoint that is read",
        )
    if verb == "mos":
        parser.add_argument("subject", metavar="WHAT", type=_one_of("mos", RATING), help=", ".join(RATING))
    if verb == "bench":
        parser.add_argument(
            "subject",
            metavar="WHAT",
            nargs="?",
            default="samplers",
            type=_one_of("bench", BENCHES),
            help=", ".join(BENCHES),
        )
    parser.add_argument("words", nargs="*", metavar="WORD", help=_words_help(verb))
    for flag in (*described.flags, *COMMON):
        if flag.metavar:
            parser.add_argument(flag.name, metavar=flag.metavar, action="append", default=[], help=flag.help)
        else:
            parser.add_argument(flag.name, action="store_true", help=flag.help)
    return parser


def flags_of(verb: str) -> list[str]:
    """The flags of a verb, for completion."""
    return [flag.name for flag in (*VERBS[verb].flags, *COMMON)] + ["--help"]


def _words_help(verb: str) -> str:
    if verb == "mos":
        return "export: folders of points or sweeps; import: the folder with key.json, then files of ratings"
    if verb in TAKES_RUNS:
        return "folders of points or sweeps, and settings such as seed=1"
    return "rows to run, and settings" if verb == "bench" else "settings such as seed=1 or sampler=cfg"


def _one_of(what: str, known: tuple[str, ...]):
    def check(word: str) -> str:
        if word not in known:
            raise unknown(what, word, known)
        return word

    return check


class _Parser(argparse.ArgumentParser):
    """Says what is wrong as a UserError instead of printing its usage; a flag takes the word after it as its value even
    where that begins with `-`, as in `--sort -bleu`."""

    def parse_intermixed_args(self, args=None, namespace=None):
        verb = self.prog.split()[-1]
        takers = {flag.name for flag in (*VERBS[verb].flags, *COMMON) if flag.metavar}
        words: list[str] = []
        for word in args or ():
            if words and words[-1] in takers and word.startswith("-") and word not in flags_of(verb):
                words[-1] += f"={word}"
            else:
                words.append(word)
        return super().parse_intermixed_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        verb = self.prog.split()[-1]
        if found := re.match(r"unrecognized arguments: (\S+)", message):
            near = did_you_mean(found[1], flags_of(verb))
            raise UserError(f"{verb} has no option {found[1]}{near}; it has: {', '.join(flags_of(verb))}")
        if verb == "export" and "required" in message:
            raise UserError(
                "export needs the file to write, such as runs.parquet, or before --layout the folder of a training"
            )
        if verb == "mos" and "required" in message:
            raise UserError("mos needs to know what to do: export pages for raters, or import their ratings")
        if verb == "ls" and "required" in message:
            raise UserError(f"ls needs to know what to list: {', '.join(LISTED)}")
        raise UserError(f"{verb}: {message}; see `{self.prog} --help`")
