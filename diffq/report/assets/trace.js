// Traces played step by step: the canvas of each traced row, with the words that the step changed marked.

const player = { step: 0, isPlaying: false, timer: null, show: null };

// The words of a row after each step, and which positions that step changed: [{words, changed, time, stats}, …].
function frames(trace) {
  let words = [];
  return trace.steps.map((step) => {
    words = [...words];
    for (const [position, word] of step.changed) words[position] = word;
    return {
      words,
      changed: new Set(step.changed.map(([position]) => position)),
      time: step.time,
      stats: step.stats ?? {},
    };
  });
}

function stopPlaying() {
  clearInterval(player.timer);
  Object.assign(player, { isPlaying: false, timer: null });
}

// Pieces of words, which a tokenizer writes as `##ing`, stand close to the word that they go on.
function canvasRow(frame) {
  return frame.words.flatMap((word, position) => {
    const changed = frame.changed.has(position) ? " changed" : "";
    const piece = word !== null && word.startsWith("##");
    const shown = word === null ? "▁" : piece ? word.slice(2) : word;
    return [piece ? "" : " ", el("span", { class: `word${changed}${word === null ? " mask" : ""}` }, shown)];
  });
}

function traceEntry(trace) {
  const [line, figures] = [el("p", { class: "canvas" }), el("p", { class: "quiet" })];
  return { trace, frames: frames(trace), source: trace.asked ?? "", line, figures };
}

// The panel that plays all traces of a point together.
function tracePanel(part) {
  stopPlaying();
  const { traces } = readBlock(`part-${part.key}`);
  const rows = traces.map(traceEntry);
  const last = Math.max(...rows.map((row) => row.frames.length)) - 1;
  const slider = el("input", { type: "range", id: "step", min: 0, max: last, step: 1, "aria-label": "Step" });
  const where = el("span", { class: "where" });
  const play = button("▶ play", { id: "play" }, () => toggle());
  const show = (step) => {
    player.step = Math.min(Math.max(0, step), last);
    slider.value = player.step;
    slider.setAttribute("aria-valuetext", `step ${player.step + 1} of ${last + 1}`);
    where.textContent = `step ${player.step + 1} of ${last + 1}`;
    play.textContent = player.isPlaying ? "❚❚ pause" : "▶ play";
    for (const row of rows) {
      const frame = row.frames[Math.min(player.step, row.frames.length - 1)];
      row.line.replaceChildren(
        ...canvasRow(player.step < row.frames.length ? frame : { ...frame, changed: new Set() }),
      );
      const stats = Object.entries(frame.stats).map(
        ([name, value]) => `${name.replaceAll("_", " ")} ${shortNumber(value)}`,
      );
      row.figures.textContent = [`t ${frame.time.toFixed(2)}`, ...stats].join(" · ");
    }
  };
  const tick = () => {
    if (player.step === last) stopPlaying();
    show(player.step + (player.isPlaying ? 1 : 0));
  };
  const toggle = () => {
    if (player.isPlaying) {
      stopPlaying();
      return show(player.step);
    }
    if (player.step === last) player.step = -1;
    player.isPlaying = true;
    player.timer = setInterval(tick, Math.min(500, Math.max(90, 6000 / (last + 1))));
    return show(player.step + 1);
  };
  const go = (by) => () => {
    stopPlaying();
    show(player.step + by);
  };
  slider.addEventListener("input", () => {
    stopPlaying();
    show(Number(slider.value));
  });
  player.show = { toggle, back: go(-1), on: go(1) };
  player.isPlaying = false;
  show(0);
  const odd = traces.some((trace) => !trace.same);
  return [
    el(
      "div",
      { class: "controls" },
      play,
      button("‹", { "aria-label": "A step back" }, go(-1)),
      slider,
      button("›", { "aria-label": "A step on" }, go(1)),
      where,
    ),
    rows.map((row) =>
      el(
        "article",
        { class: "entry" },
        el("p", { class: "source" }, el("span", { class: "tag" }, `source ${row.trace.source}`), row.source),
        row.line,
        row.figures,
      ),
    ),
    el("p", { class: "quiet" }, "Marked: the words that the step changed. ▁ nothing stands there yet."),
    odd
      ? el(
          "p",
          { class: "quiet" },
          "A trace that ends otherwise than its saved sample was recorded on another machine or version.",
        )
      : null,
  ];
}
